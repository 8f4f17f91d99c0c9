"""A run: consecutive messages of one topic and QoS, as the bytes they came in.

A run is a stretch of a receive buffer and a table of offsets into it. Frames lie end to end, in
the layout in which they are delivered, so what is done to a run (number it, store it, send it)
is done to the stretch. The bytes of a run are written once more after they were received, by
`stamp`, and never again.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Sequence

import attrs

from blipmq.protocol.frames import CORRELATION_ID_AT, LENGTH_BYTES, QOS_AT, TOPIC_AT, U32, U64

_STRIDE_WORTH_IT = 8
"""From this many messages on, sixteen strided slices cost less than a loop over the messages."""


@attrs.define(eq=False)
class Run:
    """`count` messages; message i is `buffer[offsets[i]:offsets[i + 1]]`, a whole frame.

    `offsets` is a `range` when all frames have one size, else an array. `first` is the number of
    the first message once `stamp` has given them one, the others follow without a gap; 0 before.
    """

    buffer: bytearray | bytes
    offsets: Sequence[int]
    topic: bytes
    qos: int
    first: int = 0
    charge: object = None
    """Whatever is to live as long as the run does."""
    _replaced: list[bytes] | array[int] | None = None

    @property
    def count(self) -> int:
        return len(self.offsets) - 1

    @property
    def last(self) -> int:
        """The number of the last message."""
        return self.first + len(self.offsets) - 2

    @property
    def size(self) -> int:
        """Bytes of all frames."""
        return self.offsets[-1] - self.offsets[0]

    def data(self, start: int = 0, stop: int | None = None) -> memoryview:
        """The frames of messages start to stop - 1, end to end, without a copy."""
        offsets = self.offsets
        return memoryview(self.buffer)[offsets[start] : offsets[-1 if stop is None else stop]]

    def body(self, index: int) -> bytes:
        """The body of one message."""
        start = self.offsets[index] + TOPIC_AT + len(self.topic)
        return bytes(self.buffer[start : self.offsets[index + 1]])

    def reply(self, index: int, correlation_id: int) -> tuple[bytes, memoryview]:
        """The frame of one message as a QoS 0 answer to a request with this correlation id.

        In two parts, of which the second is not copied.
        """
        frame = self.data(index, index + 1)
        head = b"".join((frame[:CORRELATION_ID_AT], U64.pack(correlation_id), b"\0"))
        return head, frame[QOS_AT + 1 :]

    def stamp(self, first: int) -> None:
        """Number the messages from `first` on, in the place of their correlation ids.

        A QoS 1 run keeps the correlation ids until `settled` says that nobody will ask for them.
        """
        self.first = first
        if isinstance(self.offsets, range) and self.count >= _STRIDE_WORTH_IT:
            self._stamp_strided(first)
        else:
            self._stamp_each(first)

    def _stamp_strided(self, first: int) -> None:
        buffer, count = self.buffer, self.count
        assert isinstance(buffer, bytearray)
        assert isinstance(self.offsets, range)
        start, stride = self.offsets.start + CORRELATION_ID_AT, self.offsets.step
        end = start + stride * (count - 1) + 1
        if self.qos:
            self._replaced = [bytes(buffer[start + i : end + i : stride]) for i in range(8)]
        numbers = array("Q", range(first, first + count))
        if sys.byteorder == "little":
            numbers.byteswap()
        columns = numbers.tobytes()
        for i in range(8):
            buffer[start + i : end + i : stride] = columns[i::8]

    def _stamp_each(self, first: int) -> None:
        buffer, pack_into = self.buffer, U64.pack_into
        if self.qos:
            self._replaced = self.correlation_ids()
        for number, offset in enumerate(self.offsets[:-1], first):
            pack_into(buffer, offset + CORRELATION_ID_AT, number)

    def correlation_ids(self) -> array[int]:
        """What the publisher called each message, in order. Of a stamped QoS 0 run: the numbers."""
        replaced = self._replaced
        if isinstance(replaced, array):
            return replaced
        ids = array("Q")
        if replaced is None:
            buffer, unpack_from = self.buffer, U64.unpack_from
            for offset in self.offsets[:-1]:
                ids.append(unpack_from(buffer, offset + CORRELATION_ID_AT)[0])
            return ids
        columns = bytearray(8 * self.count)
        for i, column in enumerate(replaced):
            columns[i::8] = column
        ids.frombytes(columns)
        if sys.byteorder == "little":
            ids.byteswap()
        return ids

    def settled(self) -> None:
        """The publisher has its answer: forget the correlation ids."""
        self._replaced = None


def stored_run(topic: bytes, first: int, data: bytes) -> Run:
    """The run that was stored as `data`: whole frames, numbered from `first` on, all of one QoS."""
    offsets = array("I", (0,))
    at = 0
    while at < len(data):
        at += LENGTH_BYTES + U32.unpack_from(data, at)[0]
        offsets.append(at)
    if at != len(data):
        raise ValueError("the last frame of the run is incomplete")
    return Run(data, offsets, topic, data[QOS_AT], first)
