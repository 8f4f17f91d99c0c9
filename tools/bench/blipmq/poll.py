"""Version 1 as a wire protocol: a POLL for every message, an ACK for every one of QoS 1.

`polls` of them go out together, followed by a PING whose PONG tells that no more answers come:
a POLL that finds nothing is not answered. With one at a time and everything published before,
no PING is needed.
"""

from __future__ import annotations

import socket

import attrs

from blipmq.protocol import encoder
from blipmq.protocol.frames import (
    CORRELATION_ID_AT,
    HEADER,
    HEADER_BYTES,
    LENGTH_BYTES,
    PONG,
    PUBLISH,
    TOPIC_AT,
    TOPIC_LENGTH_AT,
    TYPE_AT,
    U16,
)
from tools.bench.blipmq.connection import connect, refusal, subscribe
from tools.bench.load.arrivals import Arrivals
from tools.bench.load.server import Address
from tools.bench.load.work import Guarantee, Work

POLLS = 256
_NO_SUBSCRIPTION = 2**64 - 1
_ROUND = 1
_BARRIER = 2


@attrs.frozen
class PollProtocol:
    """A subscription for each subscriber and topic."""

    api_key: str
    polls: int = POLLS
    name: str = "blipmq 1"

    def prepare(self, address: Address, work: Work) -> None:
        """Nothing: subscriptions are made by those who poll them."""

    def conclude(self, address: Address, work: Work) -> None:
        """Nothing can be: a subscription of version 1 ends by itself."""

    def publisher(
        self, address: Address, work: Work, place: int
    ) -> tuple[socket.socket, PublishCodec]:
        return connect(address, self.api_key), PublishCodec(work.guarantee)

    def subscriber(
        self, address: Address, work: Work, place: int
    ) -> tuple[socket.socket, SubscribeCodec]:
        sock = connect(address, self.api_key)
        topics = [work.topic(topic).encode() for topic in work.subscriber_topics(place)]
        ids = {topic: subscribe(sock, topic, int(work.guarantee)) for topic in topics}
        polls = b"".join(encoder.poll(0, id_) for id_ in ids.values())
        if self.polls > 1:
            polls *= max(1, self.polls // len(ids))
        if not (self.polls == 1 and work.preload and len(ids) == 1):
            polls += encoder.ping(_ROUND)
        equal = len(ids) == 1 and len(set(work.sizes)) == 1
        return sock, SubscribeCodec(work.guarantee, ids, polls, equal=equal)


@attrs.define
class PublishCodec:
    """Confirmed is what is before a POLL that is answered in order: by nothing, and a PONG."""

    guarantee: Guarantee
    _confirmed: int = 0

    def enclose(self, place: int, topic: str, body_bytes: int) -> tuple[bytes, bytes]:
        frame = encoder.publish(place + 1, int(self.guarantee), topic.encode(), bytes(body_bytes))
        return frame[:-body_bytes], b""

    def fence(self, sent: int) -> bytes:
        if not self.guarantee:
            return b""
        return encoder.poll(0, _NO_SUBSCRIPTION) + encoder.ping(sent)

    def confirmed(self, data: bytes) -> tuple[int, int]:
        at = 0
        before = self._confirmed
        while len(data) - at >= HEADER_BYTES:
            length, type_, id_ = HEADER.unpack_from(data, at)
            following = at + LENGTH_BYTES + length
            if following > len(data):
                break
            if type_ != PONG:
                raise refusal(data[at:following])
            self._confirmed = id_
            at = following
        return at, self._confirmed - before


@attrs.define
class SubscribeCodec:
    """`polls` is a round of requests; `equal`: all messages have one topic and one size."""

    guarantee: Guarantee
    ids: dict[bytes, int]
    polls: bytes
    equal: bool
    settled: bool = False
    _acks: list[bytes | bytearray] = attrs.Factory(list)
    _over: bool = False
    """The round is: everything that it asked for has come."""

    def begin(self) -> bytes:
        return self.polls

    @property
    def _alone(self) -> bool:
        """Each round is one POLL and nothing else, so its answer is its end."""
        return len(self.polls) == len(encoder.poll(0, 0))

    def take(self, data: bytearray, start: int, end: int, arrivals: Arrivals) -> int:
        at = start
        while end - at >= HEADER_BYTES:
            length, type_, id_ = HEADER.unpack_from(data, at)
            following = at + LENGTH_BYTES + length
            if following > end:
                break
            if type_ == PUBLISH:
                at = self._take_messages(data, at, following - at, end, arrivals)
                self._over = self._alone
                continue
            if type_ != PONG:
                raise refusal(bytes(data[at:following]))
            if id_ == _BARRIER:
                self.settled = True
            else:
                self._over = True
            at = following
        return at

    def _take_messages(
        self, data: bytearray, at: int, stride: int, end: int, arrivals: Arrivals
    ) -> int:
        """Where the next frame begins."""
        body_at = at + TOPIC_AT + U16.unpack_from(data, at + TOPIC_LENGTH_AT)[0]
        count = 1
        if self.equal:
            # Frames of one size end where another type begins, for up to there all begin as they
            # seem to.
            types = data[at + TYPE_AT : at + (end - at) // stride * stride : stride]
            count = len(types) - len(types.lstrip(bytes((PUBLISH,))))
            arrivals.column(data, body_at, stride, count)
        else:
            arrivals.one(data, body_at)
        if self.guarantee:
            subscription = self.ids[bytes(data[at + TOPIC_AT : body_at])]
            acks = bytearray(encoder.ack(0, subscription) * count)
            ack_bytes = len(acks) // count
            for column in range(CORRELATION_ID_AT, HEADER_BYTES):
                acks[column::ack_bytes] = data[at + column : at + count * stride : stride]
            self._acks.append(acks)
        return at + count * stride

    def answer(self) -> bytes:
        if not self._over:
            return b""
        self._over = False
        answer = b"".join([*self._acks, self.polls])
        self._acks.clear()
        return answer

    def barrier(self) -> bytes:
        acks = b"".join(self._acks)
        self._acks.clear()
        return acks + encoder.ping(_BARRIER)
