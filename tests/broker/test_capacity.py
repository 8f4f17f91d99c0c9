"""What happens to a subscription that is full."""

from __future__ import annotations

import pytest

from blipmq.broker.limits import Limits
from blipmq.broker.stats import DropReason
from tests.broker.world import World


def bodies(first: int, last: int) -> list[bytes]:
    return [b"%03d" % i for i in range(first, last + 1)]


@pytest.mark.parametrize("qos", [0, 1])
def test_a_full_subscription_drops_its_oldest_and_counts_them(qos: int) -> None:
    client = World.create(Limits(queue_capacity=10)).connect()
    subscription = client.subscribe(b"t", qos)
    client.publish(b"t", *bodies(1, 15), qos=qos)

    assert client.poll_all(subscription) == bodies(6, 15)
    assert client.world.broker.stats.dropped[DropReason.CAPACITY] == 5


def test_a_subscription_that_is_exactly_full_drops_nothing() -> None:
    client = World.create(Limits(queue_capacity=10)).connect()
    subscription = client.subscribe(b"t")
    for body in bodies(1, 10):
        client.publish(b"t", body)

    assert client.poll_all(subscription) == bodies(1, 10)


def test_unsettled_messages_count_and_are_not_dropped() -> None:
    client = World.create(Limits(queue_capacity=10)).connect()
    subscription = client.subscribe(b"t")
    client.publish(b"t", *bodies(1, 10))
    held = [client.poll(subscription) for _ in range(4)]
    client.publish(b"t", *bodies(11, 13))

    assert client.poll_all(subscription) == bodies(8, 13)
    assert all(received and client.ack(subscription, received.tag) == [] for received in held)


def test_a_subscription_whose_every_message_is_unsettled_drops_what_is_new() -> None:
    client = World.create(Limits(queue_capacity=3)).connect()
    subscription = client.subscribe(b"t")
    client.publish(b"t", *bodies(1, 3))
    client.poll_all(subscription)

    client.publish(b"t", b"new")

    assert client.poll(subscription) is None
    assert client.world.broker.stats.dropped[DropReason.CAPACITY] == 1


def test_a_message_that_came_back_is_older_than_those_that_wait() -> None:
    world = World.create(Limits(queue_capacity=3))
    client = world.connect()
    subscription = client.subscribe(b"t")
    client.publish(b"t", *bodies(1, 3))
    client.poll(subscription)
    world.pass_time(1)

    client.publish(b"t", b"new")

    assert client.poll_all(subscription) == [*bodies(2, 3), b"new"]


def test_only_the_full_subscription_loses_messages() -> None:
    client = World.create(Limits(queue_capacity=3)).connect()
    full, other = client.subscribe(b"t"), client.subscribe(b"t")
    got = []
    for body in bodies(1, 6):
        client.publish(b"t", body)
        received = client.poll(other)
        assert received is not None
        client.ack(other, received.tag)
        got.append(received.body)

    assert got == bodies(1, 6)
    assert client.poll_all(full) == bodies(4, 6)


def test_a_subscription_that_holds_too_many_bytes_drops_its_oldest() -> None:
    message = 16 + len(b"t") + 83
    client = World.create(Limits(queue_bytes=10 * message)).connect()
    subscription = client.subscribe(b"t")
    for i in range(15):
        client.publish(b"t", b"%083d" % i)

    assert list(map(int, client.poll_all(subscription))) == list(range(5, 15))
    assert client.world.broker.stats.dropped[DropReason.BYTES] == 5


def test_a_single_message_may_be_larger_than_the_bytes_a_subscription_holds() -> None:
    client = World.create(Limits(queue_bytes=100)).connect()
    subscription = client.subscribe(b"t")
    client.publish(b"t", bytes(1_000))

    assert client.poll_all(subscription) == [bytes(1_000)]


@pytest.mark.parametrize("qos", [0, 1])
def test_a_subscription_that_nobody_polls_holds_not_much_more_than_it_may(qos: int) -> None:
    world = World.create(Limits(queue_capacity=80))
    client = world.connect()
    client.subscribe(b"t", qos)
    for _ in range(1_000):
        client.publish(b"t", b"x", qos=qos)
        (backlog,) = world.broker.backlogs(1, world.now)
        assert backlog.messages <= 80 + 10

    assert world.broker.stats.dropped[DropReason.CAPACITY] >= 1_000 - 90


def test_a_message_that_was_dropped_is_settled_in_the_log() -> None:
    world = World.create(Limits(queue_capacity=2), durable=True)
    client = world.connect()
    subscription = client.subscribe(b"t")
    client.publish(b"t", *bodies(1, 3))
    world.commit()
    received = client.poll(subscription)
    assert received is not None

    batch = world.broker.handoff()

    assert batch is not None
    (fact,) = batch.facts
    assert (getattr(fact, "first", None), getattr(fact, "last", None)) == (
        received.tag - 1,
        received.tag - 1,
    )
