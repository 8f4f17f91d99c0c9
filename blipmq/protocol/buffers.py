"""Receive buffers between their uses: who has nothing unfinished needs none.

A fresh one of the largest size costs more than to receive into it: the system clears every page
of it first. So one that runs refer to is used again when the last of them is gone.
"""

from __future__ import annotations

import sys
from collections import deque
from typing import Final

import attrs

BUFFER_BYTES_MIN: Final = 4 * 1024
BUFFER_BYTES_MAX: Final = 256 * 1024
"""What reads ask for; a longer frame has a buffer of its own that grows with it."""
_RETIRED_MAX: Final = 64
_UNUSED_MAX: Final = 8
_LOOKED_AT: Final = 4


def _references(buffer: bytearray) -> int:
    return sys.getrefcount(buffer)


def _references_of_none_else() -> int:
    """What `_references` says of a buffer in a deque that only one variable refers to as well."""
    retired = deque([bytearray()])
    buffer = retired[0]
    return _references(buffer)


_UNUSED: Final = _references_of_none_else()


@attrs.define(eq=False)
class Buffers:
    """Lends receive buffers to decoders. Of each size it holds one that is not lent at most.

    Sizes are powers of two from `BUFFER_BYTES_MIN` to `BUFFER_BYTES_MAX`; so what it holds is less
    than twice the largest, however many decoders there are. Besides, it remembers the last 64 of
    the largest that were given back while runs referred to them. A burst may leave those behind:
    with every one that is lent again another is let go, until a few are left.
    """

    _spare: dict[int, bytearray] = attrs.Factory(dict)
    _retired: deque[bytearray] = attrs.Factory(lambda: deque(maxlen=_RETIRED_MAX))

    def take(self, size: int) -> bytearray:
        """A buffer of this size, with anything in it."""
        buffer = self._spare.pop(size, None)
        if buffer is None and size == BUFFER_BYTES_MAX:
            buffer = self._unused()
        return bytearray(size) if buffer is None else buffer

    def give_back(self, buffer: bytearray) -> None:
        """Nobody refers to it any more."""
        size = len(buffer)
        if BUFFER_BYTES_MIN <= size <= BUFFER_BYTES_MAX and not size & (size - 1):
            self._spare[size] = buffer

    def retire(self, buffer: bytearray) -> None:
        """Runs, or views of them, may still refer to it."""
        if len(buffer) == BUFFER_BYTES_MAX:
            self._retired.append(buffer)

    def _unused(self) -> bytearray | None:
        retired = self._retired
        for _ in range(min(_LOOKED_AT, len(retired))):
            buffer = retired[0]
            if _references(buffer) == _UNUSED:
                retired.popleft()
                self._let_one_go()
                return buffer
            retired.rotate(-1)
        return None

    def _let_one_go(self) -> None:
        retired = self._retired
        if len(retired) > _UNUSED_MAX:
            buffer = retired[0]
            if _references(buffer) == _UNUSED:
                retired.popleft()
