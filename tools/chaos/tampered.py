"""The daemon with a disk that fails, or a clock that is wrong, when it is told so.

`python -m tools.chaos.tampered` is `blipmqd` in every other respect. What is wrong is read from the
file that TAMPER_FILE names, at every write, fsync and look at the clock, so it can change at any
time.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import attrs

from tools.chaos.daemon import Program

TAMPER_FILE: Final = "CHAOS_TAMPER_FILE"
"""The variable that says where the file is."""


@attrs.frozen
class Tampering:
    """What is wrong: error numbers, 0 for none, and milliseconds."""

    write_error: int = 0
    sync_error: int = 0
    sync_delay_ms: int = 0
    clock_ms: int = 0
    """How far the time of day is ahead of what it should be."""

    def write(self, path: Path) -> None:
        """Make it so, for a daemon that has this file."""
        temporary = path.with_suffix(".new")
        temporary.write_text(" ".join(map(str, attrs.astuple(self))))
        temporary.replace(path)

    @classmethod
    def read(cls, path: Path) -> Tampering:
        """Nothing is wrong as long as there is no file."""
        try:
            return cls(*map(int, path.read_text().split()))
        except FileNotFoundError:
            return cls()


def tampered(file: Path) -> Program:
    """This program, told what is wrong by a file."""
    return Program("tools.chaos.tampered", variables={TAMPER_FILE: str(file)})


def main() -> None:
    """Put the tampered things in their places, and be `blipmqd`."""
    from blipmq.cli import blipmqd
    from blipmq.wal import disk

    path = Path(os.environ[TAMPER_FILE])

    class TamperedFile(disk.File):
        """A segment on a disk that may fail."""

        def append(self, buffers: Sequence[bytes | bytearray | memoryview]) -> None:
            _fail(Tampering.read(path).write_error)
            super().append(buffers)

        def sync(self) -> None:
            tampering = Tampering.read(path)
            time.sleep(tampering.sync_delay_ms / 1000)
            _fail(tampering.sync_error)
            super().sync()

    right_time_ns = time.time_ns

    def time_ns() -> int:
        return right_time_ns() + Tampering.read(path).clock_ms * 1_000_000

    for module, name, value in (
        (disk, "File", TamperedFile),
        (time, "time_ns", time_ns),
        (time, "time", lambda: time_ns() / 1e9),
    ):
        setattr(module, name, value)
    sys.argv[0] = "blipmqd"
    blipmqd.main()


def _fail(code: int) -> None:
    if code:
        raise OSError(code, os.strerror(code))


if __name__ == "__main__":
    main()
