"""`blipmqd` as a process of its own: starting it, listening to its log, ending it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import attrs
import trio
from prometheus_client.parser import text_string_to_metric_families

from tests.peer import KEY, PATIENCE_SECONDS, Peer, connected

BIN: Final = Path(sys.executable).parent
BLIPMQD: Final = (str(BIN / "blipmqd"),)
DEFAULTS: Final = {
    "BLIPMQ_PORT": "0",
    "BLIPMQ_METRICS_PORT": "0",
    "BLIPMQ_WAL_PATH": "wal",
    "BLIPMQ_LOGGING_FORMAT": "json",
    "BLIPMQ_ALLOWED_API_KEYS": KEY,
}
"""Free ports, one key, and a log in the directory of the test."""


@attrs.define(eq=False)
class Process:
    """One process. `lines` are those of its log, one JSON object each, as far as they are that."""

    process: trio.Process
    output: bytearray = attrs.Factory(bytearray)
    """All that it wrote to standard error."""
    lines: list[dict[str, Any]] = attrs.Factory(list)
    _wrote: trio.Event = attrs.Factory(trio.Event)
    _listening: bool = True

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def text(self) -> str:
        return self.output.decode()

    async def listen(self) -> None:
        """Read standard error to its end."""
        assert self.process.stderr is not None
        rest = b""
        async for data in self.process.stderr:
            self.output += data
            *lines, rest = (rest + data).split(b"\n")
            self.lines += [json.loads(line) for line in lines if line.startswith(b"{")]
            self._notify()
        self._listening = False
        self._notify()

    def _notify(self) -> None:
        self._wrote.set()
        self._wrote = trio.Event()

    async def logged(self, event: str) -> dict[str, Any]:
        """Wait for a line with this event; the line."""
        with trio.fail_after(PATIENCE_SECONDS):
            while True:
                for line in self.lines:
                    if line["event"] == event:
                        return line
                assert self._listening, f"it ended without {event!r}:\n{self.text}"
                await self._wrote.wait()

    async def address(self) -> tuple[str, int]:
        """Where it listens, once it does."""
        return _address((await self.logged("ready"))["address"])

    @asynccontextmanager
    async def peer(self) -> AsyncIterator[Peer]:
        """A connection to it."""
        async with connected(await self.address()) as peer:
            yield peer

    @asynccontextmanager
    async def client(self, key: str = KEY) -> AsyncIterator[Peer]:
        """A connection to it that has authenticated."""
        async with self.peer() as peer:
            await peer.greet(key)
            yield peer

    async def get(self, path: str) -> tuple[int, str]:
        """Status and body of an HTTP GET from its metrics endpoint."""
        address = _address((await self.logged("ready"))["metrics"])
        with trio.fail_after(PATIENCE_SECONDS):
            stream = await trio.open_tcp_stream(*address)
            async with stream:
                await stream.send_all(
                    f"GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n".encode()
                )
                response = b"".join([data async for data in stream])
        head, _, body = response.partition(b"\r\n\r\n")
        return int(head.split()[1]), body.decode()

    async def metric(self, name: str, **labels: str) -> float:
        """The value of one series."""
        status, body = await self.get("/metrics")
        assert status == 200
        (value,) = (
            sample.value
            for family in text_string_to_metric_families(body)
            for sample in family.samples
            if sample.name == name and sample.labels == labels
        )
        return float(value)

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def status(self) -> int:
        """Wait until it has ended, and all that it wrote is there; its exit status."""
        with trio.fail_after(PATIENCE_SECONDS):
            status = await self.process.wait()
            while self._listening:
                await self._wrote.wait()
        return status

    async def terminate(self) -> int:
        """Ask it to end; its exit status."""
        self.signal(signal.SIGTERM)
        return await self.status()

    async def kill(self) -> None:
        """As a crash: at once, and with nothing done any more."""
        self.process.kill()
        await self.status()


@attrs.define(eq=False)
class Processes:
    """Starts daemons that work in one directory, each in `nursery` until the test ends."""

    directory: Path
    nursery: trio.Nursery

    async def start(self, *arguments: str | Path, **environment: str | int) -> Process:
        """`blipmqd` with `DEFAULTS` and these settings in its environment."""
        return await self.run([*BLIPMQD, *arguments], {**DEFAULTS, **environment})

    async def run(
        self, command: Sequence[str | Path], environment: Mapping[str, str | int] = DEFAULTS
    ) -> Process:
        """Any command; of its environment, no other setting of BlipMQ is inherited."""
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("BLIPMQ_")}
        process = Process(
            await trio.lowlevel.open_process(
                list(map(str, command)),
                env=inherited | {name: str(value) for name, value in environment.items()},
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
            )
        )
        self.nursery.start_soon(self._watch, process)
        return process

    async def _watch(self, process: Process) -> None:
        try:
            await process.listen()
        finally:
            if process.process.returncode is None:
                process.process.kill()
            with trio.CancelScope(shield=True):
                await process.process.wait()
            assert process.process.stderr is not None
            await trio.aclose_forcefully(process.process.stderr)


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host, int(port)
