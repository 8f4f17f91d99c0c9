"""Version 1 on raw sockets: rounds of POLLs, an ACK for each message, confirms by barriers."""

from __future__ import annotations

import pytest

from blipmq.protocol import encoder
from tools.bench.blipmq.poll import PublishCodec, SubscribeCodec
from tools.bench.load.arrivals import Arrivals
from tools.bench.load.body import body
from tools.bench.load.wire import Refused
from tools.bench.load.work import Guarantee, Work

ROUND_OVER = encoder.pong(1)
POLLS = encoder.poll(0, 7) * 3 + encoder.ping(1)


def message(
    tag: int, number: int, *, topic: bytes = b"t", stream: int = 0, size: int = 16
) -> bytes:
    return encoder.publish(tag, 1, topic, body(size, stream, number))


def subscriber(polls: bytes = POLLS, *, equal: bool = True) -> SubscribeCodec:
    return SubscribeCodec(Guarantee.AT_LEAST_ONCE, {b"t": 7, b"u": 8}, polls, equal)


def arrivals(topics: int = 1) -> Arrivals:
    return Arrivals(Work(guarantee=Guarantee.AT_LEAST_ONCE, messages=1, topics=topics), 0)


def take(codec: SubscribeCodec, data: bytes, found: Arrivals) -> int:
    return codec.take(bytearray(data), 0, len(data), found)


@pytest.mark.parametrize("equal", [True, False])
def test_a_round_is_acknowledged_when_it_is_over_and_the_next_asked_for(equal: bool) -> None:
    codec, found = subscriber(equal=equal), arrivals()
    take(codec, message(11, 0) + message(12, 1), found)
    assert (found.received, codec.answer()) == (2, b"")
    take(codec, message(13, 2) + ROUND_OVER, found)
    acks = b"".join(encoder.ack(tag, 7) for tag in (11, 12, 13))
    assert codec.answer() == acks + POLLS
    assert codec.answer() == b""


def test_a_round_may_end_before_all_its_polls_are_answered() -> None:
    codec, found = subscriber(), arrivals()
    data = message(11, 0) + ROUND_OVER
    assert take(codec, data, found) == len(data)
    assert codec.answer() == encoder.ack(11, 7) + POLLS


def test_a_poll_alone_is_answered_by_its_message() -> None:
    codec, found = subscriber(encoder.poll(0, 7)), arrivals()
    take(codec, message(11, 0), found)
    assert codec.answer() == encoder.ack(11, 7) + encoder.poll(0, 7)


def test_messages_are_acknowledged_to_the_subscription_of_their_topic() -> None:
    codec, found = subscriber(equal=False), arrivals(topics=2)
    take(codec, message(1, 0) + message(2, 0, topic=b"u", stream=1) + ROUND_OVER, found)
    assert codec.answer().startswith(encoder.ack(1, 7) + encoder.ack(2, 8))


def test_what_is_cut_off_stays_for_the_next_read() -> None:
    codec, found = subscriber(), arrivals()
    first, second = message(1, 0), message(2, 1)
    assert take(codec, first + second[:-1], found) == len(first)
    assert found.received == 1


def test_the_barrier_settles_what_is_left() -> None:
    codec, found = subscriber(), arrivals()
    take(codec, message(1, 0), found)
    assert codec.barrier() == encoder.ack(1, 7) + encoder.ping(2)
    take(codec, ROUND_OVER, found)
    assert not codec.settled
    take(codec, encoder.pong(2), found)
    assert codec.settled


def test_publishes_are_confirmed_up_to_the_fence_that_is_answered() -> None:
    codec = PublishCodec(Guarantee.AT_LEAST_ONCE)
    assert codec.fence(500).endswith(encoder.ping(500))
    assert codec.confirmed(encoder.pong(500)) == (len(encoder.pong(500)), 500)
    assert codec.confirmed(encoder.pong(700) + encoder.pong(800)[:5])[1] == 200


def test_at_most_once_there_are_no_fences() -> None:
    assert PublishCodec(Guarantee.AT_MOST_ONCE).fence(500) == b""


def test_a_refused_publish_is_told() -> None:
    with pytest.raises(Refused, match="empty topic"):
        PublishCodec(Guarantee.AT_LEAST_ONCE).confirmed(encoder.nack(1, 400, "empty topic"))
