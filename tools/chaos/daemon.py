"""A real daemon as a process of its own: start it, wait until it is ready, kill it."""

from __future__ import annotations

import json
import os
import sys
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, Self

import attrs
import trio
from prometheus_client.parser import text_string_to_metric_families

from blipmq.config import environment_variable

KEY: Final = "chaos-key"
READY_SECONDS: Final = 60.0
_LINES_KEPT: Final = 200
_LOOK_SECONDS: Final = 0.02


class DaemonEnded(Exception):
    """The daemon ended where it should not have. The text has its status and its last lines."""


@attrs.frozen
class Program:
    """What is run: a module, by a command that begins with `prefix`, with more variables."""

    module: str = "blipmq"
    prefix: tuple[str, ...] = ()
    variables: Mapping[str, str] = attrs.Factory(dict)


BLIPMQD: Final = Program()


@attrs.define(eq=False)
class Daemon:
    """One process of `blipmqd`, on free ports of the loopback address.

    `lines` are the last lines of its log.
    """

    process: trio.Process
    lines: deque[dict[str, object]] = attrs.Factory(lambda: deque(maxlen=_LINES_KEPT))
    _logged: trio.Event = attrs.Factory(trio.Event)
    _ended: trio.Event = attrs.Factory(trio.Event)

    @classmethod
    async def launch(
        cls,
        nursery: trio.Nursery,
        wal_path: Path,
        program: Program = BLIPMQD,
        /,
        **settings: object,
    ) -> Self:
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
        # Files are made to fail: not those of a program that measures this one.
        foreign = ("BLIPMQ_", "COVERAGE_")
        environment = {k: v for k, v in os.environ.items() if not k.startswith(foreign)}
        environment |= {environment_variable(name): str(value) for name, value in values.items()}
        environment |= program.variables
        process: trio.Process = await nursery.start(_run, program, environment)
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
        self._logged.set()

    def _note(self, line: bytes) -> None:
        try:
            entry = json.loads(line)
        except ValueError:
            entry = {"event": line.decode(errors="replace")}
        self.lines.append(entry)
        self._logged.set()
        self._logged = trio.Event()

    def logged(self, event: str) -> bool:
        """Whether a line of its log says this."""
        return any(line["event"] == event for line in self.lines)

    @property
    def text(self) -> str:
        """Its last lines, for people."""
        return "\n".join(json.dumps(line) for line in self.lines)

    @property
    def last_words(self) -> str:
        """The error that it ended with, or its last line."""
        line: dict[str, object] = self.lines[-1] if self.lines else {"event": "nothing"}
        return str(line.get("error", line["event"]))

    async def says(self, event: str) -> dict[str, object]:
        """Wait for a line of its log; the line.

        Raises DaemonEnded, or trio.TooSlowError after a minute.
        """
        with trio.fail_after(READY_SECONDS):
            while True:
                for line in self.lines:
                    if line["event"] == event:
                        return line
                if self._ended.is_set():
                    raise DaemonEnded(f"status {await self.process.wait()}\n{self.text}")
                await self._logged.wait()

    async def ready(self) -> tuple[str, int]:
        """Wait until clients can connect; where they can.

        Raises DaemonEnded, or trio.TooSlowError after a minute.
        """
        return _address((await self.says("ready"))["address"])

    async def get(self, path: str) -> tuple[int, str]:
        """Status and body of an HTTP GET from its metrics endpoint."""
        stream = await trio.open_tcp_stream(*_address((await self.says("ready"))["metrics"]))
        with trio.fail_after(READY_SECONDS):
            async with stream:
                await stream.send_all(
                    f"GET {path} HTTP/1.1\r\nHost: chaos\r\nConnection: close\r\n\r\n".encode()
                )
                response = b"".join([data async for data in stream])
        head, _, body = response.partition(b"\r\n\r\n")
        return int(head.split()[1]), body.decode()

    async def metric(self, name: str, **labels: str) -> float:
        """The sum of the series of this name that have these labels."""
        _, body = await self.get("/metrics")
        families = text_string_to_metric_families(body)
        samples = (sample for family in families for sample in family.samples)
        return sum(
            s.value for s in samples if s.name == name and labels.items() <= s.labels.items()
        )

    async def metric_is(self, name: str, enough: Callable[[float], bool]) -> None:
        """Look at a metric until it is as it should be. Raises trio.TooSlowError after a minute."""
        with trio.fail_after(READY_SECONDS):
            while True:
                if enough(await self.metric(name)):
                    return
                await trio.sleep(_LOOK_SECONDS)

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


def _address(text: object) -> tuple[str, int]:
    host, _, port = str(text).rpartition(":")
    return host, int(port)


async def _run(
    program: Program,
    environment: Mapping[str, str],
    *,
    task_status: trio.TaskStatus[trio.Process],
) -> None:
    """The process, for as long as it takes; killed when this is cancelled."""
    process = await trio.lowlevel.open_process(
        [*program.prefix, sys.executable, "-m", program.module], stderr=-1, env=environment
    )
    task_status.started(process)
    try:
        await process.wait()
    finally:
        if process.poll() is None:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()
