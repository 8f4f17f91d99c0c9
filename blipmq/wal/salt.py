"""Finding out the salt of a segment whose header is damaged.

CRC32 is linear: from a record and its checksum follows the value that the checksum started from.
What follows from one place is a guess, which the records after it have to confirm.
"""

from __future__ import annotations

import zlib
from contextlib import suppress
from functools import lru_cache
from typing import Final

from blipmq.protocol.frames import LENGTH_MAX
from blipmq.wal.record import (
    MAGIC,
    RECORD_HEADER,
    RECORD_HEADER_BYTES,
    SEGMENT_HEADER,
    SEGMENT_HEADER_BYTES,
    records,
    segment_header,
)
from blipmq.wal.search import SearchLimit, find_record, places

_POLYNOMIAL: Final = 0xEDB88320
_ONE: Final = 1 << 31
_X: Final = 1 << 30
_ORDER: Final = (1 << 32) - 1


def find_salt(data: memoryview, sequence: int, stop: int) -> int | None:
    """The salt of a segment whose header does not check and whose records end at `stop`.

    The one that is still there is right if a record checks with it; but not when the whole header
    was written over, perhaps with what the sender of a message foresaw. One that follows from a
    record is right when it fits the header's checksum, or when from there on records check to the
    end or for long: what a message holds does not go on beyond the message.
    """
    if stop < SEGMENT_HEADER_BYTES:
        return None
    magic, _, salt, its_sequence, _ = SEGMENT_HEADER.unpack_from(data)
    if _fits_header(data, sequence, salt):
        return int(salt)
    partly_right = magic == MAGIC or its_sequence == sequence
    with suppress(SearchLimit):
        if partly_right and find_record(data, SEGMENT_HEADER_BYTES, stop, salt) is not None:
            return int(salt)
        for at, end in places(data, SEGMENT_HEADER_BYTES, stop):
            salt = _salt_of(data, at, end)
            if _fits_header(data, sequence, salt) or _goes_on(data, end, stop, salt):
                return salt
    return None


def _fits_header(data: memoryview, sequence: int, salt: int) -> bool:
    size = SEGMENT_HEADER.size
    return bool(data[size:SEGMENT_HEADER_BYTES] == segment_header(sequence, salt)[size:])


def _goes_on(data: memoryview, start: int, stop: int, salt: int) -> bool:
    """Whether records follow at `start`, to the end or for longer than a message can be."""
    for _, _, end in records(data[:stop], start, salt):
        if end == stop or end - start > LENGTH_MAX:
            return True
    return False


def _salt_of(data: memoryview, start: int, end: int) -> int:
    """What the checksum of the record from start to end must have started from."""
    body = start + RECORD_HEADER_BYTES
    _, length, crc = RECORD_HEADER.unpack_from(data, start)
    head = data[start : body - 4]
    unsalted = zlib.crc32(data[body:end], zlib.crc32(head))
    return _times(_power(-8 * (len(head) + length)), crc ^ unsalted)


def _times(a: int, b: int) -> int:
    """The product of two polynomials over GF(2), modulo that of CRC32; the top bit is x^0."""
    product = 0
    for bit in range(31, -1, -1):
        if a >> bit & 1:
            product ^= b
        b = b >> 1 ^ (_POLYNOMIAL if b & 1 else 0)
    return product


@lru_cache(1 << 12)
def _power(exponent: int) -> int:
    """x^exponent modulo the polynomial of CRC32, of which x has the order 2^32 - 1."""
    exponent %= _ORDER
    result, factor = _ONE, _X
    while exponent:
        if exponent & 1:
            result = _times(result, factor)
        factor = _times(factor, factor)
        exponent >>= 1
    return result
