"""Which frames of a buffer are the messages of one run.

Frames of one size are compared column by column: the bytes at one place of every frame are one
strided slice, so the cost follows the bytes compared, not the messages. All others are looked at
one by one.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Sequence
from typing import Final

import attrs

from blipmq.errors import BadRequest
from blipmq.protocol.frames import (
    LENGTH_BYTES,
    LENGTH_MIN,
    MESSAGE,
    QOS_AT,
    TOPIC_AT,
    TOPIC_LENGTH_AT,
    TYPE_AT,
    U16,
    U32,
)
from blipmq.protocol.properties import (
    CONTENT_TYPE,
    HEADER,
    KEY,
    MESSAGE_ID,
    TIMESTAMP,
    TRACE_CONTEXT,
    routing,
)
from blipmq.protocol.property_fields import PROPERTIES_BYTES_MAX, places
from blipmq.protocol.speed import scan_publishes

Part = tuple[int, bytes]
"""A place in a frame, from the frame's start, and the bytes that stand there."""

_PUBLISH_LOOP_NS: Final = 400
_MESSAGE_LOOP_NS: Final = 700
"""What looking at one frame costs; a strided slice costs 100 ns, and 1 more a byte."""
_PROBE: Final = 7
"""Frames are worth comparing by columns if this one, too, is like the first."""
_MANY: Final = 256
_PROBES: Final = (1, 2, 4, 7, 15)
"""More than `_MANY` are worth it if all of these are."""


def read_head(buffer: bytearray | bytes, start: int, length: int) -> bytes | None:
    """QoS, topic length and topic of the message at `start`; None unless they are well-formed.

    `length` is its length field; the frame must be whole.
    """
    if length < LENGTH_MIN + 3 or buffer[start + QOS_AT] > 1:
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


def find_publishes(
    buffer: bytearray | bytes,
    start: int,
    end: int,
    stride: int,
    head: bytes,
    length_max: int,
    *,
    whole: bool = False,
) -> Sequence[int]:
    """The offsets of a run of PUBLISH frames that begins with the one at `start`.

    That one takes `stride` bytes and has this head. `end` is where the received bytes end. Many
    frames of one size may be a run of their own, unless the run is to be the `whole` of the bytes.
    """
    count = (end - start) // stride
    if count * _PUBLISH_LOOP_NS >= (len(head) + 5) * (100 + count):
        prefix = bytes(buffer[start : start + TYPE_AT + 1])
        count = _count_equal(buffer, start, stride, count, ((0, prefix), (QOS_AT, head)))
        if count and not (whole and start + stride * count < end):
            return range(start, start + stride * count + 1, stride)
    return scan_publishes(buffer, start, end, stride, head, length_max)


def _count_equal(
    buffer: bytearray | bytes, start: int, stride: int, count: int, parts: tuple[Part, ...]
) -> int:
    """How many of `count` frames from `start` on have these parts; 0 if that is hardly any."""
    # A column of many frames must not be looked at in vain for each of a few that are alike.
    for probe in _PROBES if count > _MANY else (min(count - 1, _PROBE),):
        far = start + stride * probe
        for place, expected in parts:
            if not buffer.startswith(expected, far + place):
                return 0
    stop = start + stride * count
    for place, expected in parts:
        for at, byte in enumerate(expected, start + place):
            column = buffer[at:stop:stride]
            pattern = bytes((byte,))
            if column != pattern * count:
                count -= len(column.lstrip(pattern))
                stop = start + stride * count
    return count


@attrs.define
class Messages:
    """The MESSAGE frames of one run: where they lie, and what their properties come to."""

    offsets: Sequence[int]
    ttl_ms: int | None
    delay_ms: int
    message_ids: Sequence[bytes | None] | None
    keys: Sequence[bytes | None] | None


@attrs.frozen
class MessageScan:
    """Looks for runs of MESSAGE frames. `length_max` and `properties_max` are in bytes."""

    length_max: int
    properties_max: int = PROPERTIES_BYTES_MAX
    from_client: bool = True
    whole: bool = False
    """Whether a run is to be all of the bytes, rather than many frames of one size alone."""

    def find(
        self, buffer: bytearray | bytes, start: int, end: int, stride: int, head: bytes
    ) -> Messages | None:
        """The longest run that begins with the frame at `start`; None if that is malformed.

        That one takes `stride` bytes and has this head. `end` is where the received bytes end.
        """
        at = start + QOS_AT + len(head)
        size = stride - QOS_AT - len(head) - U16.size
        if size < 0:
            return None
        (properties_size,) = U16.unpack_from(buffer, at)
        if properties_size > min(size, self.properties_max):
            return None
        properties = bytes(buffer[at + U16.size : at + U16.size + properties_size])
        try:
            ttl_ms, delay_ms, id_, key = routing(properties, self.from_client)
        except BadRequest:
            return None
        if delay_ms and not head[0]:
            return None
        count = (end - start) // stride
        if count * _MESSAGE_LOOP_NS >= (len(head) + 7) * (100 + count):
            columns = _Columns.of(buffer, start, head, properties)
            count = columns.count(buffer, start, stride, count)
            if count and not (self.whole and start + stride * count < end):
                data = memoryview(buffer)[start : start + stride * count]
                return Messages(
                    range(start, start + stride * count + 1, stride),
                    ttl_ms,
                    delay_ms,
                    _cut_out(data, columns.message_id, stride),
                    _cut_out(data, columns.key, stride),
                )
        found = Messages(array("I", (start, start + stride)), ttl_ms, delay_ms, None, None)
        self._scan(buffer, end, head, properties, found, id_, key)
        return found

    def _scan(
        self,
        buffer: bytearray | bytes,
        end: int,
        head: bytes,
        properties: bytes,
        found: Messages,
        id_: bytes | None,
        key: bytes | None,
    ) -> None:
        """Add the frames that follow the one in `found`, whatever their sizes.

        `properties`, `id_` and `key` are that one's.
        """
        unpack_from, unpack_size, startswith = U32.unpack_from, U16.unpack_from, buffer.startswith
        properties_at = QOS_AT + len(head)
        length_min = LENGTH_MIN + len(head) + U16.size
        ttl_ms, delay_ms, from_client = found.ttl_ms, found.delay_ms, self.from_client
        shared = ttl_ms is not None or delay_ms > 0
        length_max, properties_max = self.length_max, self.properties_max
        first, at = found.offsets
        offsets = array("I", (first, at))
        ids, keys = [id_], [key]
        last = end - LENGTH_BYTES - length_min
        while at <= last:
            if buffer[at + TYPE_AT] != MESSAGE or not startswith(head, at + QOS_AT):
                break
            (length,) = unpack_from(buffer, at)
            following = at + LENGTH_BYTES + length
            if not length_min <= length <= length_max or following > end:
                break
            at += properties_at
            (size,) = unpack_size(buffer, at)
            if size > length - length_min or size > properties_max:
                break
            if not size:
                if shared:
                    break
                properties, id_, key = b"", None, None
            elif size == len(properties) and startswith(properties, at + U16.size):
                pass
            else:
                properties = bytes(buffer[at + U16.size : at + U16.size + size])
                try:
                    ttl, delay, id_, key = routing(properties, from_client)
                except BadRequest:
                    break
                if ttl != ttl_ms or delay != delay_ms:
                    break
            ids.append(id_)
            keys.append(key)
            offsets.append(following)
            at = following
        found.offsets = offsets
        if ids.count(None) < len(ids):
            found.message_ids = ids
        if keys.count(None) < len(keys):
            found.keys = keys


@attrs.frozen
class _Columns:
    """What must be equal in frames of one size for their properties to be alike.

    `texts` need not be equal, but ASCII. `message_id` and `key` are where these stand, if at all:
    start and end. All places are from the start of a frame.
    """

    parts: tuple[Part, ...]
    texts: tuple[tuple[int, int], ...]
    message_id: tuple[int, int] | None
    key: tuple[int, int] | None

    @classmethod
    def of(cls, buffer: bytearray | bytes, start: int, head: bytes, properties: bytes) -> _Columns:
        """For frames like the one at `start`, whose properties are well-formed."""
        base = QOS_AT + len(head) + U16.size
        parts: list[Part] = [(0, bytes(buffer[start : start + TYPE_AT + 1]))]
        texts: list[tuple[int, int]] = []
        found: dict[int, tuple[int, int]] = {}
        at = QOS_AT
        fixed = head + U16.pack(len(properties)) + properties
        for id_, begin, end in places(properties):
            if id_ == HEADER:
                begin += 1 + properties[begin]
            elif id_ in (MESSAGE_ID, KEY):
                found[id_] = (base + begin, base + end)
            elif id_ in (TRACE_CONTEXT, CONTENT_TYPE):
                texts.append((base + begin, base + end))
            elif id_ != TIMESTAMP:
                continue
            parts.append((at, fixed[at - QOS_AT : base + begin - QOS_AT]))
            at = base + end
        parts.append((at, fixed[at - QOS_AT :]))
        return cls(tuple(parts), tuple(texts), found.get(MESSAGE_ID), found.get(KEY))

    def count(self, buffer: bytearray | bytes, start: int, stride: int, count: int) -> int:
        """How many of `count` frames of `stride` bytes are alike; 0: look at each instead."""
        width = sum(len(part) for _, part in self.parts)
        width += sum(end - begin for begin, end in self.texts)
        if count * _MESSAGE_LOOP_NS < width * (100 + count):
            return 0
        count = _count_equal(buffer, start, stride, count, self.parts)
        stop = start + stride * count
        for begin, end in self.texts:
            for at in range(start + begin, start + end):
                if not buffer[at:stop:stride].isascii():
                    return 0
        return count


def _cut_out(
    data: memoryview, place: tuple[int, int] | None, stride: int
) -> Sequence[bytes | None] | None:
    """The bytes at this place of every frame."""
    if place is None:
        return None
    start, end = place
    row = struct.Struct(f"{start}x{end - start}s{stride - end}x")
    return [value for (value,) in row.iter_unpack(data)]
