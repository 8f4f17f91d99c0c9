"""Received bytes in, runs and frames out. The bytes may be cut anywhere.

The decoder owns the receive buffer. Runs refer into it, so what was received is never moved or
written over while a run may look at it: the buffer is filled on, and when it is full the
unfinished rest moves to a new one.
"""

from __future__ import annotations

from array import array

from blipmq.errors import FramingError
from blipmq.protocol.frames import (
    HEADER,
    HEADER_BYTES,
    LENGTH_BYTES,
    LENGTH_MAX,
    LENGTH_MAX_PUBLISH,
    LENGTH_MIN,
    PUBLISH,
    QOS_AT,
    TOPIC_AT,
    TOPIC_LENGTH_AT,
    TYPE_AT,
    TYPES,
    U16,
    U32,
    Frame,
)
from blipmq.protocol.run import Run

BUFFER_BYTES_MIN = 4 * 1024
_BUFFER_MAX = 256 * 1024
_ROOM_MIN = 1024
_PINNED_QUARTERS_MIN = 3
"""A run that has fewer quarters of its buffer is copied out, rather than to keep all of it."""


class Decoder:
    """Turns a byte stream into `Run`s (well-formed PUBLISH frames) and `Frame`s (all else).

    Put received bytes into `room()` and say `filled(n)`, or hand them to `feed`; then call `next`
    until it returns None. `length_max` bounds the length field of the frames that are accepted
    and may be changed at any time. While `frugal`, a new buffer is no larger than it must be.
    Holds at most one unfinished frame, and memory for it only as its bytes arrive.
    """

    __slots__ = ("_buffer", "_end", "_pinned", "_size", "_start", "frugal", "length_max")

    def __init__(self, length_max: int = LENGTH_MAX) -> None:
        self.length_max = length_max
        self.frugal = False
        self._size = BUFFER_BYTES_MIN
        self._buffer = bytearray(BUFFER_BYTES_MIN)
        self._start = 0
        self._end = 0
        self._pinned = False

    @property
    def buffered(self) -> int:
        """Bytes received that no run or frame was made of yet."""
        return self._end - self._start

    @property
    def allocated(self) -> int:
        """Size of the receive buffer in bytes."""
        return len(self._buffer)

    def room(self) -> memoryview:
        """Where the next bytes may be put: at least 1 KiB."""
        if self._start == self._end and (not self._pinned or len(self._buffer) > _BUFFER_MAX):
            self._begin_anew()
        if len(self._buffer) - self._end < _ROOM_MIN:
            self._renew()
        return memoryview(self._buffer)[self._end : self._end + _BUFFER_MAX]

    def filled(self, count: int) -> None:
        """The first `count` bytes of `room()` were received."""
        room = min(len(self._buffer) - self._end, _BUFFER_MAX)
        self._end += count
        if count == room:
            self._size = min(self._size * 4, _BUFFER_MAX)
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

    def _begin_anew(self) -> None:
        """Nothing is unfinished: begin at the start again, or with a smaller buffer."""
        size = BUFFER_BYTES_MIN if self.frugal else self._size
        if len(self._buffer) > size:
            self._buffer = bytearray(size)
        self._start, self._end, self._pinned = 0, 0, False

    def _renew(self) -> None:
        """A new buffer that starts with the unfinished rest of the old one."""
        rest = self._buffer[self._start : self._end]
        # An unfinished frame doubles the buffer, so memory follows what was sent, not announced.
        size = BUFFER_BYTES_MIN if self.frugal else self._size
        self._buffer = bytearray(max(size, 2 * len(rest) + _ROOM_MIN))
        self._buffer[: len(rest)] = rest
        self._start, self._end, self._pinned = 0, len(rest), False

    def next(self) -> Run | Frame | None:
        """The next run or frame, or None until more bytes are received.

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
            head = self._head(start, length)
            if head is not None:
                return self._run(start, LENGTH_BYTES + length, head)
        elif type_ not in TYPES:
            raise FramingError(f"unknown frame type 0x{type_:02x}")
        self._start = end = start + LENGTH_BYTES + length
        payload = bytes(memoryview(buffer)[start + HEADER_BYTES : end])
        return Frame(type_, HEADER.unpack_from(buffer, start)[2], payload)

    def _head(self, start: int, length: int) -> bytes | None:
        """QoS, topic length and topic of a PUBLISH that is well-formed, else None."""
        buffer = self._buffer
        if length < LENGTH_MIN + 3 or length > LENGTH_MAX_PUBLISH or buffer[start + QOS_AT] > 1:
            return None
        (topic_length,) = U16.unpack_from(buffer, start + TOPIC_LENGTH_AT)
        if not 0 < topic_length <= length - LENGTH_MIN - 3:
            return None
        head = bytes(buffer[start + QOS_AT : start + TOPIC_AT + topic_length])
        try:
            head[3:].decode()
        except UnicodeDecodeError:
            return None
        return head

    def _run(self, start: int, stride: int, head: bytes) -> Run:
        """The longest run that begins with the frame of `stride` bytes at `start`."""
        count = self._count_equal(start, stride, head)
        offsets: range | array[int]
        if count:
            offsets = range(start, start + stride * count + 1, stride)
        else:
            offsets = self._scan(start, stride, head)
        self._start = end = offsets[-1]
        buffer = self._buffer
        if (end - start) * 4 < len(buffer) * _PINNED_QUARTERS_MIN:
            buffer = buffer[start:end]
            if isinstance(offsets, range):
                offsets = range(0, end - start + 1, stride)
            else:
                offsets = array("I", [offset - start for offset in offsets])
        else:
            self._pinned = True
        return Run(buffer, offsets, head[3:], head[0])

    def _count_equal(self, start: int, stride: int, head: bytes) -> int:
        """How many frames from `start` on have this size and head; 0 when looking is not worth it.

        Compares column by column: the bytes at one place of every frame are one strided slice.
        """
        buffer, end = self._buffer, self._end
        count = (end - start) // stride
        # In units of a nanosecond: a slice costs 100 and 1 more a byte, the loop 400 a frame.
        if count * 400 < (len(head) + 5) * (100 + count):
            return 0
        prefix = bytes(buffer[start : start + TYPE_AT + 1])
        far = start + stride * min(count - 1, 7)
        if not (buffer.startswith(prefix, far) and buffer.startswith(head, far + QOS_AT)):
            return 0
        stop = start + stride * count
        for base, expected in ((start, prefix), (start + QOS_AT, head)):
            for at, byte in enumerate(expected, base):
                column = buffer[at:stop:stride]
                pattern = bytes((byte,))
                if column != pattern * count:
                    count -= len(column.lstrip(pattern))
                    stop = start + stride * count
        return count

    def _scan(self, start: int, stride: int, head: bytes) -> array[int]:
        """The offsets of the frames that follow each other with this head, whatever their sizes."""
        buffer, end, unpack_from = self._buffer, self._end, U32.unpack_from
        startswith = buffer.startswith
        length_min = LENGTH_MIN + len(head)
        offsets = array("I", (start, start + stride))
        at = start + stride
        length_max = min(self.length_max, LENGTH_MAX_PUBLISH)
        last = end - LENGTH_BYTES - length_min
        while at <= last:
            if buffer[at + TYPE_AT] != PUBLISH or not startswith(head, at + QOS_AT):
                break
            (length,) = unpack_from(buffer, at)
            at += LENGTH_BYTES + length
            if not length_min <= length <= length_max or at > end:
                break
            offsets.append(at)
        return offsets
