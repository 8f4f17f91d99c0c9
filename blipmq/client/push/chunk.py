"""The messages of a DELIVER, each made when it is asked for.

Frames that are alike but for tag, properties and body, as those of one run mostly are, are found by
comparing columns of bytes, and taken apart all together.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import islice
from struct import Struct
from typing import TYPE_CHECKING, Final

from blipmq.client.message import Message
from blipmq.client.topic import decoded
from blipmq.errors import FramingError
from blipmq.protocol.frames import (
    HEADER_BYTES,
    LENGTH_BYTES,
    MESSAGE,
    PUBLISH,
    QOS_AT,
    TOPIC_AT,
    TYPE_AT,
    U16,
    U64,
)

if TYPE_CHECKING:
    from blipmq.client.push.attachment import Attachment
    from blipmq.client.push.lease import Lease

_HEAD: Final = Struct(">IBQBH")
_TAG_AT: Final = 5
_ALIKE_MIN: Final = 8
"""So many frames that are alike are worth the columns."""


def messages(chunk: bytes, attachment: Attachment, lease: Lease) -> Iterator[Message]:
    """The messages of the payload of a DELIVER, counted as taken when they come out.

    Ends where the bytes stop being frames, and then fails the connection.
    """
    unpack_from = _HEAD.unpack_from
    pattern, text, name = attachment.wanted.pattern, attachment.wanted.topic, b""
    at, end, look_at = 0, len(chunk), 0
    while at < end:
        if end - at < TOPIC_AT:
            _malformed(lease, "a cut off inner frame")
            return
        length, type_, tag, qos, topic_bytes = unpack_from(chunk, at)
        stride = LENGTH_BYTES + length
        following = at + stride
        body_at = head_end = at + TOPIC_AT + topic_bytes
        if type_ == MESSAGE:
            body_at = head_end = head_end + U16.size
            if head_end <= following <= end:
                body_at += chunk[head_end - 2] << 8 | chunk[head_end - 1]
        if type_ not in (PUBLISH, MESSAGE) or not head_end <= body_at <= following <= end:
            _malformed(lease, "a malformed inner frame")
            return
        if pattern:
            found = chunk[at + TOPIC_AT : at + TOPIC_AT + topic_bytes]
            if found != name:
                name, text = found, decoded(found)
        count = 1
        if at >= look_at and end - at >= _ALIKE_MIN * stride:
            head = chunk[at + QOS_AT : head_end]
            # Without a pattern, what the topic is has been said by the attachment.
            parts = [(0, head)] if pattern else [(0, head[:3])]
            if type_ == MESSAGE:
                parts.append((len(head) - U16.size, head[-U16.size :]))
            count = _alike(chunk, at, stride, (end - at) // stride, parts)
            look_at = following + _ALIKE_MIN * stride
        rows: Iterable[tuple[int, bytes, bytes]]
        if count > 1:
            following = at + count * stride
            row = _row(head_end - at, body_at - head_end, at + stride - body_at)
            # What is left of the rows is not taken, so each is counted as it comes out. They are of
            # bytes, for the collector breaks a memoryview that such an iterator still looks into.
            rows = attachment.rows = row.iter_unpack(chunk[at:following])
            lease.rows_count = qos > 0
        else:
            rows = ((tag, chunk[head_end:body_at], chunk[body_at:following]),)
        attachment.begun += count
        if qos:
            lease.begun += count
        for tag, properties, body in rows:
            message = Message()
            message.body = body
            message.topic = text
            message.qos = qos
            message.tag = tag if qos else None
            message._lease = lease
            message._properties = properties
            message._settled = False
            yield message
        at = following


def _alike(chunk: bytes, at: int, stride: int, count: int, parts: list[tuple[int, bytes]]) -> int:
    """How many of `count` frames from `at` on have the size, the type and these parts of it.

    The places of the parts are from the QoS on. 1 where few are alike.
    """
    parts = [(QOS_AT + place, part) for place, part in parts]
    parts.append((0, chunk[at : at + TYPE_AT + 1]))
    probe = at + (_ALIKE_MIN - 1) * stride
    for place, part in parts:
        if not chunk.startswith(part, probe + place):
            return 1
    for place, part in parts:
        for column_at, byte in enumerate(part, at + place):
            column = chunk[column_at : at + count * stride : stride]
            same = bytes((byte,))
            if column != same * count:
                count -= len(column.lstrip(same))
    return count


@lru_cache(maxsize=256)
def _row(head: int, properties: int, body: int) -> Struct:
    """Tag, properties and body of a frame that has so many bytes of each."""
    skipped = head - _TAG_AT - U64.size
    return Struct(f">{_TAG_AT}xQ{skipped}x{properties}s{body}s")


def _malformed(lease: Lease, what: str) -> None:
    lease.connection.fail(FramingError(what))


def count(chunk: bytes) -> int:
    """How many messages a DELIVER has."""
    return sum(1 for _ in _places(chunk))


def tags(chunk: bytes) -> list[int]:
    """Of all of its messages."""
    return [U64.unpack_from(chunk, at + _TAG_AT)[0] for at in _places(chunk)]


def last_tag(chunk: bytes, count: int) -> int:
    """The tag of the last message of QoS 1 among the first `count`; 0 if there is none."""
    tag = 0
    for at in islice(_places(chunk), count):
        if chunk[at + QOS_AT]:
            (tag,) = U64.unpack_from(chunk, at + _TAG_AT)
    return tag


def _places(chunk: bytes) -> Iterator[int]:
    """Where the inner frames begin."""
    at = 0
    while at + HEADER_BYTES < len(chunk):
        yield at
        at += LENGTH_BYTES + int.from_bytes(chunk[at : at + LENGTH_BYTES], "big")
