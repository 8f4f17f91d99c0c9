"""AMQP 0-9-1 as the load engine speaks it, byte for byte and without a server."""

from __future__ import annotations

import pytest

from tools.bench.load.arrivals import Arrivals
from tools.bench.load.body import body
from tools.bench.load.wire import Refused
from tools.bench.load.work import Guarantee, Miscounted, Work
from tools.bench.peers.amqp_wire import QOS_OK, ack, deliver, method, publish, table
from tools.bench.peers.rabbitmq import ConfirmedPublisher, QueueSubscriber

WORK = Work(guarantee=Guarantee.AT_LEAST_ONCE, messages=1, sizes=(16,), topic_prefix="bench")


def confirmed(*acks: bytes) -> int:
    """By one publisher, whose confirms come one at a time."""
    publisher = ConfirmedPublisher(persistent=True)
    return sum(publisher.confirmed(each)[1] for each in acks)


def test_a_method_is_framed_with_channel_and_length() -> None:
    assert ack(5, multiple=True) == (b"\x01\0\x01\0\0\0\x0d\0\x3c\0\x50\0\0\0\0\0\0\0\x05\x01\xce")


def test_a_table_holds_strings() -> None:
    assert table({b"k": b"vv"}) == b"\0\0\0\x09\x01kS\0\0\0\x02vv"


def test_a_publish_is_a_method_a_header_and_a_body() -> None:
    before, after = ConfirmedPublisher(persistent=True).enclose(0, "bench.0", 300)
    assert before + bytes(300) + after == publish(b"bench.0", bytes(300), persistent=True)


@pytest.mark.parametrize(("persistent", "mode"), [(True, 2), (False, 1)])
def test_a_durable_message_says_so(persistent: bool, mode: int) -> None:
    assert b"\x10\0" + bytes([mode]) in publish(b"t", b"x", persistent=persistent)


def test_a_confirm_of_several_counts_each_once() -> None:
    assert confirmed(ack(3, multiple=True), ack(4, multiple=False), ack(9, multiple=True)) == 9


def test_confirms_may_come_out_of_order() -> None:
    assert confirmed(ack(2, multiple=False), ack(4, multiple=False), ack(5, multiple=True)) == 5


def test_a_message_confirmed_twice_is_an_error() -> None:
    with pytest.raises(Miscounted):
        confirmed(ack(2, multiple=True), ack(2, multiple=False))


def test_half_a_confirm_waits_for_the_rest() -> None:
    data = ack(1, multiple=False) + ack(2, multiple=False)[:-1]
    assert ConfirmedPublisher(persistent=True).confirmed(data) == (21, 1)


def test_anything_but_a_confirm_is_refused() -> None:
    nack = method((60, 120), bytes(8) + b"\0")
    with pytest.raises(Refused):
        ConfirmedPublisher(persistent=True).confirmed(nack)


def test_deliveries_are_acknowledged_up_to_the_last() -> None:
    subscriber = QueueSubscriber(WORK, 0, persistent=True)
    arrivals = Arrivals(WORK, 0)
    came = [
        deliver(b"bench.0", body(16, 0, number), number + 1, persistent=True) for number in range(3)
    ]
    data = bytearray(b"".join(came) + came[0][:9])
    assert subscriber.take(data, 0, len(data), arrivals) == len(data) - 9
    assert (arrivals.received, subscriber.answer()) == (3, ack(3, multiple=True))
    assert subscriber.answer() == b""


def test_a_tag_that_is_not_the_next_is_an_error() -> None:
    data = bytearray(deliver(b"bench.0", body(16, 0, 0), 2, persistent=True))
    with pytest.raises(Miscounted):
        QueueSubscriber(WORK, 0, persistent=True).take(data, 0, len(data), Arrivals(WORK, 0))


def test_the_answer_to_the_barrier_settles() -> None:
    subscriber = QueueSubscriber(WORK, 0, persistent=True)
    data = bytearray(method(QOS_OK))
    assert subscriber.take(data, 0, len(data), Arrivals(WORK, 0)) == len(data)
    assert subscriber.settled
