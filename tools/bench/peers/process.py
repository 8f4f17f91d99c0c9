"""Processes of the brokers that BlipMQ is compared with: found, started, waited for, ended.

Each gets free ports of the loopback address and a directory of its own, and is gone with both when
its context ends.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from tools.bench.daemon import DidNotStart

HOST = "127.0.0.1"
_PATIENCE_SECONDS = 60.0
_PAUSE_SECONDS = 0.02


class Missing(Exception):
    """A peer is not installed; says which program was looked for."""


def find_program(*names: str) -> str:
    """The first of these programs that is installed: names on the path, or whole paths.

    The directories of system programs count, also where the path leaves them out. Raises Missing.
    """
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
    for name in names:
        if found := shutil.which(name, path=path):
            return found
    raise Missing(names[0])


def free_port() -> int:
    """A TCP port on which nobody listens at the moment."""
    with socket.create_server((HOST, 0)) as server:
        port: int = server.getsockname()[1]
        return port


@contextmanager
def running(
    command: Sequence[str],
    directory: Path,
    port: int,
    environment: Mapping[str, str] | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server in `directory`, from the moment at which it accepts connections on `port`.

    What it writes goes to `output` in the directory. Raises DidNotStart.
    """
    output = directory / "output"
    with output.open("ab") as file:
        process = subprocess.Popen(
            command,
            cwd=directory,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    try:
        _wait_until_it_listens(process, port, output)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(_PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_it_listens(process: subprocess.Popen[bytes], port: int, output: Path) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        with suppress(OSError), socket.create_connection((HOST, port)):
            return
        time.sleep(_PAUSE_SECONDS)
    written = output.read_text(errors="replace")[-4000:]
    raise DidNotStart(f"{process.args!r} does not listen on port {port}:\n{written}")


def first_line_of(*command: str) -> str:
    """The first line that a command writes: how most programs tell their version."""
    found = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    return next(iter(found.stdout.splitlines()), "")
