"""Bytes as a row of choices, so that a fuzzer that changes bytes changes what is done."""

from __future__ import annotations

import attrs


@attrs.define
class Choices:
    """Takes numbers and bytes from the front of `data`; when that has ended all of them are 0."""

    data: bytes
    _at: int = 0

    def __bool__(self) -> bool:
        """Whether anything is left."""
        return self._at < len(self.data)

    def number(self, size: int = 1) -> int:
        """An unsigned integer of `size` bytes."""
        return int.from_bytes(self.take(size), "big")

    def take(self, size: int) -> bytes:
        """So many, or as many as are left."""
        start, self._at = self._at, self._at + size
        return self.data[start : start + size]

    def rest(self) -> bytes:
        return self.take(max(0, len(self.data) - self._at))
