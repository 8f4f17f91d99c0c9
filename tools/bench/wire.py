"""Clients that only move bytes: raw sockets, frames encoded beforehand, deliveries counted.

They show what the broker can do rather than what a client library costs. What both versions share,
and version 1: blocking sockets, one thread each; all messages of a run have one size, so replies
are counted by length. Version 2 is in `publishers` and `consumers`.
"""

from __future__ import annotations

import socket
from collections.abc import Callable

import attrs

from blipmq.protocol import encoder
from blipmq.protocol.frames import HEADER_BYTES, LENGTH_BYTES, NACK, TYPE_AT

NO_SUBSCRIPTION = 2**64 - 1
PONG = encoder.pong(5)
PONG_BYTES = len(PONG)
ACK_BYTES = HEADER_BYTES + 8


class Refused(Exception):
    """The broker answered with a frame that was not asked for, a NACK most likely."""

    def __init__(self, frame: bytes) -> None:
        text = frame[HEADER_BYTES + 4 :].decode(errors="replace")
        super().__init__(text if frame[TYPE_AT] == NACK else f"frame {frame[:32].hex()}")


def connect(address: tuple[str, int], api_key: str, version: int = 1) -> socket.socket:
    """An authenticated connection."""
    sock = socket.create_connection(address)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.sendall(encoder.hello(1, version) + encoder.auth(2, api_key.encode()))
    for _ in range(2 if version == 1 else 3):  # two ACKs, and INFO
        receive_frame(sock)
    return sock


def receive_frame(sock: socket.socket) -> bytes:
    """The next frame. Raises Refused when it is a NACK."""
    length = receive_exactly(sock, LENGTH_BYTES)
    frame = length + receive_exactly(sock, int.from_bytes(length))
    if frame[TYPE_AT] == NACK:
        raise Refused(frame)
    return frame


def receive_exactly(sock: socket.socket, size: int) -> bytes:
    """`size` bytes. Raises ConnectionError when the broker closes before."""
    data = bytearray(size)
    at = 0
    while at < size:
        count = sock.recv_into(memoryview(data)[at:])
        if not count:
            raise ConnectionError("the broker closed the connection")
        at += count
    return bytes(data)


@attrs.define
class Publisher:
    """Publishes batches; the barrier behind each tells when the broker has dealt with it."""

    sock: socket.socket
    batch: bytes
    batch_messages: int
    batches_ahead: int

    @classmethod
    def create(
        cls, sock: socket.socket, topic: bytes, qos: int, size: int, batch_messages: int
    ) -> Publisher:
        body = bytes(size)
        frames = [encoder.publish(i + 1, qos, topic, body) for i in range(batch_messages)]
        # The PONG comes only when the publishes before the POLL are committed.
        barrier = encoder.poll(1, NO_SUBSCRIPTION) + encoder.ping(2)
        return cls(sock, b"".join(frames) + barrier, batch_messages, 2)

    def publish(self, batches: int, may_go_on: Callable[[int], None]) -> None:
        """Publish and wait for the last barrier. `may_go_on(published)` may hold it up."""
        ahead = 0
        for number in range(batches):
            may_go_on(number * self.batch_messages)
            self.sock.sendall(self.batch)
            ahead += 1
            if ahead == self.batches_ahead:
                receive_exactly(self.sock, PONG_BYTES)
                ahead -= 1
        receive_exactly(self.sock, ahead * PONG_BYTES)


@attrs.define
class Poller:
    """Polls many messages at a time, and acknowledges those of QoS 1."""

    sock: socket.socket
    subscription: int
    frame_bytes: int
    qos: int
    polls: bytes
    poll_count: int

    @classmethod
    def create(
        cls, sock: socket.socket, topic: bytes, qos: int, size: int, poll_count: int
    ) -> Poller:
        sock.sendall(encoder.subscribe(3, topic, qos))
        reply = receive_exactly(sock, ACK_BYTES)
        subscription = int.from_bytes(reply[HEADER_BYTES:])
        frame_bytes = len(encoder.publish(0, qos, topic, bytes(size)))
        polls = encoder.poll(4, subscription) * poll_count + encoder.ping(5)
        return cls(sock, subscription, frame_bytes, qos, polls, poll_count)

    def poll(self) -> int:
        """One round of polls; how many messages came."""
        self.sock.sendall(self.polls)
        received = bytearray()
        # The length alone does not tell: a part of a frame may be as long as a PONG.
        while len(received) % self.frame_bytes != PONG_BYTES or not received.endswith(PONG):
            chunk = self.sock.recv(1 << 20)
            if not chunk:
                raise ConnectionError("the broker closed the connection")
            received += chunk
        if self.qos and len(received) > PONG_BYTES:
            self._acknowledge(received[:-PONG_BYTES])
        return len(received) // self.frame_bytes

    def _acknowledge(self, frames: bytearray) -> None:
        count = len(frames) // self.frame_bytes
        acks = bytearray(encoder.ack(0, self.subscription) * count)
        for i in range(8):
            acks[5 + i :: ACK_BYTES] = frames[5 + i :: self.frame_bytes]
        self.sock.sendall(acks)
