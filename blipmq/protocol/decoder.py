"""Received bytes in, runs, spans and frames out. The bytes may be cut anywhere.

The decoder owns the receive buffer. Runs refer into it, so what was received is never moved or
written over while a run may look at it: the buffer is filled on, and when it is full the
unfinished rest moves to a new one. Between reads it has none, unless a frame is unfinished.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence

from blipmq.errors import FramingError
from blipmq.protocol.buffers import BUFFER_BYTES_MAX, BUFFER_BYTES_MIN, Buffers
from blipmq.protocol.frames import (
    HEADER,
    HEADER_BYTES,
    LENGTH_BYTES,
    LENGTH_MAX,
    LENGTH_MAX_PUBLISH,
    LENGTH_MIN,
    MESSAGE,
    PUBLISH,
    QOS_AT,
    TYPE_AT,
    TYPES,
    TYPES_V2,
    U32,
    Frame,
)
from blipmq.protocol.property_fields import PROPERTIES_BYTES_MAX
from blipmq.protocol.run import Run
from blipmq.protocol.scan import MessageScan, find_publishes, read_head
from blipmq.protocol.span import Span
from blipmq.protocol.speed import scan_topics

_ROOM_MIN = 1024
_NONE = bytearray()
_PINNED_QUARTERS_MIN = 3
"""A run that has fewer quarters of its buffer is copied out, rather than to keep all of it."""
_RUN_MIN = 8
"""Fewer QoS 0 messages than that in a row of one topic may be part of a span."""
_KNOWN_MAX = 4096
"""How many topics are remembered."""

Item = Run | Span | Frame
"""What received bytes are made of."""


class Decoder:
    """Turns a byte stream into `Run`s (well-formed PUBLISH and MESSAGE), `Span`s (QoS 0 PUBLISH,
    where topics take turns) and `Frame`s (all else).

    Put received bytes into `room()` and say `filled(n)`, or hand them to `feed`; then call `next`
    until it returns None. `length_max` bounds the length field of the frames that are accepted
    and may be changed at any time, as may `version`, the protocol version that is spoken, and
    `properties_max`, how many bytes of properties a MESSAGE may have. While `frugal`, a new buffer
    is no larger than it must be.
    Holds at most one unfinished frame, and memory for it only as its bytes arrive; after `release`,
    none when nothing is unfinished. Buffers come from `buffers`, which decoders may share.
    """

    __slots__ = (
        "_buffer",
        "_buffers",
        "_end",
        "_known",
        "_pinned",
        "_size",
        "_start",
        "frugal",
        "length_max",
        "properties_max",
        "version",
    )

    def __init__(self, length_max: int = LENGTH_MAX, buffers: Buffers | None = None) -> None:
        self.length_max = length_max
        self.properties_max = PROPERTIES_BYTES_MAX
        self.version = 1
        self.frugal = False
        self._size = BUFFER_BYTES_MIN
        self._buffers = Buffers() if buffers is None else buffers
        self._buffer = _NONE
        self._start = 0
        self._end = 0
        self._pinned = False
        self._known: dict[bytes, bytes] | None = None

    @property
    def allocated(self) -> int:
        """Size of the receive buffer in bytes."""
        return len(self._buffer)

    def room(self, wanted: int = 1) -> memoryview:
        """Where the next bytes may be put: at least 1 KiB, and `wanted` up to 256 KiB."""
        if self._start == self._end and (not self._pinned or len(self._buffer) > BUFFER_BYTES_MAX):
            self._begin_anew()
        wanted = max(wanted, _ROOM_MIN)
        if len(self._buffer) - self._end < wanted:
            self._renew(wanted)
        return memoryview(self._buffer)[self._end : self._end + BUFFER_BYTES_MAX]

    def filled(self, count: int) -> None:
        """The first `count` bytes of `room()` were received."""
        room = min(len(self._buffer) - self._end, BUFFER_BYTES_MAX)
        self._end += count
        if count == room:
            self._size = min(self._size * 4, BUFFER_BYTES_MAX)
        elif count < self._size >> 4:
            self._size = max(self._size >> 1, BUFFER_BYTES_MIN)

    def feed(self, data: bytes) -> None:
        """Take received bytes by copying them."""
        at = 0
        while at < len(data):
            room = self.room()
            count = min(len(room), len(data) - at)
            room[:count] = data[at : at + count]
            self.filled(count)
            at += count

    def release(self) -> None:
        """Nothing may come for long: give the buffer back, unless a frame is unfinished in it.

        No memory that `room` has given may be written to any more.
        """
        if self._start == self._end:
            self._let_go()
            self._buffer, self._start, self._end = _NONE, 0, 0

    def _let_go(self) -> None:
        """Of the buffer; a run that refers to it keeps it."""
        if self._pinned:
            self._buffers.retire(self._buffer)
        else:
            self._buffers.give_back(self._buffer)
        self._pinned = False

    def _begin_anew(self) -> None:
        """Nothing is unfinished: begin at the start again, or with a smaller buffer."""
        size = BUFFER_BYTES_MIN if self.frugal else self._size
        if len(self._buffer) > size:
            self._let_go()
            self._buffer = self._buffers.take(size)
        self._start, self._end, self._pinned = 0, 0, False

    def _renew(self, wanted: int) -> None:
        """A new buffer that starts with the unfinished rest of the old one."""
        old, start = self._buffer, self._start
        length = self._end - start
        if not length and old is _NONE and wanted <= self._size and not self.frugal:
            self._buffer = self._buffers.take(self._size)
            return
        # An unfinished frame doubles the buffer, so memory follows what was sent, not announced.
        size = BUFFER_BYTES_MIN if self.frugal else self._size
        buffer = self._buffers.take(max(size, length + max(length, wanted)))
        buffer[:length] = memoryview(old)[start : self._end]
        self._let_go()
        self._buffer, self._start, self._end = buffer, 0, length

    def next(self) -> Item | None:
        """The next run, span or frame, or None until more bytes are received.

        Raises FramingError for a length outside its bounds, as soon as its four bytes are there,
        and for an unknown type, once the frame is whole. After that the decoder is of no use.
        """
        buffer, start = self._buffer, self._start
        available = self._end - start
        if available < LENGTH_BYTES:
            return None
        (length,) = U32.unpack_from(buffer, start)
        if not LENGTH_MIN <= length <= self.length_max:
            raise FramingError(f"frame length {length} is not in {LENGTH_MIN}..{self.length_max}")
        if available < LENGTH_BYTES + length:
            return None
        type_ = buffer[start + TYPE_AT]
        if type_ == PUBLISH:
            head = read_head(buffer, start, length) if length <= LENGTH_MAX_PUBLISH else None
            if head is not None:
                most = min(self.length_max, LENGTH_MAX_PUBLISH)
                stride = LENGTH_BYTES + length
                if available <= stride + LENGTH_BYTES:
                    return self._run(range(start, start + stride + 1, stride), head)
                offsets = find_publishes(buffer, start, self._end, stride, head, most)
                if len(offsets) <= _RUN_MIN and not head[0] and self._topics_alternate(offsets[-1]):
                    return self._span(most)
                return self._run(offsets, head)
        elif type_ == MESSAGE and self.version >= 2:
            run = self._messages(start, length)
            if run is not None:
                return run
        elif type_ not in TYPES and (self.version < 2 or type_ not in TYPES_V2):
            raise FramingError(f"unknown frame type 0x{type_:02x}")
        self._start = end = start + LENGTH_BYTES + length
        payload = bytes(memoryview(buffer)[start + HEADER_BYTES : end])
        return Frame(type_, HEADER.unpack_from(buffer, start)[2], payload)

    def _messages(self, start: int, length: int) -> Run | None:
        """The longest run of MESSAGE frames from `start` on; None if that one is malformed."""
        head = read_head(self._buffer, start, length) if length <= LENGTH_MAX_PUBLISH else None
        if head is None:
            return None
        scan = MessageScan(min(self.length_max, LENGTH_MAX_PUBLISH), self.properties_max)
        found = scan.find(self._buffer, start, self._end, LENGTH_BYTES + length, head)
        if found is None:
            return None
        run = self._run(found.offsets, head)
        run.describe(found)
        return run

    def _topics_alternate(self, at: int) -> bool:
        """Whether another QoS 0 PUBLISH may follow, at this place."""
        buffer = self._buffer
        if at + QOS_AT >= self._end:
            return False
        return buffer[at + TYPE_AT] == PUBLISH and not buffer[at + QOS_AT]

    def _span(self, length_max: int) -> Item:
        """The QoS 0 messages that are next in the buffer, of which the first is well-formed."""
        if self._known is None:
            self._known = {}
        found, topics = scan_topics(
            self._buffer, self._start, self._end, length_max, self._known, _KNOWN_MAX
        )
        buffer, offsets = self._take(found)
        assert isinstance(offsets, array)
        if topics.count(topics[0]) == len(topics):
            return Run(buffer, offsets, topics[0], 0)
        return Span(buffer, offsets, topics)

    def _run(self, offsets: Sequence[int], head: bytes) -> Run:
        """A run of these messages, which are the next in the buffer."""
        buffer, offsets = self._take(offsets)
        return Run(buffer, offsets, head[3:], head[0])

    def _take(self, offsets: Sequence[int]) -> tuple[bytearray, Sequence[int]]:
        """The frames between these offsets are used: where they are from now on."""
        start = offsets[0]
        self._start = end = offsets[-1]
        buffer = self._buffer
        if (end - start) * 4 >= len(buffer) * _PINNED_QUARTERS_MIN:
            self._pinned = True
            return buffer, offsets
        if isinstance(offsets, range):
            return buffer[start:end], range(0, end - start + 1, offsets.step)
        return buffer[start:end], array("I", [offset - start for offset in offsets])
