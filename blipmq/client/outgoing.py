"""What a program wants published, checked before anything of it is sent."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final, TypedDict

import attrs

from blipmq.client.topic import encoded
from blipmq.errors import TooLarge
from blipmq.protocol.frames import LENGTH_MAX_PUBLISH, LENGTH_MIN, U16
from blipmq.protocol.properties import (
    KEY_BYTES_MAX,
    MESSAGE_ID,
    MESSAGE_ID_BYTES_MAX,
    MessageProperties,
    encode_message_properties,
)

Body = bytes | bytearray | memoryview


class PublishOptions(TypedDict, total=False):
    """What a message may carry besides its topic and body. None is as if it were not given."""

    ttl: float | None
    """It is given up so many seconds after it was published; 0: never."""
    delay: float | None
    """It is published so many seconds from now; at QoS 1 only."""
    message_id: bytes | None
    """A second message of the topic with it, within the broker's dedup window, is dropped."""
    key: bytes | None
    """Messages of one key go to one member of a named subscription, in order."""
    reply_to: str | None
    """The topic that an answer goes to."""
    content_type: str | None
    trace_context: str | None
    """A W3C traceparent."""
    headers: Mapping[str, bytes] | None
    timestamp: float | None
    """Seconds since the epoch."""


_FIXED_BYTES: Final = LENGTH_MIN + 5
_NOTHING: Final = (None,) * 8


def checked_body(body: Body) -> bytes:
    """Raises `TypeError` when it is no bytes."""
    if not isinstance(body, bytes | bytearray | memoryview):
        raise TypeError(f"a body is bytes, not {type(body).__name__}")
    return bytes(body)


def check_size(body_bytes: int, topic: bytes, properties: bytes | None = None) -> None:
    """Raises `TooLarge` for what no broker takes. Without properties it is a PUBLISH."""
    fixed = _FIXED_BYTES - 2 if properties is None else _FIXED_BYTES + len(properties)
    if fixed + len(topic) + body_bytes > LENGTH_MAX_PUBLISH:
        raise TooLarge(413, "message too large")


def milliseconds(seconds: float, what: str) -> int:
    """Raises `ValueError` unless it is a number of seconds, 0 or more."""
    if not seconds >= 0 or math.isinf(seconds):
        raise ValueError(f"{what} {seconds!r}; expected seconds, 0 or more")
    return round(seconds * 1000)


def properties_of(
    *,
    ttl: float | None = None,
    delay: float | None = None,
    message_id: bytes | None = None,
    key: bytes | None = None,
    reply_to: str | None = None,
    content_type: str | None = None,
    trace_context: str | None = None,
    headers: Mapping[str, bytes] | None = None,
    timestamp: float | None = None,
    qos: int = 1,
) -> MessageProperties | None:
    """The properties of a message, None when it has none.

    Raises `ValueError` for what no broker takes.
    """
    values = (ttl, delay, message_id, key, reply_to, content_type, trace_context, timestamp)
    if not headers and values == _NOTHING:
        return None
    if message_id is not None and not 0 < len(message_id) <= MESSAGE_ID_BYTES_MAX:
        raise ValueError(f"a message id of {len(message_id)} bytes; expected 1 to 128")
    if key is not None and len(key) > KEY_BYTES_MAX:
        raise ValueError(f"a key of {len(key)} bytes; at most {KEY_BYTES_MAX} fit")
    if delay and not qos:
        raise ValueError("a delayed message is published at QoS 1")
    return MessageProperties(
        None if ttl is None else milliseconds(ttl, "ttl"),
        0 if delay is None else milliseconds(delay, "delay"),
        message_id,
        key,
        None if reply_to is None else encoded(reply_to),
        content_type,
        trace_context,
        tuple(headers.items()) if headers else (),
        None if timestamp is None else milliseconds(timestamp, "timestamp"),
    )


def with_message_id(properties: MessageProperties | None, message_id: bytes) -> bytes:
    """The bytes of properties, with this message id unless they have one of their own."""
    if properties is None:
        return bytes((MESSAGE_ID,)) + U16.pack(len(message_id)) + message_id
    if properties.message_id is None:
        properties = attrs.evolve(properties, message_id=message_id)
    return encode_message_properties(properties)
