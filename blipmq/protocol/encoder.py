"""Frames as bytes, one function a type. Both sides of the wire use these."""

from __future__ import annotations

from blipmq.protocol.frames import (
    ACK,
    AUTH,
    HEADER,
    HELLO,
    LENGTH_MIN,
    NACK,
    PING,
    POLL,
    PONG,
    PUBLISH,
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
