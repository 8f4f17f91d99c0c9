"""Frames out of the bytes that the broker sent, however they were cut."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import attrs

from blipmq.errors import FramingError
from blipmq.protocol.frames import (
    HEADER,
    HEADER_BYTES,
    LENGTH_BYTES,
    LENGTH_MAX,
    LENGTH_MIN,
    TYPES,
    U32,
    Frame,
)


@attrs.define(eq=False)
class Splitter:
    """Keeps the start of a frame until its rest has come; one frame at most."""

    _types: Mapping[int, str] = TYPES
    """The types that may come."""
    _rest: bytearray = attrs.field(factory=bytearray, init=False)
    _needed: int = attrs.field(default=LENGTH_BYTES, init=False)
    """Bytes that `_rest` must reach before it is worth another look."""

    @property
    def rest(self) -> bytes:
        """What has come of a frame that is not whole yet."""
        return bytes(self._rest)

    def lone(self, data: bytes | memoryview) -> tuple[int, int, bytes] | None:
        """Type, correlation id and payload where `data` is one whole frame; else it is to be split.

        Most reads are that where messages come one at a time.
        """
        if self._rest or len(data) < HEADER_BYTES:
            return None
        length, type_, correlation_id = HEADER.unpack_from(data)
        if length != len(data) - LENGTH_BYTES or length > LENGTH_MAX or type_ not in self._types:
            return None
        return type_, correlation_id, bytes(data[HEADER_BYTES:])

    def split(self, data: bytes | bytearray | memoryview) -> Iterator[Frame]:
        """The frames that `data` completes, in order.

        The iterator must be used up before the next call. Raises `FramingError` where the bytes
        stop being frames, after the frames before that place; there is no going on from there.
        """
        if self._rest:
            self._rest += data
            if len(self._rest) < self._needed:
                return
            data, self._rest = self._rest, bytearray()
        view = memoryview(data)
        at, end = 0, len(data)
        self._needed = LENGTH_BYTES
        while end - at >= LENGTH_BYTES:
            (length,) = U32.unpack_from(data, at)
            if not LENGTH_MIN <= length <= LENGTH_MAX:
                raise FramingError(f"a frame of length {length}")
            self._needed = LENGTH_BYTES + length
            if end - at < self._needed:
                break
            _, type_, correlation_id = HEADER.unpack_from(data, at)
            if type_ not in self._types:
                raise FramingError(f"a frame of unknown type 0x{type_:02x}")
            yield Frame(type_, correlation_id, bytes(view[at + HEADER_BYTES : at + self._needed]))
            at += self._needed
            self._needed = LENGTH_BYTES
        self._rest += view[at:]
