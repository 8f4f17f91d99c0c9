"""What properties are made of: a run of u8 id, u16 n, n bytes, and the kinds of their values.

Ids from 64 up are carried along and not looked at.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from typing import Final

from blipmq.protocol.frames import U16

IGNORED_FROM: Final = 64
"""Ids from here on mean nothing to this version."""
PROPERTIES_BYTES_MAX: Final = 65_535
PROPERTY_HEAD_BYTES: Final = 3


def places(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Id, start and end of the value of each property. Raises ValueError where they do not fit."""
    at, end = 0, len(data)
    while at < end:
        start = at + PROPERTY_HEAD_BYTES
        if start > end:
            raise ValueError("a property is cut off")
        at = start + (data[start - 2] << 8 | data[start - 1])
        if at > end:
            raise ValueError("a property is longer than what is left")
        yield data[start - 3], start, at


def values(
    data: bytes, known: Container[int], many: int | None = None
) -> tuple[dict[int, bytes], list[bytes], bool]:
    """The values by id, those of the property `many` in order, and whether all ids are known.

    Raises ValueError for a property that recurs, unless it is that one.
    """
    once: dict[int, bytes] = {}
    several: list[bytes] = []
    all_known = True
    for id_, start, end in places(data):
        if id_ >= IGNORED_FROM:
            continue
        if id_ not in known:
            all_known = False
        elif id_ == many:
            several.append(data[start:end])
        elif id_ in once:
            raise ValueError(f"property {id_} stands twice")
        else:
            once[id_] = data[start:end]
    return once, several, all_known


def unsigned(value: bytes, size: int) -> int:
    """An integer of so many bytes. Raises ValueError, as do all below, for what does not fit."""
    if len(value) != size:
        raise ValueError(f"an integer of {size} bytes has {len(value)}")
    return int.from_bytes(value, "big")


def within(value: bytes | None, most: int) -> bytes | None:
    """At most so many bytes, if any."""
    if value is not None and len(value) > most:
        raise ValueError(f"more than {most} bytes")
    return value


def bounded(value: bytes | None, most: int) -> bytes | None:
    """From one byte to so many, if any."""
    if value is not None and not value:
        raise ValueError("an empty value")
    return within(value, most)


def text(value: bytes | None) -> bytes | None:
    """UTF-8 that is not empty, if any; UnicodeDecodeError is a ValueError."""
    if value is not None:
        value.decode()
        if not value:
            raise ValueError("an empty value")
    return value


def property_bytes(id_: int, value: bytes) -> bytes:
    """One property."""
    if len(value) > 0xFFFF:
        raise ValueError(f"property {id_} has {len(value)} bytes")
    return bytes((id_,)) + U16.pack(len(value)) + value


def joined(parts: list[bytes]) -> bytes:
    """All properties of a frame."""
    encoded = b"".join(parts)
    if len(encoded) > PROPERTIES_BYTES_MAX:
        raise ValueError(f"the properties have {len(encoded)} bytes")
    return encoded


def encode_unsigned(value: int, size: int) -> bytes:
    """An integer in so many bytes."""
    if not 0 <= value < 1 << 8 * size:
        raise ValueError(f"{value} does not fit into {size} bytes")
    return value.to_bytes(size, "big")
