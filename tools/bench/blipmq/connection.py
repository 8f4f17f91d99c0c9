"""A socket to a broker, authenticated, and the requests that are answered one by one."""

from __future__ import annotations

import socket

from blipmq.protocol import encoder
from blipmq.protocol.attach_properties import AttachProperties, encode_attach_properties
from blipmq.protocol.frames import HEADER_BYTES, LENGTH_BYTES, NACK, TYPE_AT, U64
from tools.bench.load import stream
from tools.bench.load.server import Address
from tools.bench.load.wire import Refused

_CALL = 1


def refusal(frame: bytes) -> Refused:
    """What a frame that was not asked for says, a NACK most likely."""
    text = frame[HEADER_BYTES + 4 :].decode(errors="replace")
    return Refused(text if frame[TYPE_AT] == NACK else f"unexpected frame {frame[:32].hex()}")


def connect(address: Address, api_key: str, version: int = 1) -> socket.socket:
    """An authenticated connection. Raises Refused and OSError."""
    sock = stream.connect(address)
    try:
        sock.sendall(encoder.hello(1, version) + encoder.auth(2, api_key.encode()))
        for _ in range(2 if version == 1 else 3):  # two ACKs, and INFO
            receive_frame(sock)
    except BaseException:
        sock.close()
        raise
    return sock


def receive_frame(sock: socket.socket) -> bytes:
    """The next frame. Raises Refused when it is a NACK, or none comes."""
    length = stream.receive_exactly(sock, LENGTH_BYTES)
    frame = length + stream.receive_exactly(sock, int.from_bytes(length))
    if frame[TYPE_AT] == NACK:
        raise refusal(frame)
    return frame


def subscribe(sock: socket.socket, topic: bytes, qos: int) -> int:
    """A version 1 subscription; its id."""
    sock.sendall(encoder.subscribe(_CALL, topic, qos))
    return int(U64.unpack_from(receive_frame(sock), HEADER_BYTES)[0])


def attach(
    sock: socket.socket,
    topic: bytes,
    name: bytes | None,
    *,
    qos: int = 1,
    prefetch: int = 0,
    pattern: bool = False,
    delete: bool = False,
) -> int:
    """An attachment, with a name to a durable subscription, which is made if need be; its id.

    With `delete` the subscription is deleted at once. On a connection that has no attachment with
    a prefetch yet, or to topics without messages.
    """
    properties = encode_attach_properties(
        AttachProperties(name=name, prefetch=prefetch, pattern=pattern)
    )
    sock.sendall(encoder.attach(_CALL, topic, qos, properties))
    subscription = int(U64.unpack_from(receive_frame(sock), HEADER_BYTES)[0])
    if delete:
        sock.sendall(encoder.detach(_CALL, subscription, delete=True))
        receive_frame(sock)
    return subscription
