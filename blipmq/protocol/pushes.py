"""What the broker sends unasked on version 2, as a client reads it."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator

from blipmq.errors import FramingError
from blipmq.protocol.frames import LENGTH_BYTES, MESSAGE, PUBLISH, TOPIC_AT, U16, U64

_HEAD = struct.Struct(">IBQBH")
"""Of a PUBLISH or MESSAGE: all before its topic."""

Delivered = tuple[int, int, int, bytes, memoryview, memoryview]
"""Frame type, delivery tag, QoS, topic, properties, body."""


def parse_deliver(payload: memoryview) -> Iterator[Delivered]:
    """The inner frames of a DELIVER; properties and body are views of the payload.

    Frames of one topic that follow each other give the same topic object. Raises FramingError
    where an inner frame does not fit, after those before it; and for a DELIVER without any.
    """
    unpack_from, size_from = _HEAD.unpack_from, U16.unpack_from
    at, end = 0, len(payload)
    topic, nothing = b"", payload[:0]
    if not end:
        raise FramingError("a DELIVER without a frame")
    while at < end:
        if end - at < TOPIC_AT:
            raise FramingError("an inner frame is cut off")
        length, type_, tag, qos, topic_length = unpack_from(payload, at)
        body_at = at + TOPIC_AT + topic_length
        following = at + LENGTH_BYTES + length
        properties = nothing
        if following > end:
            raise FramingError("an inner frame is longer than its DELIVER")
        if type_ == MESSAGE:
            body_at += U16.size
            if body_at > following:
                raise FramingError("the topic of an inner frame is longer than the frame")
            (size,) = size_from(payload, body_at - U16.size)
            if size:
                properties = payload[body_at : body_at + size]
                body_at += size
        elif type_ != PUBLISH:
            raise FramingError(f"an inner frame of type 0x{type_:02x}")
        if body_at > following:
            raise FramingError("the topic or properties of an inner frame are longer than it")
        name = payload[at + TOPIC_AT : at + TOPIC_AT + topic_length]
        if name != topic:
            topic = bytes(name)
        yield type_, tag, qos, topic, properties, payload[body_at:following]
        at = following


def parse_detached(payload: bytes) -> tuple[int, str]:
    """Subscription id and reason of a broker's DETACH. Raises FramingError."""
    head = U64.size + U16.size
    if len(payload) < head or len(payload) != head + U16.unpack_from(payload, U64.size)[0]:
        raise FramingError("a malformed DETACH")
    return U64.unpack_from(payload)[0], payload[head:].decode(errors="replace")


def parse_info(payload: bytes) -> dict[str, object]:
    """The document of an INFO. Raises FramingError."""
    try:
        document = json.loads(payload)
    except (ValueError, RecursionError):
        raise FramingError("an INFO that is no JSON") from None
    if not isinstance(document, dict):
        raise FramingError("an INFO that is no JSON object")
    return document
