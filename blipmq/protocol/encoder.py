"""Frames as bytes, one function a type. Both sides of the wire use these."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from blipmq.protocol.frames import (
    ACK,
    ATTACH,
    AUTH,
    CONFIRM,
    DELIVER,
    DETACH,
    HEADER,
    HELLO,
    INFO,
    LENGTH_MIN,
    MESSAGE,
    NACK,
    PING,
    POLL,
    PONG,
    PUBLISH,
    SETTLE,
    SETTLE_ROW,
    SUBSCRIBE,
    U16,
    U64,
)


def frame(type_: int, correlation_id: int, payload: bytes = b"") -> bytes:
    """Any frame. The payload is taken as it is."""
    return HEADER.pack(LENGTH_MIN + len(payload), type_, correlation_id) + payload


def hello(correlation_id: int, version: int) -> bytes:
    return frame(HELLO, correlation_id, U16.pack(version))


def auth(correlation_id: int, api_key: bytes) -> bytes:
    return frame(AUTH, correlation_id, U16.pack(len(api_key)) + api_key)


def publish(correlation_id: int, qos: int, topic: bytes, body: bytes) -> bytes:
    return b"".join(
        (
            HEADER.pack(LENGTH_MIN + 3 + len(topic) + len(body), PUBLISH, correlation_id),
            bytes((qos,)),
            U16.pack(len(topic)),
            topic,
            body,
        )
    )


def subscribe(correlation_id: int, topic: bytes, qos: int) -> bytes:
    return frame(SUBSCRIBE, correlation_id, U16.pack(len(topic)) + topic + bytes((qos,)))


def ack(correlation_id: int, subscription_id: int = 0) -> bytes:
    """From the broker: an answer, to SUBSCRIBE with its id. From a client: settles a tag."""
    return frame(ACK, correlation_id, U64.pack(subscription_id))


def nack(correlation_id: int, code: int, message: str) -> bytes:
    text = message.encode()
    return frame(NACK, correlation_id, U16.pack(code) + U16.pack(len(text)) + text)


def ping(correlation_id: int) -> bytes:
    return frame(PING, correlation_id)


def pong(correlation_id: int) -> bytes:
    return frame(PONG, correlation_id)


def poll(correlation_id: int, subscription_id: int) -> bytes:
    return frame(POLL, correlation_id, U64.pack(subscription_id))


def info(document: Mapping[str, object]) -> bytes:
    """The values are what JSON can say."""
    return frame(INFO, 0, json.dumps(document, separators=(",", ":")).encode())


def deliver_head(subscription_id: int, size: int) -> bytes:
    """What stands before the inner frames of a DELIVER, which take `size` bytes."""
    return HEADER.pack(LENGTH_MIN + size, DELIVER, subscription_id)


def confirm(correlation_id: int) -> bytes:
    return frame(CONFIRM, correlation_id)


def message(
    correlation_id: int, qos: int, topic: bytes, properties: bytes, body: bytes | memoryview
) -> bytes:
    """`properties` as `encode_message_properties` gives them."""
    size = LENGTH_MIN + 5 + len(topic) + len(properties) + len(body)
    return b"".join(
        (
            HEADER.pack(size, MESSAGE, correlation_id),
            bytes((qos,)),
            U16.pack(len(topic)),
            topic,
            U16.pack(len(properties)),
            properties,
            body,
        )
    )


def attach(correlation_id: int, topic: bytes, qos: int, properties: bytes) -> bytes:
    """`properties` as `encode_attach_properties` gives them."""
    head = U16.pack(len(topic)) + topic + bytes((qos,))
    return frame(ATTACH, correlation_id, head + U16.pack(len(properties)) + properties)


def detach(correlation_id: int, subscription_id: int, *, delete: bool = False) -> bytes:
    """From a client: ends an attachment, and its named subscription when that is to be deleted."""
    return frame(DETACH, correlation_id, U64.pack(subscription_id) + bytes((delete,)))


def detached(subscription_id: int, reason: str) -> bytes:
    """From the broker: this attachment has ended."""
    text = reason.encode()
    return frame(DETACH, 0, U64.pack(subscription_id) + U16.pack(len(text)) + text)


def settle(subscription_id: int, rows: Iterable[tuple[int, int, int, int]]) -> bytes:
    """Each row: outcome, first tag, last tag, delay in ms."""
    return frame(SETTLE, subscription_id, b"".join(SETTLE_ROW.pack(*row) for row in rows))
