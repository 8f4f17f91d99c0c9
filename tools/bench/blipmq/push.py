"""Version 2 as a wire protocol: CONFIRM to publishers, DELIVER to subscribers, SETTLE of ranges."""

from __future__ import annotations

import socket

import attrs

from blipmq.protocol import encoder
from blipmq.protocol.frames import (
    CONFIRM,
    DELIVER,
    HEADER,
    HEADER_BYTES,
    INFO,
    LENGTH_BYTES,
    PONG,
    PUBLISH,
    TOPIC_AT,
    TOPIC_LENGTH_AT,
    TYPE_AT,
    U16,
    U32,
    Outcome,
)
from tools.bench.blipmq.connection import attach, connect, refusal
from tools.bench.load.arrivals import Arrivals
from tools.bench.load.server import Address
from tools.bench.load.work import Guarantee, Work

PREFETCH = 5_000
_PING = encoder.ping(5)


@attrs.frozen
class PushProtocol:
    """Durable subscriptions at QoS 1, one for each subscriber and topic."""

    api_key: str
    prefetch: int = PREFETCH
    name: str = "blipmq 2"

    def prepare(self, address: Address, work: Work) -> None:
        """Where nobody subscribes, a subscription holds what is published at QoS 1."""
        with connect(address, self.api_key, version=2) as sock:
            if work.guarantee and not work.subscribers:
                for topic in range(work.topics):
                    attach(sock, work.topic(topic).encode(), b"bench-0")

    def conclude(self, address: Address, work: Work) -> None:
        """Delete the durable subscriptions."""
        if not work.guarantee:
            return
        with connect(address, self.api_key, version=2) as sock:
            for place in range(max(1, work.subscribers)):
                topics = work.subscriber_topics(place) if work.subscribers else range(work.topics)
                for topic in topics:
                    attach(sock, work.topic(topic).encode(), b"bench-%d" % place, delete=True)

    def publisher(
        self, address: Address, work: Work, place: int
    ) -> tuple[socket.socket, PublishCodec]:
        ring = work.cycle * len(work.publisher_topics(place))
        return connect(address, self.api_key, version=2), PublishCodec(work.guarantee, ring)

    def subscriber(
        self, address: Address, work: Work, place: int
    ) -> tuple[socket.socket, SubscribeCodec]:
        sock = connect(address, self.api_key, version=2)
        if (pattern := work.pattern(place)) is not None:
            attach(sock, pattern.encode(), None, qos=0, prefetch=self.prefetch, pattern=True)
            return sock, SubscribeCodec(work.guarantee, equal=False)
        name = b"bench-%d" % place if work.guarantee else None
        for topic in work.subscriber_topics(place):
            attach(
                sock,
                work.topic(topic).encode(),
                name,
                qos=int(work.guarantee),
                prefetch=self.prefetch,
            )
        return sock, SubscribeCodec(work.guarantee, equal=len(set(work.sizes)) == 1)


@attrs.define
class PublishCodec:
    """Correlation ids are places in the ring, from 1."""

    guarantee: Guarantee
    ring: int
    _last: int = 0

    def enclose(self, place: int, topic: str, body_bytes: int) -> tuple[bytes, bytes]:
        frame = encoder.publish(place + 1, int(self.guarantee), topic.encode(), bytes(body_bytes))
        return frame[:-body_bytes], b""

    def fence(self, sent: int) -> bytes:
        return b""

    def confirmed(self, data: bytes) -> tuple[int, int]:
        at = count = 0
        while len(data) - at >= HEADER_BYTES:
            length, type_, id_ = HEADER.unpack_from(data, at)
            following = at + LENGTH_BYTES + length
            if following > len(data):
                break
            if type_ == CONFIRM:
                count += (id_ - self._last) % self.ring
                self._last = id_ % self.ring
            elif type_ != INFO:
                raise refusal(data[at:following])
            at = following
        return at, count


@attrs.define
class SubscribeCodec:
    """`equal`: messages of one DELIVER are of one topic and one size."""

    guarantee: Guarantee
    equal: bool
    settled: bool = False
    _ranges: dict[int, tuple[int, int]] = attrs.Factory(dict)
    """First and last tag of what came for each attachment."""

    def begin(self) -> bytes:
        return b""

    def take(self, data: bytearray, start: int, end: int, arrivals: Arrivals) -> int:
        at = start
        while end - at >= HEADER_BYTES:
            length, type_, id_ = HEADER.unpack_from(data, at)
            following = at + LENGTH_BYTES + length
            if following > end:
                break
            if type_ == DELIVER:
                self._deliver(data, at + HEADER_BYTES, following, id_, arrivals)
            elif type_ == PONG:
                self.settled = True
            elif type_ != INFO:
                raise refusal(bytes(data[at:following]))
            at = following
        return at

    def _deliver(
        self, data: bytearray, start: int, stop: int, subscription: int, arrivals: Arrivals
    ) -> None:
        length, _, first = HEADER.unpack_from(data, start)
        stride = LENGTH_BYTES + length
        body_at = TOPIC_AT + U16.unpack_from(data, start + TOPIC_LENGTH_AT)[0]
        if self.equal and (stop - start) % stride == 0:
            count = (stop - start) // stride
            if data[start + TYPE_AT : stop : stride] != bytes((PUBLISH,)) * count:
                raise refusal(bytes(data[start:stop]))
            arrivals.column(data, start + body_at, stride, count)
            last_at = stop - stride
        else:
            last_at = self._walk(data, start, stop, arrivals)
        if self.guarantee:
            last = HEADER.unpack_from(data, last_at)[2]
            self._ranges[subscription] = (self._ranges.get(subscription, (first,))[0], last)

    def _walk(self, data: bytearray, start: int, stop: int, arrivals: Arrivals) -> int:
        """Where the last message begins."""
        at, last_at = start, start
        while at < stop:
            if data[at + TYPE_AT] != PUBLISH:
                raise refusal(bytes(data[at:stop]))
            topic_bytes = data[at + TOPIC_LENGTH_AT] << 8 | data[at + TOPIC_LENGTH_AT + 1]
            arrivals.one(data, at + TOPIC_AT + topic_bytes)
            last_at = at
            at += LENGTH_BYTES + U32.unpack_from(data, at)[0]
        return last_at

    def answer(self) -> bytes:
        if not self._ranges:
            return b""
        settlements = [
            encoder.settle(subscription, [(Outcome.ACCEPT, first, last, 0)])
            for subscription, (first, last) in self._ranges.items()
        ]
        self._ranges.clear()
        return b"".join(settlements)

    def barrier(self) -> bytes:
        return _PING
