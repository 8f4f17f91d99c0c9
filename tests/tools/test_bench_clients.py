"""The clients of the benchmarks miss nothing: a broker that lost a message would be found out."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import attrs
import pytest

from blipmq.protocol import encoder
from blipmq.protocol.frames import CORRELATION_ID_AT, U64, Outcome
from tools.bench.consumers import Consumer, consume
from tools.bench.load.wire import Refused
from tools.bench.publishers import Publishers, percentile

TOPIC = b"topic"
SIZE = 16
FRAME_BYTES = len(encoder.publish(0, 1, TOPIC, bytes(SIZE)))
SUBSCRIPTION = 7


@attrs.frozen
class Pair:
    """A client's socket, and that of the broker, moved by hand."""

    client: socket.socket
    broker: socket.socket

    def received(self) -> bytes:
        """What the client has sent."""
        return self.broker.recv(1 << 16)


@pytest.fixture
def pair() -> Iterator[Pair]:
    client, broker = socket.socketpair()
    with client, broker:
        broker.settimeout(5)
        client.settimeout(5)
        yield Pair(client, broker)


@pytest.fixture
def consumer(pair: Pair) -> Consumer:
    return Consumer(pair.client, SUBSCRIPTION, FRAME_BYTES)


def messages(*tags: int, size: int = SIZE) -> bytes:
    return b"".join(encoder.publish(tag, 1, TOPIC, bytes(size)) for tag in tags)


def deliver(*tags: int) -> bytes:
    return encoder.deliver_head(SUBSCRIPTION, len(messages(*tags))) + messages(*tags)


def ids(data: bytes) -> list[int]:
    return [
        U64.unpack_from(data, at + CORRELATION_ID_AT)[0] for at in range(0, len(data), FRAME_BYTES)
    ]


def test_pushed_messages_are_counted_and_settled(pair: Pair, consumer: Consumer) -> None:
    pair.broker.sendall(deliver(11, 12, 13) + deliver(14))
    consumer.receive()
    assert consumer.received == 4
    assert pair.received() == encoder.settle(SUBSCRIPTION, [(Outcome.ACCEPT, 1, 14, 0)])


def test_what_is_cut_off_is_counted_when_it_is_whole(pair: Pair, consumer: Consumer) -> None:
    data = deliver(11, 12)
    pair.broker.sendall(data[:30])
    consumer.receive()
    assert consumer.received == 0
    pair.broker.sendall(data[30:])
    consumer.receive()
    assert consumer.received == 2


@pytest.mark.parametrize("again", [13, 12, 5])
def test_a_message_that_comes_again_is_found(pair: Pair, consumer: Consumer, again: int) -> None:
    pair.broker.sendall(deliver(11, 12, 13) + deliver(again))
    with pytest.raises(ValueError, match="twice"):
        consumer.receive()


def test_a_message_that_comes_again_in_one_delivery_is_found(
    pair: Pair, consumer: Consumer
) -> None:
    pair.broker.sendall(deliver(11, 12, 12))
    with pytest.raises(ValueError, match="twice"):
        consumer.receive()


def test_a_message_of_another_size_is_found(pair: Pair, consumer: Consumer) -> None:
    other = messages(11, size=SIZE + 1)
    pair.broker.sendall(encoder.deliver_head(SUBSCRIPTION, len(other)) + other)
    with pytest.raises(ValueError, match="size"):
        consumer.receive()


def test_more_messages_than_were_published_are_found(pair: Pair, consumer: Consumer) -> None:
    pair.broker.sendall(deliver(11, 12, 13))
    with pytest.raises(ValueError, match="more"):
        list(consume([consumer], 2, 1))


def test_publishes_are_done_when_all_are_confirmed(pair: Pair) -> None:
    publishers = Publishers.on([pair.client], TOPIC, SIZE, window=4)
    pair.broker.sendall(encoder.confirm(3))
    publishers.publish(3)
    assert ids(pair.received()) == [1, 2, 3]
    assert (publishers.sent, publishers.confirmed) == (3, 3)
    assert sum(count for _, count in publishers.latencies) == 3


def test_the_ids_of_publishes_go_round(pair: Pair) -> None:
    publishers = Publishers.on([pair.client], TOPIC, SIZE, window=2)
    for last in (2, 4):
        pair.broker.sendall(encoder.confirm(last))
        publishers.publish(2)
    pair.received()
    pair.broker.sendall(encoder.confirm(1))
    publishers.publish(1)
    assert ids(pair.received()) == [1]
    assert publishers.confirmed == 5


def test_a_refused_publish_is_told(pair: Pair) -> None:
    publishers = Publishers.on([pair.client], TOPIC, SIZE, window=2)
    pair.broker.sendall(encoder.nack(1, 503, "backlog full"))
    with pytest.raises(Refused, match="backlog full"):
        publishers.publish(1)


def test_a_percentile_is_that_of_messages_not_of_sends() -> None:
    latencies = [(0.003, 1), (0.001, 98), (0.002, 1)]
    assert percentile(latencies, 0.5) == 0.001
    assert percentile(latencies, 0.99) == 0.002
    assert percentile(latencies, 1.0) == 0.003
