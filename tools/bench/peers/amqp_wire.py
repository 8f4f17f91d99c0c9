"""AMQP 0-9-1 on a raw socket, as far as publishing with confirms and consuming need it.

Source: the specification "AMQP Version 0-9-1" with its XML definition of the methods, and
RabbitMQ's documentation of publisher confirms (method 85 of its own class 85, acks from the
server).
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence

from tools.bench.load.server import Address
from tools.bench.load.stream import connect, receive_exactly
from tools.bench.load.wire import Refused

Method = tuple[int, int]

START, START_OK = (10, 10), (10, 11)
TUNE, TUNE_OK = (10, 30), (10, 31)
OPEN, OPEN_OK = (10, 40), (10, 41)
CHANNEL_OPEN, CHANNEL_OPEN_OK = (20, 10), (20, 11)
QUEUE_DECLARE, QUEUE_DECLARE_OK = (50, 10), (50, 11)
QUEUE_BIND, QUEUE_BIND_OK = (50, 20), (50, 21)
QUEUE_DELETE, QUEUE_DELETE_OK = (50, 40), (50, 41)
QOS, QOS_OK = (60, 10), (60, 11)
CONSUME, CONSUME_OK = (60, 20), (60, 21)
PUBLISH, DELIVER, ACK = (60, 40), (60, 60), (60, 80)
CONFIRM, CONFIRM_OK = (85, 10), (85, 11)

EXCHANGE = b"amq.direct"
"""An exchange that each server has: a message goes to the queues that are bound by its key."""
ACK_BYTES = 21
ACK_HEAD = bytes([1, 0, 1, 0, 0, 0, 13, 0, 60, 0, 80])
"""What stands before the tag of an acknowledgement."""
DELIVER_TAG_AT = 7 + 4 + 2
"""In a delivery to a consumer whose tag is one byte long."""
CONSUMER = b"c"

_CHANNEL = 1
_METHOD_FRAME, _HEADER_FRAME, _BODY_FRAME = 1, 2, 3
_FRAME_END = b"\xce"
_FRAME_BYTES_AT_MOST = 131072
_DELIVERY_MODE = 0x1000
_PERSISTENT, _TRANSIENT = 2, 1


def short(value: bytes) -> bytes:
    """A string of at most 255 bytes."""
    return bytes([len(value)]) + value


def _long(value: bytes) -> bytes:
    return len(value).to_bytes(4) + value


def table(values: dict[bytes, bytes]) -> bytes:
    """A table of strings."""
    return _long(b"".join(short(key) + b"S" + _long(text) for key, text in values.items()))


def _frame(kind: int, payload: bytes, channel: int = _CHANNEL) -> bytes:
    return struct.pack(">BHI", kind, channel, len(payload)) + payload + _FRAME_END


def method(which: Method, arguments: bytes = b"", channel: int = _CHANNEL) -> bytes:
    """The frame of a method."""
    return _frame(_METHOD_FRAME, struct.pack(">HH", *which) + arguments, channel)


def _content(body: bytes, *, persistent: bool) -> bytes:
    mode = _PERSISTENT if persistent else _TRANSIENT
    header = struct.pack(">HHQHB", 60, 0, len(body), _DELIVERY_MODE, mode)
    return _frame(_HEADER_FRAME, header) + _frame(_BODY_FRAME, body)


def publish(topic: bytes, body: bytes, *, persistent: bool) -> bytes:
    """A publish to `EXCHANGE`."""
    arguments = bytes(2) + short(EXCHANGE) + short(topic) + b"\0"
    return method(PUBLISH, arguments) + _content(body, persistent=persistent)


def deliver(topic: bytes, body: bytes, tag: int, *, persistent: bool) -> bytes:
    """A delivery, as it comes from the server."""
    arguments = short(CONSUMER) + struct.pack(">QB", tag, 0) + short(EXCHANGE) + short(topic)
    return method(DELIVER, arguments) + _content(body, persistent=persistent)


def ack(tag: int, *, multiple: bool) -> bytes:
    """An acknowledgement, from either side; `multiple`: of all up to this one."""
    return method(ACK, struct.pack(">QB", tag, multiple))


def receive_method(sock: socket.socket, wanted: Method) -> bytes:
    """The arguments of the next method, which must be this one. Raises Refused."""
    kind, _, size = struct.unpack(">BHI", receive_exactly(sock, 7))
    payload = receive_exactly(sock, size + 1)[:-1]
    if kind != _METHOD_FRAME or struct.unpack(">HH", payload[:4]) != wanted:
        raise Refused(f"frame {kind} {payload[:200]!r}")
    return payload[4:]


def connected(address: Address) -> socket.socket:
    """A connection with one open channel and no heartbeats."""
    sock = connect(address)
    sock.sendall(b"AMQP\0\0\x09\x01")
    receive_method(sock, START)
    login = short(b"PLAIN") + _long(b"\0guest\0guest") + short(b"en_US")
    sock.sendall(method(START_OK, table({}) + login, 0))
    receive_method(sock, TUNE)
    sock.sendall(method(TUNE_OK, struct.pack(">HIH", 16, _FRAME_BYTES_AT_MOST, 0), 0))
    sock.sendall(method(OPEN, short(b"/") + bytes(2), 0))
    receive_method(sock, OPEN_OK)
    call(sock, CHANNEL_OPEN, bytes(1), CHANNEL_OPEN_OK)
    return sock


def call(sock: socket.socket, which: Method, arguments: bytes, answer: Method) -> bytes:
    """The arguments of the answer to a method. Raises Refused."""
    sock.sendall(method(which, arguments))
    return receive_method(sock, answer)


def declare_queue(
    sock: socket.socket, queue: bytes, topics: Sequence[bytes], *, durable: bool, kind: bytes
) -> None:
    """A queue that gets what is published on the topics. `kind` is `classic` or `quorum`."""
    flags = bytes([2 if durable else 0])
    arguments = bytes(2) + short(queue) + flags + table({b"x-queue-type": kind})
    call(sock, QUEUE_DECLARE, arguments, QUEUE_DECLARE_OK)
    for topic in topics:
        binding = bytes(2) + short(queue) + short(EXCHANGE) + short(topic) + b"\0" + table({})
        call(sock, QUEUE_BIND, binding, QUEUE_BIND_OK)


def delete_queue(sock: socket.socket, queue: bytes) -> None:
    """Delete a queue and what is in it."""
    call(sock, QUEUE_DELETE, bytes(2) + short(queue) + b"\0", QUEUE_DELETE_OK)


def prefetch_at_most(count: int) -> bytes:
    """The arguments that set how many messages a consumer may hold."""
    return struct.pack(">IHB", 0, count, 0)


def consume(sock: socket.socket, queue: bytes, prefetch: int) -> None:
    """Have the queue delivered, so many unacknowledged messages at a time."""
    call(sock, QOS, prefetch_at_most(prefetch), QOS_OK)
    arguments = bytes(2) + short(queue) + short(CONSUMER) + b"\0" + table({})
    call(sock, CONSUME, arguments, CONSUME_OK)
