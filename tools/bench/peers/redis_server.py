"""The server of Redis, with what it does about its append-only file."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Literal

from tools.bench.peers.peer import Launch, PeerServer
from tools.bench.peers.process import HOST, find_program, first_line_of

AppendOnly = Literal["no", "everysec", "always"]
"""No file, or one that is synced once a second, or before each answer."""
_SETTINGS = {
    "save": "",
    "client-output-buffer-limit": "pubsub 0 0 0",
    "auto-aof-rewrite-percentage": "0",
}


def version() -> str:
    """As the server tells it. Raises Missing."""
    return first_line_of(find_program("redis-server"), "--version")


def redis_server(append_only: AppendOnly = "no", within: Path | None = None) -> PeerServer:
    """A server without snapshots and without a bound on what subscribers have not read."""
    settings = _SETTINGS | {"appendonly": "no"}
    if append_only != "no":
        settings |= {"appendonly": "yes", "appendfsync": append_only}
    return PeerServer("Redis", settings, partial(_launch, settings), within)


def _launch(settings: dict[str, str], directory: Path, port: int) -> list[Launch]:
    command = [find_program("redis-server"), "--bind", HOST, "--port", str(port)]
    command += ["--dir", str(directory), "--daemonize", "no"]
    for key, value in settings.items():
        command += [f"--{key}", value]
    return [Launch(command, port)]
