"""Publish/subscribe of Redis: at most once, nothing is kept."""

from __future__ import annotations

import socket

import attrs

from tools.bench.load.arrivals import Arrivals
from tools.bench.load.server import Address
from tools.bench.load.stream import connect, receive_exactly
from tools.bench.load.wire import Refused
from tools.bench.load.work import Work
from tools.bench.peers.counting import Expected, Lap
from tools.bench.peers.redis_wire import before_last, command, refuse_errors

_PONG = command(b"pong", b"")


class PubSubPublisher:
    """Publishes are pipelined, and each is answered by the number of its receivers."""

    def enclose(self, place: int, topic: str, body_bytes: int) -> tuple[bytes, bytes]:
        return before_last(body_bytes, b"PUBLISH", topic.encode()), b"\r\n"

    def fence(self, sent: int) -> bytes:
        return b""

    def confirmed(self, data: bytes) -> tuple[int, int]:
        refuse_errors(data)
        return data.rfind(b"\n") + 1, 0


class PubSubSubscriber:
    """Every byte that comes is known beforehand."""

    def __init__(self, work: Work, place: int) -> None:
        lap = Lap.of(work, place, lambda topic, body: command(b"message", topic, body))
        self._expected = Expected(lap, (_PONG,))

    def begin(self) -> bytes:
        return b""

    def take(self, data: bytearray, start: int, end: int, arrivals: Arrivals) -> int:
        return self._expected.take(data, start, end, arrivals)

    def answer(self) -> bytes:
        return b""

    def barrier(self) -> bytes:
        return command(b"PING")

    @property
    def settled(self) -> bool:
        return bool(self._expected.interruptions)


@attrs.frozen
class RedisPubSub:
    """PUBLISH and SUBSCRIBE."""

    name: str = "Redis pub/sub"

    def prepare(self, address: Address, work: Work) -> None:
        if work.guarantee:
            raise Refused("publish/subscribe of Redis has no acknowledgements")

    def conclude(self, address: Address, work: Work) -> None:
        """Nothing is left."""

    def publisher(
        self, address: Address, work: Work, place: int
    ) -> tuple[socket.socket, PubSubPublisher]:
        return connect(address), PubSubPublisher()

    def subscriber(
        self, address: Address, work: Work, place: int
    ) -> tuple[socket.socket, PubSubSubscriber]:
        sock = connect(address)
        topics = [work.topic(topic).encode() for topic in work.subscriber_topics(place)]
        sock.sendall(command(b"SUBSCRIBE", *topics))
        for count, topic in enumerate(topics, 1):
            wanted = command(b"subscribe", topic).replace(b"*2", b"*3") + b":%d\r\n" % count
            if (came := receive_exactly(sock, len(wanted))) != wanted:
                raise Refused(came.decode(errors="replace"))
        return sock, PubSubSubscriber(work, place)
