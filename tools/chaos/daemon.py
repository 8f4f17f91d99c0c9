"""A real daemon as a process of its own: start it, wait until it is ready, kill it."""

from __future__ import annotations

import json
import os
import sys
from collections import deque
from pathlib import Path
from typing import Final, Self

import attrs
import trio

from blipmq.config import environment_variable

KEY: Final = "chaos-key"
READY_SECONDS: Final = 60.0
_LINES_KEPT: Final = 200


class DaemonEnded(Exception):
    """The daemon ended where it should not have. The text has its status and its last lines."""


@attrs.define(eq=False)
class Daemon:
    """One process of `blipmqd`, on free ports of the loopback address.

    `lines` are the last lines of its log.
    """

    process: trio.Process
    lines: deque[dict[str, object]] = attrs.Factory(lambda: deque(maxlen=_LINES_KEPT))
    _address: str | None = None
    _listening: trio.Event = attrs.Factory(trio.Event)
    _ended: trio.Event = attrs.Factory(trio.Event)

    @classmethod
    async def launch(cls, nursery: trio.Nursery, wal_path: Path, **settings: object) -> Self:
        """Start a daemon with these settings, `limits__max_connections` for one of a table.

        Returns at once; it is killed when the nursery is cancelled.
        """
        values = {
            "port": 0,
            "metrics_port": 0,
            "wal_path": wal_path,
            "allowed_api_keys": KEY,
            "logging.format": "json",
        } | {name.replace("__", "."): value for name, value in settings.items()}
        environment = {k: v for k, v in os.environ.items() if not k.startswith("BLIPMQ_")}
        environment |= {environment_variable(name): str(value) for name, value in values.items()}
        process: trio.Process = await nursery.start(_run, environment)
        daemon = cls(process)
        nursery.start_soon(daemon._read)
        return daemon

    async def _read(self) -> None:
        """Take what it logs, so that it is never held up by it."""
        assert self.process.stderr is not None
        rest = b""
        async with self.process.stderr:
            async for data in self.process.stderr:
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    self._note(line)
        self._ended.set()
        self._listening.set()

    def _note(self, line: bytes) -> None:
        try:
            entry = json.loads(line)
        except ValueError:
            entry = {"event": line.decode(errors="replace")}
        self.lines.append(entry)
        if entry["event"] == "ready":
            self._address = entry["address"]
            self._listening.set()

    def logged(self, event: str) -> bool:
        """Whether a line of its log says this."""
        return any(line["event"] == event for line in self.lines)

    @property
    def text(self) -> str:
        """Its last lines, for people."""
        return "\n".join(json.dumps(line) for line in self.lines)

    async def ready(self) -> tuple[str, int]:
        """Wait until clients can connect; where they can.

        Raises DaemonEnded, or trio.TooSlowError after a minute.
        """
        with trio.fail_after(READY_SECONDS):
            await self._listening.wait()
        if self._address is None:
            raise DaemonEnded(f"status {await self.process.wait()}\n{self.text}")
        host, _, port = self._address.rpartition(":")
        return host, int(port)

    async def kill(self) -> None:
        """End it as `kill -9` does. Raises DaemonEnded when it had ended by itself."""
        if self.process.poll() is not None:
            raise DaemonEnded(f"status {self.process.returncode}\n{self.text}")
        self.process.kill()
        await self.process.wait()

    async def terminate(self) -> int:
        """Ask it to shut down; its exit status."""
        self.process.terminate()
        return await self.wait()

    async def wait(self) -> int:
        """Its exit status, when it has ended and everything it logged was read."""
        with trio.fail_after(READY_SECONDS):
            await self._ended.wait()
            return await self.process.wait()


async def _run(environment: dict[str, str], *, task_status: trio.TaskStatus[trio.Process]) -> None:
    """The process, for as long as it takes; killed when this is cancelled."""
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", "blipmq"], stderr=-1, env=environment
    )
    task_status.started(process)
    try:
        await process.wait()
    finally:
        if process.poll() is None:
            process.kill()
