"""Space that is kept for a full disk: a file of allocated blocks, given up piece by piece.

It is for settlements and checkpoints. While any of it is missing nothing else is written, so that
what is given up for them is not taken by messages.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Final

import attrs

from blipmq.wal.disk import Disk
from blipmq.wal.room import NO_SPACE

RESERVE_NAME: Final = "reserve"
OF_FREE_SPACE: Final = 8
"""The reserve takes no more than one part in so many of what is free."""
_PIECE_BYTES: Final = 1 << 16


@attrs.define(eq=False)
class Reserve:
    """`size` is what the setting says, `target` how much of it the disk had room for at the start.

    `held` is how much there is. A disk on which the file cannot be made for another reason than
    that it is full has no reserve.
    """

    disk: Disk
    size: int
    target: int = 0
    held: int = 0

    def begin(self) -> None:
        """Find what an earlier process left, and fill it up. Raises OSError."""
        if RESERVE_NAME in self.disk.names():
            self.held = self.disk.size(RESERVE_NAME)
            if not self.size:
                self.disk.remove(RESERVE_NAME)
                self.held = 0
        room = (self.disk.free() + self.held) // OF_FREE_SPACE
        self.target = min(self.size, max(room, self.held))
        if self.held > self.target:
            self._cut(self.target)
        if not self.fill():
            # A quota, perhaps. Messages get at least as much as the reserve.
            self._cut(self.held // 2)
            self.target = self.held

    @property
    def whole(self) -> bool:
        return self.held >= self.target

    def fill(self) -> bool:
        """Take back what is missing, or as much as there is room for; whether it is whole now."""
        if self.whole:
            return True
        try:
            self.disk.allocate(RESERVE_NAME, self.target)
        except OSError as error:
            self.held = self._size()
            if error.errno not in NO_SPACE:
                self.target = self.held
        else:
            self.held = self.target
        return self.whole

    def give(self, needed: int) -> bool:
        """Give up a piece, of `needed` bytes or more; False when nothing is left to give."""
        if not self.held:
            return False
        try:
            self._cut(max(0, self.held - _PIECE_BYTES * -(-needed // _PIECE_BYTES)))
        except OSError:
            return False
        return True

    def _cut(self, size: int) -> None:
        if size < self.held:
            self.disk.cut(RESERVE_NAME, size)
            self.held = size

    def _size(self) -> int:
        with suppress(OSError):
            return self.disk.size(RESERVE_NAME)
        return 0
