"""Reading messages of one topic out of a log that is being written."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import attrs

from blipmq.errors import CorruptLog, LogError
from blipmq.wal.disk import Disk, ReadFile
from blipmq.wal.encoding import MOVED, MOVED_TOPIC_AT, RUN, TOPIC_AT
from blipmq.wal.facts import RunRecord
from blipmq.wal.record import (
    END_MARK,
    PAYLOAD_MIN,
    RECORD_HEADER_BYTES,
    SEGMENT_HEADER_BYTES,
    checks,
    parse_segment_header,
)
from blipmq.wal.segment import Segment, segment_name

BUFFER_BYTES: Final = 1 << 18
"""What is read at once at most, but for a record that is longer."""
_AHEAD_BYTES_MIN: Final = 1 << 14
FILES_MAX: Final = 16
"""Segments that are held open between two calls."""

_LENGTH_AND_KIND = struct.Struct("<8xI4xB")
"""Of a record, in its first bytes."""
_NAME_IN: Final = {
    RUN: RECORD_HEADER_BYTES + TOPIC_AT,
    MOVED: RECORD_HEADER_BYTES + MOVED_TOPIC_AT,
}
"""Where in a record of such a kind the length of the topic stands, with the topic behind it."""
_U16 = struct.Struct("<H")
_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")


@attrs.frozen
class Place:
    """Where reading a topic ended: all of its numbers below `reached` lie before."""

    topic: bytes
    reached: int
    segment: int
    offset: int


@attrs.frozen(eq=False)
class Chunk:
    """Runs of a topic, in order, with data of their own.

    Every message of the topic with a number below `reached` is in them, or is below the first
    number that was asked for. `place` is where the next call may go on.
    """

    runs: list[RunRecord]
    reached: int
    place: Place


@attrs.define(eq=False)
class LogReader:
    """Reads a log while another thread appends to it, syncs it or begins a segment.

    That is safe: the list of segments is replaced, never changed; of a segment no more is read
    than its size says at first, up to which its bytes stay as they are, and its topics and index
    knew of them before its size did; and a file that is removed stays readable while it is open.

    One thread at a time may call it. Every method blocks, and raises CorruptLog, naming file and
    offset, for what does not check, and LogError for what cannot be read.
    """

    disk: Disk
    _segments: Callable[[], Sequence[Segment]]
    _sources: dict[int, _Source] = attrs.Factory(dict)
    """Segments that are open, by their numbers; the one that was used last is the last."""
    _buffer: bytearray = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._buffer = bytearray(BUFFER_BYTES)

    def read(
        self, topic: bytes, first: int, stop: int, bytes_max: int, place: Place | None = None
    ) -> Chunk:
        """The runs of `topic` that hold any of the numbers from `first` to below `stop`.

        In order, until they have about `bytes_max` bytes, but at least one if there is any; then
        `reached` is above its last number, else it is `stop`. `place` is that of an earlier chunk,
        to go on there; one that does not fit, or whose segment is gone, does no harm.
        """
        if place is not None and (place.topic != topic or place.reached > first):
            place = None
        runs: list[RunRecord] = []
        sequence, offset = 0, SEGMENT_HEADER_BYTES
        for segment in self._held():
            if place is not None and segment.sequence < place.segment:
                continue
            size = segment.size
            here = place is not None and segment.sequence == place.segment
            start = place.offset if place is not None and here else SEGMENT_HEADER_BYTES
            sequence, offset = segment.sequence, size
            for record in self._records(segment, size, topic, first, start):
                if record.first >= stop:
                    return Chunk(runs, stop, Place(topic, stop, sequence, record.start))
                run = self._run(record)
                runs.append(run)
                bytes_max -= len(run.data)
                if bytes_max > 0:
                    continue
                after = run.first + run.count
                if after > stop:
                    return Chunk(runs, stop, Place(topic, stop, sequence, record.start))
                return Chunk(runs, after, Place(topic, after, sequence, record.end))
        return Chunk(runs, stop, Place(topic, stop, sequence, offset))

    def earliest(self, topic: bytes) -> int | None:
        """The lowest number of the topic that is in the log, or None. Touches no file."""
        for segment in self._segments():
            number = segment.index.first_number(topic)
            if number is not None:
                return number
        return None

    def first_number_at(self, topic: bytes, time_ms: int) -> int | None:
        """The number of the first message of the topic written at this time or later, or None.

        `time_ms` is in milliseconds since the epoch. All of a run were written at one time.
        """
        for segment in self._held():
            size = segment.size
            if segment.newest_ms >= time_ms:
                for record in self._records(segment, size, topic, 0, SEGMENT_HEADER_BYTES):
                    if record.time_ms >= time_ms:
                        return record.first
        return None

    def close(self) -> None:
        """Close what is open. The reader may be used again."""
        while self._sources:
            self._sources.popitem()[1].file.close()

    def _held(self) -> Sequence[Segment]:
        """The segments of the log; what is open of others is closed."""
        segments = self._segments()
        for sequence in self._sources.keys() - {segment.sequence for segment in segments}:
            self._sources.pop(sequence).file.close()
        return segments

    def _records(
        self, segment: Segment, size: int, topic: bytes, first: int, offset: int
    ) -> Iterator[_Record]:
        """The records from `offset` on that hold numbers of the topic from `first` on."""
        if offset >= size or segment.topics.get(topic, -1) < first:
            return
        source = self._source(segment.sequence)
        if source is None:
            return
        try:
            spans = segment.index.spans(topic, first, offset)
            yield from source.records(size, topic, first, spans)
        except OSError as error:
            raise LogError(f"{source.path}: {error.strerror}") from None

    def _run(self, record: _Record) -> RunRecord:
        try:
            return record.run()
        except OSError as error:
            raise LogError(f"{record.source.path}: {error.strerror}") from None

    def _source(self, sequence: int) -> _Source | None:
        """The open segment; None when nobody wants it any more, so that it is gone."""
        source = self._sources.pop(sequence, None)
        if source is None:
            if len(self._sources) >= FILES_MAX:
                self._sources.pop(next(iter(self._sources))).file.close()
            path = self.disk.directory / segment_name(sequence)
            try:
                file = self.disk.open_to_read(path.name)
            except FileNotFoundError as error:
                if any(segment.sequence == sequence for segment in self._segments()):
                    raise LogError(f"{path}: {error.strerror}") from None
                return None
            except OSError as error:
                raise LogError(f"{path}: {error.strerror}") from None
            source = _Source(path, file, self._buffer)
        self._sources[sequence] = source
        return source


@attrs.define(eq=False)
class _Source:
    """One segment that is open, and the part of it that was read last.

    The buffer is shared by all sources: nothing in it outlives the use of another one.
    """

    path: Path
    file: ReadFile
    buffer: bytearray
    salt: int | None = None
    size: int = 0
    base: int = 0
    """Where in the segment the content of the buffer begins."""
    limit: int = 0
    """Where it ends."""
    ahead: int = _AHEAD_BYTES_MIN

    def records(
        self, size: int, topic: bytes, first: int, spans: Iterator[tuple[int, int]]
    ) -> Iterator[_Record]:
        """The records in the spans that hold numbers of the topic from `first` on.

        Of other records no more is looked at than the head. Raises OSError, and CorruptLog where
        no record follows.
        """
        self._begin(size)
        buffer, length_and_kind = self.buffer, _LENGTH_AND_KIND.unpack_from
        name = _U16.pack(len(topic)) + topic
        name_in = _NAME_IN.get
        head_bytes = _NAME_IN[MOVED] + len(name) + _U32.size
        at = base = limit = 0
        for start, stop in spans:
            if at > start:
                raise self.corrupt(start, "the record before does not end here")
            at, stop = start, min(stop, size)
            while at < stop:
                if at + head_bytes > limit and (limit < size or not limit):
                    self._fill(at, min(head_bytes, size - at))
                    base, limit = at, self.limit
                length, kind = length_and_kind(buffer, at - base)
                end = at + length + RECORD_HEADER_BYTES
                if length < PAYLOAD_MIN or end > size:
                    raise self.corrupt(at, "the length of the record is wrong")
                name_at = name_in(kind)
                if name_at is not None and buffer.startswith(name, at - base + name_at):
                    record = self._head(at, end, topic, at - base + name_at)
                    if record.first + record.count > first:
                        yield record
                        base, limit = self.base, self.limit
                at = end

    def _head(self, start: int, end: int, topic: bytes, name_at: int) -> _Record:
        """What the head of a record says, the topic of which stands at `name_at` in the buffer."""
        buffer, count_at = self.buffer, name_at + _U16.size + len(topic)
        (id_,) = _U64.unpack_from(buffer, start - self.base)
        (time_ms,) = _U64.unpack_from(buffer, name_at - _U64.size)
        (count,) = _U32.unpack_from(buffer, count_at)
        data_at = self.base + count_at + _U32.size
        return _Record(self, start, end, data_at, topic, id_, count, time_ms)

    def _begin(self, size: int) -> None:
        self.size, self.base, self.limit, self.ahead = size, 0, 0, _AHEAD_BYTES_MIN
        if self.salt is None:
            self._fill(0, SEGMENT_HEADER_BYTES)
            try:
                _, self.salt = parse_segment_header(bytes(self.buffer[:SEGMENT_HEADER_BYTES]))
            except ValueError as error:
                raise self.corrupt(0, str(error)) from None
            self.base = self.limit = 0

    def _fill(self, at: int, need: int) -> None:
        """Have the bytes from `at` on in the buffer, `need` at least; more when all are read."""
        going_on = self.base < at <= self.limit
        self.ahead = min(2 * self.ahead, BUFFER_BYTES) if going_on else _AHEAD_BYTES_MIN
        size = min(max(self.ahead, need), self.size - at)
        with memoryview(self.buffer) as view:
            self._read(view[:size], at)
        self.base, self.limit = at, at + size

    def _read(self, buffer: memoryview, at: int) -> None:
        if self.file.read_into(buffer, at) < len(buffer):
            raise self.corrupt(at, "the segment ends before its last record")

    def record(self, start: int, end: int) -> memoryview:
        """The bytes of a record, valid until something else is read."""
        if end > self.limit:
            if end - start > BUFFER_BYTES:
                view = memoryview(bytearray(end - start))
                self._read(view, start)
                return view
            self._fill(start, end - start)
        return memoryview(self.buffer)[start - self.base : end - self.base]

    def corrupt(self, offset: int, reason: str) -> CorruptLog:
        return CorruptLog(f"{self.path}: offset {offset}: {reason}")


@attrs.define(eq=False)
class _Record:
    """A record with a run, of which the head was read; valid until the next one is asked for."""

    source: _Source
    start: int
    end: int
    data_at: int
    topic: bytes
    first: int
    count: int
    time_ms: int

    def run(self) -> RunRecord:
        """The run, with data of its own. Raises OSError, and CorruptLog if it does not check."""
        source, head = self.source, RECORD_HEADER_BYTES
        assert source.salt is not None
        view = source.record(self.start, self.end)
        if not checks(view[:head], view[head:], source.salt):
            raise source.corrupt(self.start, "the record's checksum does not match")
        data = view[self.data_at - self.start : -len(END_MARK)].tobytes()
        return RunRecord(self.topic, self.first, self.count, data, self.time_ms)
