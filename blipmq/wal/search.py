"""Finding a record behind bytes that are none."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from blipmq.wal.record import END_MARK, PAYLOAD_MIN, RECORD_HEADER, RECORD_HEADER_BYTES, checks

SEARCH_BYTES_MAX: Final = 1 << 32
"""What one search checksums at most, a few seconds' work: whoever wrote the messages could have
made it endless."""

_PLACE = re.compile(rb"(?s)(?=.{%d}[\x01-\x0f])" % RECORD_HEADER_BYTES)
"""Where a record may begin, going by its kind."""


class SearchLimit(Exception):
    """The search was ended before it was complete."""


def places(data: memoryview, start: int, stop: int) -> Iterator[tuple[int, int]]:
    """Where in start to stop a record might be, by its kind, its length and its last byte.

    Yields (begin, end), ascending. Raises SearchLimit when all of them together are too much to
    be checksummed.
    """
    searched = 0
    for match in _PLACE.finditer(data, start, stop):
        at = match.start()
        _, length, _ = RECORD_HEADER.unpack_from(data, at)
        end = at + RECORD_HEADER_BYTES + length
        if length < PAYLOAD_MIN or end > stop or data[end - 1] != END_MARK[0]:
            continue
        searched += length
        if searched > SEARCH_BYTES_MAX:
            raise SearchLimit
        yield at, end


def find_record(data: memoryview, start: int, stop: int, salt: int) -> int | None:
    """Where the first record that checks begins, if there is one in start to stop.

    Raises SearchLimit.
    """
    for at, end in places(data, start, stop):
        body = at + RECORD_HEADER_BYTES
        if checks(data[at:body], data[body:end], salt):
            return at
    return None
