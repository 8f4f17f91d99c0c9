"""Large receive buffers, which are used again once nothing refers to them any more.

A fresh one costs more than what is received into it: the system clears every page of it first.
"""

from __future__ import annotations

import sys
from collections import deque
from typing import Final

BUFFER_BYTES: Final = 256 * 1024
"""The size of the buffers that are worth it."""
_ALMOST: Final = BUFFER_BYTES // 4
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


class BufferPool:
    """Remembers the last 64 buffers that were given back, and gives out one that nothing refers to:
    neither a run nor a view of it. Of those it lets go all but a few.
    """

    __slots__ = ("_retired",)

    def __init__(self) -> None:
        self._retired: deque[bytearray] = deque(maxlen=_RETIRED_MAX)

    def take(self, size: int) -> bytearray:
        """A buffer of this size or, where one is at hand, of `BUFFER_BYTES`, if that is not much
        larger. What is in it is not said.
        """
        if _ALMOST <= size <= BUFFER_BYTES:
            retired = self._retired
            for _ in range(min(_LOOKED_AT, len(retired))):
                buffer = retired[0]
                if _references(buffer) == _UNUSED:
                    retired.popleft()
                    self._let_go()
                    return buffer
                retired.rotate(-1)
        return bytearray(size)

    def _let_go(self) -> None:
        """One for each that is given out, so that what a burst left behind goes before long."""
        retired = self._retired
        if len(retired) > _UNUSED_MAX:
            buffer = retired.popleft()
            if _references(buffer) != _UNUSED - 1:
                retired.append(buffer)

    def give(self, buffer: bytearray) -> None:
        """Give back a buffer, which runs may still refer to."""
        if len(buffer) == BUFFER_BYTES:
            self._retired.append(buffer)
