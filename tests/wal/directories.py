"""Logs in real directories, to be damaged, looked into and repaired."""

from __future__ import annotations

from pathlib import Path

from blipmq.broker.restore import Restoration
from blipmq.errors import CorruptLog
from blipmq.wal.disk import File
from blipmq.wal.facts import Opened, Settled
from blipmq.wal.repair import Repair, carry_out, plan
from blipmq.wal.salvage import LiveDisk
from blipmq.wal.scan import LogScan
from tests.wal.logs import (
    CHECKPOINT,
    SUBSCRIPTION,
    Found,
    all_wanted,
    append,
    begin,
    read,
    records_of,
    run,
)

RESERVE = 1 << 32


class QuickFile(File):
    def sync(self) -> None:
        """Not for good: the test is over before the power goes."""


class QuickDisk(LiveDisk):
    """A directory; nothing waits for the disk."""

    def create(self, name: str) -> File:
        return self._quick(super().create(name))

    def open(self, name: str) -> File:
        return self._quick(super().open(name))

    def sync_directory(self) -> None:
        pass

    def _quick(self, file: File) -> File:
        return QuickFile(file._fd, file.size)


def two_segments(path: Path) -> Path:
    """The log of `logs.small_log` in a directory: FIRST is wanted by LAST."""
    log = begin(QuickDisk(path))
    append(log, Opened(SUBSCRIPTION), run(21, 2), Settled(7, 11, 11))
    log.roll(CHECKPOINT, 23, all_wanted)
    append(log, run(23), Settled(7, 21, 22), run(24, 1, b"news"), next_number=25)
    log.close()
    return path


def contents(path: Path) -> dict[str, bytes]:
    """The segments by name."""
    return {file.name: file.read_bytes() for file in sorted(path.glob("*.wal"))}


def put(path: Path, files: dict[str, bytes]) -> Path:
    """A log of these segments, in the place of what was there."""
    path.mkdir(exist_ok=True)
    for file in path.glob("*.wal"):
        file.unlink()
    for name, content in files.items():
        (path / name).write_bytes(content)
    return path


def records(path: Path, name: str) -> list[tuple[int, int]]:
    """Where the records of a segment begin and end."""
    return list(records_of((path / name).read_bytes()))


def change(path: Path, name: str, at: int, new: bytes | None = None) -> None:
    """Write over what a segment has at `at`; without `new` flip a bit of the byte there."""
    content = bytearray((path / name).read_bytes())
    new = bytes((content[at] ^ 0x40,)) if new is None else new
    content[at : at + len(new)] = new
    (path / name).write_bytes(content)


def scanned(path: Path) -> LogScan:
    """A log that was read to its end."""
    scan = LogScan.of(QuickDisk(path))
    for _ in scan.runs():
        pass
    return scan


def planned(path: Path) -> Repair:
    return plan(LogScan.of(QuickDisk(path)), Restoration(), RESERVE)


def repaired(path: Path) -> Repair:
    """What was done."""
    repair = planned(path)
    carry_out(repair, QuickDisk(path), salt=77)
    return repair


def found(path: Path) -> Found:
    """What a daemon finds there. Raises CorruptLog."""
    return read(QuickDisk(path))


def starts(path: Path) -> bool:
    """Whether a daemon would start there."""
    try:
        found(path)
    except CorruptLog:
        return False
    return True


def state(path: Path) -> Restoration:
    """What the facts of a log come to."""
    restoration = Restoration()
    for id_, fact in LogScan.of(QuickDisk(path)).facts:
        restoration.apply(id_, fact)
    return restoration
