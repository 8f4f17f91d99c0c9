"""A run: consecutive messages of one type, topic and QoS, as the bytes they came in.

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

from blipmq.protocol import encoder
from blipmq.protocol.frames import (
    CORRELATION_ID_AT,
    HEADER,
    LENGTH_BYTES,
    LENGTH_MAX,
    LENGTH_MIN,
    MESSAGE,
    PUBLISH,
    QOS_AT,
    TOPIC_AT,
    TYPE_AT,
    U16,
    U32,
    U64,
)
from blipmq.protocol.properties import (
    ATTEMPT,
    DEAD_LETTER,
    DELAY,
    MESSAGE_ID,
    NO_PROPERTIES,
    TTL,
    DeadLetter,
    MessageProperties,
    attempt_property,
    dead_letter_property,
    edit_properties,
    parse_message_properties,
)
from blipmq.protocol.property_fields import PROPERTIES_BYTES_MAX, PROPERTY_HEAD_BYTES
from blipmq.protocol.scan import Messages, MessageScan, find_publishes, read_head
from blipmq.protocol.speed import stamp_offsets, stamp_range

_STRIDE_WORTH_IT = 8
"""From this many messages on, eight strided slices cost less than a loop over the messages."""
_MESSAGE_BYTES = LENGTH_MIN + 3 + U16.size
"""The length field of a MESSAGE without topic, properties and body."""


_NOT_OF_DEAD_LETTERS = (TTL, DELAY, MESSAGE_ID, ATTEMPT, DEAD_LETTER)
_LETTER_BYTES = PROPERTY_HEAD_BYTES + len("\0\0\0") + len(str(2**64 - 1))
"""Of a dead letter property, at most, without reason, topic and subscription name."""


def _cut(
    values: Sequence[bytes | None] | None, start: int, stop: int
) -> Sequence[bytes | None] | None:
    """Some of what is one for each message; None when no message has one."""
    if values is None:
        return None
    some = values[start:stop]
    return some if some.count(None) < len(some) else None


@attrs.define(eq=False)
class Run:
    """`count` messages; message i is `buffer[offsets[i]:offsets[i + 1]]`, a whole frame.

    `offsets` is a `range` when all frames have one size, else an array. `first` is the number of
    the first message once `stamp` has given them one, the others follow without a gap; 0 before.
    `type` is PUBLISH or MESSAGE; ttl and delay are those of each message, `message_ids` and `keys`
    have one for each, and are None when no message has one.
    """

    buffer: bytearray | bytes
    offsets: Sequence[int]
    topic: bytes
    qos: int
    first: int = 0
    charge: object = None
    """Whatever is to live as long as the run does."""
    type: int = PUBLISH
    ttl_ms: int | None = None
    delay_ms: int = 0
    message_ids: Sequence[bytes | None] | None = None
    keys: Sequence[bytes | None] | None = None
    _at_qos0: bytes | bytearray | None = None
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

    def describe(self, found: Messages) -> None:
        """Its frames are of type MESSAGE, and this is what their properties come to."""
        self.type = MESSAGE
        self.ttl_ms, self.delay_ms = found.ttl_ms, found.delay_ms
        self.message_ids, self.keys = found.message_ids, found.keys

    def data(self, start: int = 0, stop: int | None = None) -> memoryview:
        """The frames of messages start to stop - 1, end to end, without a copy."""
        offsets = self.offsets
        return memoryview(self.buffer)[offsets[start] : offsets[-1 if stop is None else stop]]

    def slice(self, start: int, stop: int) -> Run:
        """Messages start to stop - 1 as a run of their own, in the same buffer.

        Number a run either as a whole, before or after it was sliced, or by its slices.
        """
        replaced = self._replaced
        if isinstance(replaced, array):
            replaced = replaced[start:stop]
        elif replaced is not None:
            replaced = [column[start:stop] for column in replaced]
        return Run(
            self.buffer,
            self.offsets[start : stop + 1],
            self.topic,
            self.qos,
            self.first + start if self.first else 0,
            self.charge,
            self.type,
            self.ttl_ms,
            self.delay_ms,
            _cut(self.message_ids, start, stop),
            _cut(self.keys, start, stop),
            None,
            replaced,
        )

    def runs(self) -> list[Run]:
        """Itself."""
        return [self]

    def _body_at(self, index: int) -> int:
        """Where the body of one message begins in the buffer."""
        at = self.offsets[index] + TOPIC_AT + len(self.topic)
        if self.type == MESSAGE:
            at += U16.size + int(U16.unpack_from(self.buffer, at)[0])
        return at

    def _body(self, index: int) -> memoryview:
        return memoryview(self.buffer)[self._body_at(index) : self.offsets[index + 1]]

    def body(self, index: int) -> bytes:
        """The body of one message."""
        return bytes(self._body(index))

    def _properties(self, index: int) -> bytes:
        """The encoded properties of one message."""
        if self.type != MESSAGE:
            return b""
        at = self.offsets[index] + TOPIC_AT + len(self.topic) + U16.size
        return bytes(self.buffer[at : self._body_at(index)])

    def properties(self, index: int) -> MessageProperties:
        """The properties of one message."""
        if self.type != MESSAGE:
            return NO_PROPERTIES
        return parse_message_properties(self._properties(index), from_client=False)

    def plain(self, index: int) -> tuple[bytes, memoryview]:
        """The frame of one message as a PUBLISH, for whom properties say nothing.

        In two parts, of which the second is not copied; the first may be empty.
        """
        if self.type != MESSAGE:
            return b"", self.data(index, index + 1)
        start = self.offsets[index]
        (correlation_id,) = U64.unpack_from(self.buffer, start + CORRELATION_ID_AT)
        return self._publish(index, correlation_id, self.qos)

    def reply(self, index: int, correlation_id: int) -> tuple[bytes, memoryview]:
        """The frame of one message as a QoS 0 PUBLISH that answers the request of this id.

        In two parts, of which the second is not copied.
        """
        if self.type == MESSAGE:
            return self._publish(index, correlation_id, 0)
        frame = self.data(index, index + 1)
        head = b"".join((frame[:CORRELATION_ID_AT], U64.pack(correlation_id), b"\0"))
        return head, frame[QOS_AT + 1 :]

    def _publish(self, index: int, correlation_id: int, qos: int) -> tuple[bytes, memoryview]:
        body = self._body(index)
        length = LENGTH_MIN + 3 + len(self.topic) + len(body)
        head = HEADER.pack(length, PUBLISH, correlation_id)
        return b"".join((head, bytes((qos,)), U16.pack(len(self.topic)), self.topic)), body

    def at_qos0(self, start: int, stop: int) -> memoryview:
        """The frames of messages start to stop - 1, end to end, as deliveries at QoS 0.

        They are made once for the whole run, and kept for as long as it is.
        """
        if not self.qos:
            return self.data(start, stop)
        if self._at_qos0 is None:
            self._at_qos0 = self._made_qos0()
        base, offsets = self.offsets[0], self.offsets
        return memoryview(self._at_qos0)[offsets[start] - base : offsets[stop] - base]

    def _made_qos0(self) -> bytearray:
        data = bytearray(self.data())
        offsets = self.offsets
        if isinstance(offsets, range):
            data[QOS_AT :: offsets.step] = bytes(self.count)
        else:
            base = offsets[0] - QOS_AT
            for offset in offsets[:-1]:
                data[offset - base] = 0
        return data

    def redelivery(self, index: int, attempt: int) -> bytes:
        """One message as a MESSAGE that says which attempt it is; its number is the tag."""
        add = attempt_property(attempt)
        return self._message(index, self.first + index, self.topic, (ATTEMPT,), add)

    def undelayed(self, index: int) -> bytes:
        """One message without its delay, with correlation id 0: what is published when it is due.

        `made_run` makes runs of such frames.
        """
        return self._message(index, 0, self.topic, (DELAY,), b"")

    def dead_letter(self, index: int, topic: bytes, reason: str, subscription: bytes) -> bytes:
        """One message as a MESSAGE to `topic` that says why, and by whom, it was given up.

        Its ttl, delay and message id are gone. Headers, from the last one on, give way where the
        properties are too long; the topic it came from is left empty where it does not fit.
        `made_run` makes runs of such frames.
        """
        room = self._properties_max(topic, len(self._body(index))) - len(attempt_property(1))
        letter = DeadLetter(reason, self.topic, self.first + index, subscription)
        size = _LETTER_BYTES + len(reason.encode()) + len(self.topic) + len(subscription)
        if size > room:
            letter = attrs.evolve(letter, topic=b"")
        add = dead_letter_property(letter)
        return self._message(index, 0, topic, _NOT_OF_DEAD_LETTERS, add)

    def revived(self, index: int, topic: bytes) -> bytes:
        """One dead letter as a MESSAGE to the `topic` that it came from, as it was published.

        `made_run` makes runs of such frames.
        """
        return self._message(index, 0, topic, (ATTEMPT, DEAD_LETTER), b"")

    def _properties_max(self, topic: bytes, body_size: int) -> int:
        """How many bytes of properties fit into a MESSAGE with this topic and body."""
        return min(PROPERTIES_BYTES_MAX, LENGTH_MAX - _MESSAGE_BYTES - len(topic) - body_size)

    def _message(
        self,
        index: int,
        correlation_id: int,
        topic: bytes,
        remove: tuple[int, ...],
        add: bytes,
    ) -> bytes:
        body, properties = self._body(index), self._properties(index)
        if properties or add:
            most = self._properties_max(topic, len(body))
            properties = edit_properties(properties, remove, add, most)
        return encoder.message(correlation_id, 1, topic, properties, body)

    def stamp(self, first: int) -> None:
        """Number the messages from `first` on, in the place of their correlation ids.

        A QoS 1 run keeps the correlation ids until `settled` says that nobody will ask for them.
        """
        self.first = first
        self._at_qos0 = None
        buffer, offsets = self.buffer, self.offsets
        assert isinstance(buffer, bytearray)
        if self.qos:
            self._replaced = self._correlation_id_columns()
        if isinstance(offsets, range):
            stamp_range(buffer, offsets.start, offsets.step, self.count, first)
        else:
            assert isinstance(offsets, array)
            stamp_offsets(buffer, offsets, first)

    def _correlation_id_columns(self) -> list[bytes] | array[int]:
        """As cheaply as can be: they are hardly ever asked for."""
        buffer, offsets, count = self.buffer, self.offsets, self.count
        if not isinstance(offsets, range) or count < _STRIDE_WORTH_IT:
            return self.correlation_ids()
        start = offsets.start + CORRELATION_ID_AT
        end = start + offsets.step * (count - 1) + 1
        return [bytes(buffer[start + i : end + i : offsets.step]) for i in range(8)]

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


_MADE_BY_BROKER = MessageScan(LENGTH_MAX, from_client=False, whole=True)


def stored_run(topic: bytes, first: int, data: bytes) -> Run:
    """The run that was stored as `data`: whole frames, numbered from `first` on.

    Where `topic` is empty it is the one that the frames have. Raises ValueError if they are no run
    of that topic.
    """
    return _run(topic, first, data)


def made_run(topic: bytes, qos: int, frames: Sequence[bytes]) -> Run:
    """A run of frames that the broker made; they share what the messages of a run share.

    Raises ValueError if they are no run of that topic and QoS.
    """
    run = _run(topic, 0, bytearray().join(frames))
    if run.qos != qos:
        raise ValueError(f"the messages have QoS {run.qos}")
    return run


def _run(topic: bytes, first: int, data: bytes | bytearray) -> Run:
    end = len(data)
    if end < TOPIC_AT:
        raise ValueError("the first frame of the run is incomplete")
    stride = LENGTH_BYTES + U32.unpack_from(data)[0]
    head = read_head(data, 0, stride - LENGTH_BYTES) if stride <= end else None
    if head is None or (topic and head[3:] != topic):
        raise ValueError("the first frame is no message of the topic")
    type_ = data[TYPE_AT]
    if type_ == PUBLISH:
        offsets = find_publishes(data, 0, end, stride, head, LENGTH_MAX, whole=True)
        run = Run(data, offsets, head[3:], head[0])
    else:
        found = _MADE_BY_BROKER.find(data, 0, end, stride, head) if type_ == MESSAGE else None
        if found is None:
            raise ValueError("the first frame is no message")
        run = Run(data, found.offsets, head[3:], head[0])
        run.describe(found)
    if run.size != end:
        raise ValueError(f"the bytes from {run.size} on are no message of the run")
    run.first = first
    return run
