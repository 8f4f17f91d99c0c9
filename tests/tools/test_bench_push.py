"""Version 2 on raw sockets: bytes to counts, and back to settlements."""

from __future__ import annotations

import pytest

from blipmq.protocol import encoder
from blipmq.protocol.frames import Outcome
from tools.bench.blipmq.push import PublishCodec, SubscribeCodec
from tools.bench.load.arrivals import Arrivals
from tools.bench.load.body import body
from tools.bench.load.wire import Refused
from tools.bench.load.work import Guarantee, Miscounted, Work

ONCE, AT_LEAST = Guarantee.AT_MOST_ONCE, Guarantee.AT_LEAST_ONCE


def message(
    tag: int, number: int, *, topic: bytes = b"t", stream: int = 0, size: int = 16
) -> bytes:
    return encoder.publish(tag, 1, topic, body(size, stream, number))


def deliver(subscription: int, *messages: bytes) -> bytes:
    inner = b"".join(messages)
    return encoder.deliver_head(subscription, len(inner)) + inner


def arrivals(**options: object) -> Arrivals:
    work = {"guarantee": AT_LEAST, "messages": 1, **options}
    return Arrivals(Work(**work), 0)  # type: ignore[arg-type]


def take(codec: SubscribeCodec, data: bytes, found: Arrivals) -> int:
    return codec.take(bytearray(data), 0, len(data), found)


@pytest.mark.parametrize("equal", [True, False])
def test_messages_are_counted_and_settled_in_one_range(equal: bool) -> None:
    codec, found = SubscribeCodec(AT_LEAST, equal), arrivals()
    data = deliver(7, message(11, 0), message(12, 1)) + deliver(7, message(20, 2))
    assert take(codec, data, found) == len(data)
    assert found.received == 3
    assert codec.answer() == encoder.settle(7, [(Outcome.ACCEPT, 11, 20, 0)])
    assert codec.answer() == b""


def test_each_attachment_has_its_own_settlement() -> None:
    codec, found = SubscribeCodec(AT_LEAST, equal=True), arrivals(topics=2)
    take(codec, deliver(7, message(1, 0)) + deliver(8, message(2, 0, stream=1)), found)
    assert codec.answer() == b"".join(
        encoder.settle(id_, [(Outcome.ACCEPT, tag, tag, 0)]) for id_, tag in ((7, 1), (8, 2))
    )


def test_at_most_once_nothing_is_settled() -> None:
    codec, found = SubscribeCodec(ONCE, equal=True), arrivals()
    take(codec, deliver(7, message(1, 0)), found)
    assert (found.received, codec.answer()) == (1, b"")


def test_sizes_may_differ_within_a_delivery() -> None:
    codec, found = SubscribeCodec(AT_LEAST, equal=False), arrivals(sizes=(16, 99))
    take(codec, deliver(7, message(1, 0), message(2, 1, size=99), message(3, 2)), found)
    assert found.received == 3


def test_what_is_cut_off_stays_for_the_next_read() -> None:
    codec, found = SubscribeCodec(AT_LEAST, equal=True), arrivals()
    first, second = deliver(7, message(1, 0)), deliver(7, message(2, 1))
    assert take(codec, first + second[:-1], found) == len(first)
    assert found.received == 1


def test_a_redelivery_is_found() -> None:
    codec, found = SubscribeCodec(AT_LEAST, equal=True), arrivals()
    again = encoder.message(1, 1, b"t", b"", body(16, 0, 0))
    with pytest.raises(Refused):
        take(codec, deliver(7, again), found)


def test_a_message_that_comes_again_is_found() -> None:
    codec, found = SubscribeCodec(AT_LEAST, equal=True), arrivals()
    take(codec, deliver(7, message(1, 0)), found)
    with pytest.raises(Miscounted):
        take(codec, deliver(7, message(1, 0)), found)


def test_a_nack_is_told() -> None:
    with pytest.raises(Refused, match="backlog full"):
        take(SubscribeCodec(AT_LEAST, equal=True), encoder.nack(1, 503, "backlog full"), arrivals())


def test_the_barrier_is_settled_by_its_pong() -> None:
    codec = SubscribeCodec(AT_LEAST, equal=True)
    assert codec.barrier() == encoder.ping(5)
    take(codec, encoder.pong(5), arrivals())
    assert codec.settled


def test_confirms_are_cumulative_and_their_ids_go_round() -> None:
    codec = PublishCodec(AT_LEAST, ring=8)
    data = encoder.confirm(3) + encoder.confirm(8)
    assert codec.confirmed(data) == (len(data), 8)
    assert codec.confirmed(encoder.confirm(2)) == (len(encoder.confirm(2)), 2)


def test_half_a_confirm_is_none() -> None:
    data = encoder.confirm(3)
    assert PublishCodec(AT_LEAST, ring=8).confirmed(data + data[:-1]) == (len(data), 3)


def test_a_refused_publish_is_told() -> None:
    with pytest.raises(Refused, match="backlog full"):
        PublishCodec(AT_LEAST, ring=8).confirmed(encoder.nack(1, 503, "backlog full"))


def test_a_frame_goes_around_its_body() -> None:
    before, after = PublishCodec(AT_LEAST, ring=8).enclose(4, "topic", 16)
    content = body(16, 0, 0)
    assert before + content + after == encoder.publish(5, 1, b"topic", content)
