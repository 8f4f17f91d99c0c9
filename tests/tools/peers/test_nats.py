"""NATS and JetStream as the load engine speaks to them, byte for byte and without a server."""

from __future__ import annotations

import pytest

from tools.bench.load.arrivals import Arrivals
from tools.bench.load.body import body
from tools.bench.load.wire import Refused
from tools.bench.load.work import Guarantee, Miscounted, Work
from tools.bench.peers.jetstream import JetStreamPublisher, JetStreamSubscriber
from tools.bench.peers.nats import CorePublisher, CoreSubscriber
from tools.bench.peers.nats_wire import PING, PONG, message, publish

CORE = Work(guarantee=Guarantee.AT_MOST_ONCE, messages=1, sizes=(16,), topic_prefix="bench")
STREAM = Work(guarantee=Guarantee.AT_LEAST_ONCE, messages=1, sizes=(16,), topic_prefix="bench")
ANSWER = b'MSG _INBOX.publisher0 1 30\r\n{"stream":"STREAM0", "seq":%d}\r\n'


def delivery(number: int) -> bytes:
    reply = b"$JS.ACK.STREAM0.CONSUMER0.1.%d.%d.1700000000000000000.0" % (number + 1, number + 1)
    return b"MSG deliveries.0 1 %b 16\r\n%b\r\n" % (reply, body(16, 0, number))


def reply_of(number: int) -> bytes:
    return delivery(number).split()[3]


def test_a_publish_names_topic_and_length() -> None:
    assert CorePublisher().enclose(0, "bench.0", 5) == (b"PUB bench.0 5\r\n", b"\r\n")


def test_a_publish_may_ask_for_an_answer() -> None:
    assert publish(b"a", 3, b"b") == b"PUB a b 3\r\n"


def test_a_question_of_the_server_is_answered_and_not_counted() -> None:
    subscriber, arrivals = CoreSubscriber(CORE, 0), Arrivals(CORE, 0)
    one, two = (message(b"bench.0", body(16, 0, number)) for number in (0, 1))
    data = bytearray(one + PING + two)
    assert subscriber.take(data, 0, len(data), arrivals) == len(data)
    assert (arrivals.received, subscriber.answer(), subscriber.settled) == (2, PONG, False)


def test_the_answer_to_the_barrier_settles() -> None:
    subscriber, arrivals = CoreSubscriber(CORE, 0), Arrivals(CORE, 0)
    assert subscriber.barrier() == PING
    data = bytearray(PONG)
    subscriber.take(data, 0, len(data), arrivals)
    assert subscriber.answer() == b""
    assert subscriber.settled


def test_an_error_of_the_server_is_refused() -> None:
    with pytest.raises(Refused, match="Permissions"):
        CorePublisher().confirmed(b"-ERR 'Permissions Violation'\r\n")


@pytest.mark.parametrize("piece_bytes", [1, 10, 1000])
def test_answers_of_a_stream_confirm_however_they_are_cut(piece_bytes: int) -> None:
    publisher = JetStreamPublisher(b"_INBOX.publisher0")
    data = b"".join(ANSWER % number for number in range(1, 8)) + PING + ANSWER % 8
    rest, total = b"", 0
    for at in range(0, len(data), piece_bytes):
        rest += data[at : at + piece_bytes]
        taken, confirmed = publisher.confirmed(rest)
        rest, total = rest[taken:], total + confirmed
    assert (total, rest) == (8, b"")


def test_an_answer_that_is_an_error_is_refused() -> None:
    with pytest.raises(Refused, match="maximum bytes"):
        JetStreamPublisher(b"i").confirmed(
            b'MSG i 1 9\r\n{"error":{"code":503,"maximum bytes"}}\r\n'
        )


def test_every_delivery_of_a_stream_is_acknowledged_by_its_reply_subject() -> None:
    subscriber, arrivals = JetStreamSubscriber(STREAM, 0), Arrivals(STREAM, 0)
    half = delivery(2)[:-9]
    data = bytearray(delivery(0) + PING + delivery(1) + half)
    assert subscriber.take(data, 0, len(data), arrivals) == len(data) - len(half)
    acks = b"".join(b"PUB %b 0\r\n\r\n" % reply_of(number) for number in (0, 1))
    answer = subscriber.answer()
    assert answer.replace(PONG, b"") == acks
    assert answer.count(PONG) == 1
    assert (arrivals.received, subscriber.answer()) == (2, b"")


def test_a_delivery_that_comes_twice_is_found() -> None:
    data = bytearray(delivery(0) + delivery(0))
    with pytest.raises(Miscounted):
        JetStreamSubscriber(STREAM, 0).take(data, 0, len(data), Arrivals(STREAM, 0))


@pytest.mark.parametrize(("pending", "settled"), [(3, False), (0, True)])
def test_a_consumer_is_settled_when_the_server_waits_for_nothing(
    pending: int, settled: bool
) -> None:
    subscriber = JetStreamSubscriber(STREAM, 0)
    information = b'{"num_pending":0,"num_ack_pending":%d}' % pending
    data = bytearray(b"MSG _INBOX.subscriber0 2 %d\r\n%b\r\n" % (len(information), information))
    assert subscriber.take(data, 0, len(data), Arrivals(STREAM, 0)) == len(data)
    assert subscriber.settled is settled
    assert subscriber.answer() == (b"" if settled else subscriber.barrier())
