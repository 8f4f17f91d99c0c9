"""Whether the log may be written to on Trio's thread: as long as that is quick.

A write goes into the page cache and takes some microseconds, much less than the way to a thread and
back; but on a disk that cannot keep up the kernel makes it wait.
"""

from __future__ import annotations

from typing import Final

import attrs

BYTES_MAX: Final = 64 * 1024
"""What is longer goes by a thread: it copies and sums while others run."""
SECONDS_MAX: Final = 0.02
"""A write that took longer was held up."""
QUICK_WRITES_MIN: Final = 8
QUICK_WRITES_MAX: Final = 1024
"""After a write was held up on Trio's thread so many by a thread have to be quick, and twice as
many each time that it happens again; as many on Trio's thread without a delay make up for one."""


@attrs.define(eq=False)
class InlineWrites:
    """Tells which way the next write goes, by how long the last ones took."""

    _suspended: int = 0
    """How many writes have to be quick before one is made on Trio's thread again."""
    _penalty: int = QUICK_WRITES_MIN
    _quick: int = 0

    def allow(self, size: int) -> bool:
        """Whether so many bytes may be written on Trio's thread."""
        return not self._suspended and size <= BYTES_MAX

    def took(self, seconds: float) -> None:
        """A write on Trio's thread took so long."""
        if seconds > SECONDS_MAX:
            self._suspended, self._quick = self._penalty, 0
            self._penalty = min(2 * self._penalty, QUICK_WRITES_MAX)
            return
        self._quick += 1
        if self._quick >= self._penalty > QUICK_WRITES_MIN:
            self._penalty, self._quick = self._penalty // 2, 0

    def took_in_thread(self, seconds: float) -> None:
        """A write in a thread took so long, without the way there and back."""
        if not self._suspended:
            return
        self._suspended = self._penalty if seconds > SECONDS_MAX else self._suspended - 1
