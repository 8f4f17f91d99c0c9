"""The log of a daemon that was killed, to be damaged: made once, copied for every damage."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final, Self

import attrs
import trio

from blipmq.wal.disk import Disk
from blipmq.wal.log import Log
from blipmq.wal.record import SEGMENT_HEADER_BYTES, parse_segment_header, records
from tools.chaos.connection import Connection
from tools.chaos.daemon import BLIPMQD, Daemon, DaemonEnded, Program

TOPIC: Final = b"demo"
BODIES: Final = tuple(b"message %d " % i + b"x" * (i * 97 % 1_500) for i in range(40))


@attrs.frozen
class StoppedLog:
    """A log that holds `BODIES`, one to a record, for one subscription."""

    directory: Path

    @classmethod
    async def make(cls, directory: Path, program: Program = BLIPMQD, /, **settings: object) -> Self:
        """Have a daemon with these settings write it, and kill the daemon."""
        async with trio.open_nursery() as nursery:
            daemon = await Daemon.launch(nursery, directory, program, **settings)
            async with await Connection.open(await daemon.ready()) as connection:
                await connection.subscribe(TOPIC)
                for body in BODIES:
                    await connection.publish(TOPIC, [body])
            await daemon.kill()
        return cls(directory)

    def copy(self, directory: Path) -> StoppedLog:
        """In the place of whatever is there."""
        shutil.rmtree(directory, ignore_errors=True)
        shutil.copytree(self.directory, directory)
        return StoppedLog(directory)

    @property
    def segments(self) -> list[Path]:
        """The oldest first."""
        return sorted(self.directory.glob("*.wal"))

    @property
    def segment(self) -> Path:
        """The last segment; it holds everything if the log was made without settings."""
        return self.segments[-1]

    @property
    def content(self) -> dict[str, bytes]:
        """All segments by name, to see whether they were changed."""
        return {path.name: path.read_bytes() for path in self.segments}

    def recover(self) -> tuple[int, int]:
        """How many messages there are and how many bytes were torn off, as a start sees it.

        Changes the log as a start does. Raises CorruptLog.
        """
        log = Log.open(Disk(self.directory), 1 << 20, lambda: 0)
        try:
            log.recover()
            return sum(run.count for run in log.runs()), log.torn_bytes
        finally:
            log.close()

    async def refusal(self) -> str:
        """What the daemon says when it is to start on this log and has to refuse."""
        status, words = await refusal(self.directory)
        return words if status == 1 else f"status {status}: {words}"

    def records(self) -> list[tuple[int, int]]:
        """Where each record of it begins and ends."""
        content = self.segment.read_bytes()
        _, salt = parse_segment_header(content)
        ends = [end for _, _, end in records(content, SEGMENT_HEADER_BYTES, salt)]
        return list(zip([SEGMENT_HEADER_BYTES, *ends], ends, strict=False))


async def everything(connection: Connection, subscription: int) -> list[bytes]:
    """All messages that wait for the subscription, in their order."""
    bodies: list[bytes] = []
    while deliveries := await connection.poll(subscription, 100):
        bodies += [delivery.body for delivery in deliveries]
    return bodies


async def refusal(wal_path: Path, program: Program = BLIPMQD) -> tuple[int | None, str]:
    """Exit status and last words of a daemon that is to refuse to start; None if it started."""
    async with trio.open_nursery() as nursery:
        daemon = await Daemon.launch(nursery, wal_path, program)
        try:
            await daemon.ready()
        except DaemonEnded:
            return await daemon.wait(), daemon.last_words
        nursery.cancel_scope.cancel()
    return None, "it started"
