"""Small logs on a disk in memory, and what is found when they are opened again."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from itertools import count

import attrs

from blipmq.protocol import encoder
from blipmq.wal.disk import Disk
from blipmq.wal.facts import (
    Checkpoint,
    Fact,
    Opened,
    RunRecord,
    Settled,
    SubscriptionState,
    UnsettledRange,
)
from blipmq.wal.log import Log
from tests.wal.memory_disk import MemoryDisk

TIME_MS = 1_700_000_000_000

SUBSCRIPTION = SubscriptionState(7, "key-1", b"demo", 20, (UnsettledRange(11, 12, 2),))
CHECKPOINT = Checkpoint(1_000, (), (SUBSCRIPTION,), ((b"news", 5),))


def salts() -> Callable[[], int]:
    """Another salt for every segment."""
    numbers = count(0x5EED_0001, 0x0101_0101)
    return lambda: next(numbers) & 0xFFFF_FFFF


def run(first: int, messages: int = 1, topic: bytes = b"demo", body: bytes = b"body") -> RunRecord:
    """A run of equal messages, as the broker would number them."""
    frames = (encoder.publish(first + i, 1, topic, body) for i in range(messages))
    return RunRecord(topic, first, messages, b"".join(frames))


def all_wanted(topic: bytes) -> int:
    return 0


def none_wanted(topic: bytes) -> None:
    return None


def begin(disk: Disk, checkpoint: Checkpoint = CHECKPOINT, segment_bytes: int = 1 << 20) -> Log:
    """An open log with one segment more than before, as the daemon has it after its start."""
    log = Log.open(disk, segment_bytes, salts())
    log.recover()
    for _ in log.runs():
        pass
    log.roll(checkpoint, 1, all_wanted)
    return log


def append(log: Log, *facts: Fact, next_number: int = 100) -> None:
    log.append(facts, next_number, TIME_MS)


@attrs.frozen
class StoredRun:
    """A run as it was found, with bytes of its own."""

    topic: bytes
    first: int
    count: int
    data: bytes
    time_ms: int

    @classmethod
    def of(cls, record: RunRecord, time_ms: int | None = None) -> StoredRun:
        time_ms = record.time_ms if time_ms is None else time_ms
        return cls(record.topic, record.first, record.count, bytes(record.data), time_ms)


@attrs.frozen
class Found:
    """What a log holds: the facts from its last checkpoint on, a number above all, the runs."""

    facts: list[Fact]
    next_number: int
    runs: list[StoredRun]
    torn_bytes: int

    @property
    def numbers(self) -> list[int]:
        """The first number of every run."""
        return [run.first for run in self.runs]


def read(disk: Disk) -> Found:
    """What a daemon finds that starts on this disk; it gives the disk back at once."""
    log = Log.open(disk, 1 << 20, salts())
    try:
        facts, next_number = log.recover()
        runs = [StoredRun.of(record) for record in log.runs()]
        return Found([fact for _, fact in facts], next_number, runs, log.torn_bytes)
    finally:
        log.close()


def small_log() -> MemoryDisk:
    """Two segments, of which the older one is wanted; the last one ends in a run."""
    disk = MemoryDisk()
    log = begin(disk)
    append(log, Opened(SUBSCRIPTION), run(21, 2), Settled(7, 11, 11))
    log.roll(CHECKPOINT, 23, all_wanted)
    append(log, run(23), Settled(7, 21, 22), run(24, 1, b"news"), next_number=25)
    log.close()
    return disk.after_kill()


FIRST = "0000000000000001.wal"
LAST = "0000000000000002.wal"


def records_of(content: bytes | bytearray) -> Iterator[tuple[int, int]]:
    """Where each record begins and ends, by its length field alone."""
    at = 32
    while at < len(content):
        end = at + 16 + int.from_bytes(content[at + 8 : at + 12], "little")
        yield at, end
        at = end


def record_with_payload(payload: bytes, id_: int = 9, salt: int = 1) -> bytes:
    """A record that checks, whatever its payload says."""
    start = struct.pack("<QI", id_, len(payload) + 1)
    crc = zlib.crc32(start + payload + b"\xff", salt)
    return start + struct.pack("<I", crc) + payload + b"\xff"
