"""Reading one segment: where its records end, and what the bytes after the last one mean.

Three outcomes are told apart: the end (nothing, or zeros, follows the last record), a torn tail
(the last record was not written whole, which a crash leaves behind) and damage (all else).
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterator
from typing import Final

import attrs

from blipmq.errors import CorruptLog
from blipmq.wal.disk import Disk
from blipmq.wal.encoding import SYNCED, decode
from blipmq.wal.facts import Fact, RunRecord, Synced
from blipmq.wal.index import SEGMENT_ENTRIES_MAX, SegmentIndex
from blipmq.wal.record import (
    PAYLOAD_MIN,
    RECORD_HEADER,
    RECORD_HEADER_BYTES,
    SEGMENT_HEADER_BYTES,
    parse_segment_header,
    records,
)
from blipmq.wal.search import SearchLimit, find_record

_NAME = re.compile(r"([0-9]{16})\.wal")
SECTOR: Final = 512


def segment_name(sequence: int) -> str:
    return f"{sequence:016d}.wal"


def sequences(names: list[str]) -> list[int]:
    """The sequence numbers of the segments among these file names, ascending."""
    return sorted(int(match[1]) for name in names if (match := _NAME.fullmatch(name)))


@attrs.define(eq=False)
class Segment:
    """A segment that was read or is being written.

    `topics` has the last number of each topic, `newest_ms` the latest time of a run, 0 without any.
    """

    sequence: int
    size: int = 0
    salt: int = 0
    topics: dict[bytes, int] = attrs.Factory(dict)
    newest_ms: int = 0
    index: SegmentIndex = attrs.Factory(SegmentIndex)

    @property
    def name(self) -> str:
        return segment_name(self.sequence)

    def note(self, run: RunRecord, offset: int) -> None:
        """The segment holds this run, in the record that begins at `offset`, behind all others."""
        last = run.first + run.count - 1
        if last > self.topics.get(run.topic, 0):
            self.topics[run.topic] = last
        self.newest_ms = max(self.newest_ms, run.time_ms)
        self.index.note(run.topic, run.first, offset)
        if self.index.entries > SEGMENT_ENTRIES_MAX and self.index.can_be_coarser:
            self.index = self.index.coarser(SEGMENT_ENTRIES_MAX // 2)

    def stays(
        self, wanted_from: Callable[[bytes], int | None], retained_from_ms: int | None
    ) -> bool:
        """Whether somebody wants a message of it, or it has one of that time or later.

        `wanted_from(topic)` is the lowest number of the topic that is still wanted, or None.
        """
        if retained_from_ms is not None and self.newest_ms >= retained_from_ms:
            return True
        for topic, last in self.topics.items():
            first = wanted_from(topic)
            if first is not None and first <= last:
                return True
        return False


@attrs.define
class SegmentReader:
    """The facts of one segment in order, and, after they were all taken, where they end.

    In the `last` segment of a log a torn tail is no error: `end` is then where it begins and
    `torn` how many bytes it has. Everything else that does not check raises CorruptLog.
    """

    disk: Disk
    sequence: int
    last: bool
    end: int = 0
    torn: int = 0
    salt: int = 0
    id: int = 0
    """Of the record that was taken last."""

    def __iter__(self) -> Iterator[tuple[int, Fact]]:
        """(id of the record, fact). A run's data is valid until the next one is asked for.

        Meanwhile `end` is where the record begins.
        """
        name = segment_name(self.sequence)
        data = memoryview(self.disk.read(name))
        try:
            salt = self._header(data, name)
            if salt is None:
                return
            self.end, self.salt = SEGMENT_HEADER_BYTES, salt
            for id_, body, end in records(data, self.end, salt):
                try:
                    facts = decode(id_, data[body:end])
                except ValueError as error:
                    raise self._corrupt(name, self.end, str(error)) from None
                for fact in facts:
                    yield id_, fact
                facts.clear()
                self.end, self.id = end, id_
            self._tail(data, name, salt)
        finally:
            data.release()

    def _header(self, data: memoryview, name: str) -> int | None:
        """The salt; None when the segment was torn while it was begun."""
        try:
            sequence, salt = parse_segment_header(data[:SEGMENT_HEADER_BYTES].tobytes())
        except ValueError as error:
            if self.last and lacks_header(data, self.sequence):
                self.torn = written_end(data, 0)
                return None
            raise self._corrupt(name, 0, str(error)) from None
        if sequence != self.sequence:
            raise self._corrupt(name, 0, f"this is segment {sequence} under another name")
        return salt

    def _tail(self, data: memoryview, name: str, salt: int) -> None:
        start = self.end
        written = written_end(data, start)
        if written == start:
            return
        if not self.last or not is_torn(data, start, written, salt, self.sequence, self.id):
            raise self._corrupt(name, start, "a record's checksum does not match")
        self.torn = written - start

    def _corrupt(self, name: str, offset: int, reason: str) -> CorruptLog:
        path = self.disk.directory / name
        return CorruptLog(f"{path}: offset {offset}: {reason}")


def lacks_header(data: memoryview, sequence: int) -> bool:
    """Whether a header was not written whole: it is too short, or zeros at its end.

    Of a longer beginning the first sector alone may be missing. The segment before says then
    whether this one was in use already: it names it. The first one has none before it.
    """
    if len(data) < SEGMENT_HEADER_BYTES or written_end(data, 0) < SEGMENT_HEADER_BYTES:
        return True
    return sequence > 1 and not any(data[:SECTOR])


def written_end(data: memoryview, start: int) -> int:
    """Where the zeros begin that reach to the end of the file; not before `start`."""
    end = len(data)
    while end > start:
        begin = max(start, end - (1 << 16))
        kept = len(bytes(data[begin:end]).rstrip(b"\0"))
        if kept:
            return begin + kept
        end = begin
    return start


def is_torn(
    data: memoryview, start: int, written: int, salt: int, sequence: int, before: int
) -> bool:
    """Whether the bad record at `start` is an unfinished write; the data ends at `written`.

    `before` is the id of the record before it, 0 if there is none.

    It is when bytes of it are missing: its end, or a whole sector (a crash of the machine may
    leave any of them unwritten). It is not when the bytes would check with another length, which
    is what a damaged length looks like. When records that check lie further on, it is only if a
    sector is missing in between, and nothing says that this place was synced.
    """
    try:
        following = find_record(data, start + 1, written, salt)
    except SearchLimit:
        return False
    if following is not None:
        lost = _lacks_beginning(data, start, before) or _has_empty_sector(data, start, following)
        # The first record was synced before the second one was written.
        synced = start == SEGMENT_HEADER_BYTES
        return lost and not synced and not _was_synced(data, start, following, salt, sequence)
    if written - start < RECORD_HEADER_BYTES + PAYLOAD_MIN:
        return True
    length = written - start - RECORD_HEADER_BYTES
    if _checks_with_length(data, start, length, salt):
        return False
    if _lacks_beginning(data, start, before):
        return True
    end = start + RECORD_HEADER_BYTES + RECORD_HEADER.unpack_from(data, start)[1]
    if end > written:
        return True
    return _has_empty_sector(data, start, end)


def _was_synced(data: memoryview, place: int, start: int, salt: int, sequence: int) -> bool:
    """Whether a record from `start` on says that what is at `place` was synced."""
    for id_, body, end in records(data, start, salt):
        if data[body] != SYNCED:
            continue
        for fact in decode(id_, data[body:end]):
            if isinstance(fact, Synced) and fact.segment == sequence and fact.size > place:
                return True
    return False


def _checks_with_length(data: memoryview, start: int, length: int, salt: int) -> bool:
    id_, _, crc = RECORD_HEADER.unpack_from(data, start)
    head = RECORD_HEADER.pack(id_, length, crc)[:12]
    body = start + RECORD_HEADER_BYTES
    return bool(zlib.crc32(data[body : body + length], zlib.crc32(head, salt)) == crc)


def _lacks_beginning(data: memoryview, start: int, before: int) -> bool:
    """Whether the sector in which the record begins is empty from there on.

    No id is 0. One of which a part is in the next sector may end in zeros; but then it is not
    lower than that of the record before.
    """
    edge = (start // SECTOR + 1) * SECTOR
    if any(data[start:edge]):
        return False
    return edge - start >= 8 or int.from_bytes(data[start : start + 8], "little") < before


def _has_empty_sector(data: memoryview, start: int, end: int) -> bool:
    """Whether any sector that begins in start to end is all zeros."""
    first = -(-start // SECTOR) * SECTOR
    zeros = bytes(SECTOR)
    sectors = (data[at : at + SECTOR] for at in range(first, min(end, len(data)), SECTOR))
    return any(sector == zeros[: len(sector)] for sector in sectors)
