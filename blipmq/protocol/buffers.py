"""Receive buffers between their uses: who has nothing unfinished needs none."""

from __future__ import annotations

from typing import Final

import attrs

BUFFER_BYTES_MIN: Final = 4 * 1024
BUFFER_BYTES_MAX: Final = 256 * 1024
"""What reads ask for; a longer frame has a buffer of its own that grows with it."""


@attrs.define(eq=False)
class Buffers:
    """Lends receive buffers to decoders. Of each size it holds one that is not lent at most.

    Sizes are powers of two from `BUFFER_BYTES_MIN` to `BUFFER_BYTES_MAX`; so what it holds is less
    than twice the largest, however many decoders there are.
    """

    _spare: dict[int, bytearray] = attrs.Factory(dict)

    def take(self, size: int) -> bytearray:
        """A buffer of this size, with anything in it."""
        return self._spare.pop(size, None) or bytearray(size)

    def give_back(self, buffer: bytearray) -> None:
        """Nobody refers to it any more."""
        size = len(buffer)
        if BUFFER_BYTES_MIN <= size <= BUFFER_BYTES_MAX and not size & (size - 1):
            self._spare[size] = buffer
