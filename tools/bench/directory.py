"""The directory of a log that is measured, and the disk below it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_SECTORS_WRITTEN = 6
_SECTOR_BYTES = 512


@contextmanager
def log_directory(within: Path) -> Iterator[Path]:
    """A log's directory, which is removed in the end."""
    with tempfile.TemporaryDirectory(prefix="blipmq-bench-", dir=within) as directory:
        yield Path(directory) / "wal"


def size_bytes(log: Path) -> int:
    """What the log takes on the disk, its reserve included."""
    blocks = 0
    for path in log.iterdir():
        with suppress(FileNotFoundError):  # a segment that went just now
            blocks += path.stat().st_blocks
    return blocks * _SECTOR_BYTES


def device_bytes(directory: Path) -> int | None:
    """What the disk of a directory has written since the machine's start, for everybody.

    None for a file system that has no disk of its own, such as one in memory.

    What the kernel counts for a process are whole folios, which may be hundreds of pages for one
    that changed.
    """
    os.sync()
    device = directory.stat().st_dev
    statistics = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/stat")
    if not statistics.exists():
        return None
    return int(statistics.read_text().split()[_SECTORS_WRITTEN]) * _SECTOR_BYTES


def let_go_of_cache(log: Path) -> None:
    """Have the log read from the disk, not from what the kernel still holds of it."""
    for path in log.iterdir():
        fd = os.open(path, os.O_RDONLY)
        try:
            os.fsync(fd)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(fd)
