"""What happens to a message that was delivered and not settled."""

from __future__ import annotations

import pytest

from blipmq.broker.limits import Retries
from blipmq.broker.retry import backoff
from blipmq.broker.stats import DropReason
from tests.broker.world import Client, World, refusals

BACKOFF_MS = 100
BACKOFF = BACKOFF_MS / 1000
SOON = 0.001


def a_delivery(max_retries: int = 10) -> tuple[World, Client, int, int]:
    """A message that was delivered once: the subscription and the tag come last."""
    world = World.create(retries=Retries(max_retries, BACKOFF_MS))
    client = world.connect()
    subscription = client.subscribe(b"t")
    client.publish(b"t", b"x")
    received = client.poll(subscription)
    assert received is not None
    return world, client, subscription, received.tag


def test_an_unsettled_message_comes_back_after_the_backoff_and_not_before() -> None:
    world, client, subscription, _ = a_delivery()

    world.pass_time(BACKOFF - SOON)
    assert client.poll(subscription) is None
    world.pass_time(SOON)

    assert client.poll_all(subscription) == [b"x"]


def test_every_attempt_is_given_twice_the_time_of_the_one_before() -> None:
    world, client, subscription, _ = a_delivery()
    world.pass_time(BACKOFF)

    for wait in (BACKOFF * 2, BACKOFF * 4, BACKOFF * 8):
        assert client.poll_all(subscription) == [b"x"]
        world.pass_time(wait - SOON)
        assert client.poll(subscription) is None
        world.pass_time(2 * SOON)


def test_the_broker_says_when_a_retry_is_due() -> None:
    world, _, _, _ = a_delivery()

    assert world.broker.next_deadline == world.now + BACKOFF


@pytest.mark.parametrize("max_retries", [2, 3, 5])
def test_a_message_is_delivered_as_often_as_allowed_and_then_dropped(max_retries: int) -> None:
    world, client, subscription, _ = a_delivery(max_retries)

    deliveries = 1
    for _ in range(10):
        world.pass_time(1_000)
        deliveries += len(client.poll_all(subscription))

    assert deliveries == max_retries
    assert world.broker.stats.dropped[DropReason.MAX_RETRIES] == 1
    assert world.broker.stats.redelivered == max_retries - 1


@pytest.mark.parametrize("max_retries", [0, 1])
def test_with_no_or_one_delivery_allowed_a_message_is_delivered_once(max_retries: int) -> None:
    world, client, subscription, tag = a_delivery(max_retries)

    world.pass_time(BACKOFF)

    assert client.poll(subscription) is None
    assert refusals(client.ack(subscription, tag))[0][1] == 404
    assert world.broker.stats.dropped[DropReason.MAX_RETRIES] == 1


def test_a_settled_message_never_comes_back() -> None:
    world, client, subscription, tag = a_delivery()
    client.ack(subscription, tag)

    world.pass_time(1_000)
    client.disconnect()
    client = world.connect()

    assert client.subscribe(b"t") == subscription
    assert client.poll(subscription) is None


def test_an_ack_after_the_message_fell_due_and_before_it_was_delivered_again_counts() -> None:
    world, client, subscription, tag = a_delivery()
    world.pass_time(1)

    assert client.ack(subscription, tag) == []
    assert client.poll(subscription) is None


def test_an_ack_settles_a_redelivery() -> None:
    world, client, subscription, tag = a_delivery()
    world.pass_time(1)
    client.poll(subscription)

    assert client.ack(subscription, tag) == []
    world.pass_time(1_000)
    assert client.poll(subscription) is None


def test_a_message_that_fails_does_not_hold_up_those_that_waited_when_it_came_back() -> None:
    world, client, subscription, _ = a_delivery()
    client.publish(b"t", b"waiting")

    world.pass_time(1)

    assert client.poll_all(subscription) == [b"waiting", b"x"]


def test_messages_that_came_back_take_turns() -> None:
    world, client, subscription, _ = a_delivery()
    client.publish(b"t", b"y", b"z")

    polls = []
    for _ in range(6):
        world.pass_time(BACKOFF * 8)
        polls.append(client.poll(subscription))

    assert [received and received.body for received in polls] == [b"y", b"z", b"x"] * 2


def test_a_message_that_came_back_goes_before_those_that_were_published_later() -> None:
    world, client, subscription, _ = a_delivery()
    world.pass_time(1)
    client.publish(b"t", b"later")

    assert client.poll_all(subscription) == [b"x", b"later"]


def test_each_subscription_retries_for_itself() -> None:
    world = World.create()
    client = world.connect()
    one, other = client.subscribe(b"t"), client.subscribe(b"t")
    client.publish(b"t", b"x")
    received = client.poll(one)
    assert received is not None
    client.poll(other)
    client.ack(one, received.tag)

    world.pass_time(1)

    assert client.poll_all(one) == []
    assert client.poll_all(other) == [b"x"]


def test_a_lost_connection_gives_its_messages_back_at_once() -> None:
    world, client, subscription, _ = a_delivery()
    client.disconnect()

    assert world.connect().poll_all(subscription) == [b"x"]


def test_what_a_lost_connection_gives_back_goes_before_what_waits() -> None:
    world, client, subscription, _ = a_delivery()
    client.publish(b"t", b"waiting")
    client.disconnect()

    assert world.connect().poll_all(subscription) == [b"x", b"waiting"]


def test_a_delivery_that_was_lost_with_its_connection_counts_as_an_attempt() -> None:
    world, client, subscription, _ = a_delivery(max_retries=2)
    client.disconnect()
    again = world.connect()
    assert again.poll_all(subscription) == [b"x"]

    again.disconnect()

    assert world.connect().poll(subscription) is None
    assert world.broker.stats.dropped[DropReason.MAX_RETRIES] == 1


def test_a_lost_connection_leaves_what_others_hold_of_its_subscription() -> None:
    world = World.create()
    client, colleague = world.connect(), world.connect()
    subscription = client.subscribe(b"t")
    client.publish(b"t", b"one", b"two")
    client.poll(subscription)
    colleague.poll(subscription)

    client.disconnect()

    assert colleague.poll_all(subscription) == [b"one"]


def test_deliveries_in_flight_are_counted() -> None:
    world = World.create(retries=Retries(max_retries=2))
    client = world.connect()
    subscription = client.subscribe(b"t")
    client.publish(b"t", b"one", b"two", b"three")
    stats = world.broker.stats
    received = client.poll(subscription)
    assert received is not None
    client.poll_all(subscription)
    assert stats.inflight == 3

    client.ack(subscription, received.tag)
    assert stats.inflight == 2
    world.pass_time(1)
    assert stats.inflight == 0
    client.poll(subscription)
    assert stats.inflight == 1
    client.disconnect()
    assert stats.inflight == 0


def test_the_backoff_is_never_more_than_a_day() -> None:
    assert [backoff(100, attempt) for attempt in (1, 2, 3)] == [0.1, 0.2, 0.4]
    assert backoff(100, 60) == backoff(100, 65) == backoff(100, 10**6) == 24 * 60 * 60
