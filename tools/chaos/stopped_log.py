"""The log of a daemon that was killed, to be damaged: made once, copied for every damage."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final, Self

import attrs
import trio

from blipmq.wal.record import SEGMENT_HEADER_BYTES, parse_segment_header, records
from tools.chaos.connection import Connection
from tools.chaos.daemon import Daemon

TOPIC: Final = b"demo"
BODIES: Final = tuple(b"message %d " % i + b"x" * (i * 97 % 1_500) for i in range(40))


@attrs.frozen
class StoppedLog:
    """A log that holds `BODIES`, one to a record, for one subscription."""

    directory: Path

    @classmethod
    async def make(cls, directory: Path) -> Self:
        """Have a daemon write it, and kill the daemon."""
        async with trio.open_nursery() as nursery:
            daemon = await Daemon.launch(nursery, directory)
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
    def segment(self) -> Path:
        """The last segment, which holds everything."""
        return max(self.directory.glob("*.wal"))

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
