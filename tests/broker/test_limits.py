"""What the broker refuses, and that it takes it again when there is room."""

from __future__ import annotations

import pytest

from blipmq.broker.limits import Limits, Retention
from blipmq.broker.message import OVERHEAD_BYTES
from blipmq.broker.stats import DropReason
from blipmq.errors import NotPermitted, PublishFailed
from blipmq.protocol import encoder
from tests.broker.world import Publisher, World, message_bytes, refusals

BODY = bytes(1_000)
MESSAGE_BYTES = len(encoder.publish(1, 1, b"t", BODY)) + OVERHEAD_BYTES
NAME_BYTES = len(b"t") + OVERHEAD_BYTES


def small() -> tuple[World, Publisher]:
    """A broker with memory for two messages, of which one waits in subscription 1."""
    world = World.create(Limits(max_memory_bytes=8 * (2 * MESSAGE_BYTES + 2 * NAME_BYTES) // 7))
    publisher = Publisher(world)
    assert world.broker.subscribe("owner", b"t", 1, publisher, world.now) == 1
    publisher.publish(b"t", BODY)
    return world, publisher


def test_a_qos_1_message_that_memory_has_no_room_for_is_refused() -> None:
    _, publisher = small()
    publisher.publish(b"t", BODY)

    with pytest.raises(PublishFailed, match="durable publish failed: memory limit reached"):
        publisher.publish(b"t", b"")


def test_a_qos_0_message_that_memory_has_no_room_for_is_dropped_and_counted() -> None:
    world, publisher = small()
    publisher.publish(b"t", BODY)

    publisher.publish(b"t", b"", b"", qos=0)

    assert world.broker.stats.dropped[DropReason.MEMORY] == 2
    assert world.broker.stats.published == [0, 2]


def test_a_run_is_refused_as_a_whole() -> None:
    world, publisher = small()

    with pytest.raises(PublishFailed):
        publisher.publish(b"t", BODY, BODY)

    assert world.broker.stats.published == [0, 1]
    assert world.broker.take("owner", 1, publisher, world.now) is not None
    assert world.broker.take("owner", 1, publisher, world.now) is None


def test_there_is_room_again_once_messages_are_settled() -> None:
    world, publisher = small()
    publisher.publish(b"t", BODY)
    taken = world.broker.take("owner", 1, publisher, world.now)
    assert taken is not None
    world.broker.accept("owner", 1, taken.tag)
    del taken

    publisher.publish(b"t", BODY)

    assert message_bytes(world.broker) == 2 * MESSAGE_BYTES


def test_a_refused_message_is_answered_by_a_nack() -> None:
    client = World.create(Limits(max_memory_bytes=10_000)).connect()
    while not (replies := client.publish(b"t", bytes(1_000))):
        assert client.world.broker.stats.published[1] < 10

    assert refusals(replies) == [
        (client.calls, 500, "durable publish failed: memory limit reached")
    ]


def test_messages_to_more_topics_than_allowed_are_refused() -> None:
    client = World.create(Limits(max_topics=2)).connect()
    client.publish(b"t", b"")
    client.publish(b"u", b"")

    replies = client.send(encoder.publish(5, 1, b"v", b""), encoder.publish(6, 1, b"t", b""))

    assert refusals(replies) == [(5, 429, "too many topics")]


def test_subscriptions_to_more_topics_than_allowed_are_refused() -> None:
    client = World.create(Limits(max_topics=1)).connect()
    client.subscribe(b"t")
    client.subscribe(b"t")

    replies = client.send(encoder.subscribe(5, b"u", 1))

    assert refusals(replies) == [(5, 429, "too many topics")]


def test_a_topic_that_was_forgotten_makes_room_for_another() -> None:
    world = World.create(Limits(max_topics=1))
    client = world.connect()
    client.subscribe(b"t", 0)
    client.disconnect()

    assert world.connect().subscribe(b"u")


def test_a_qos_0_message_that_nobody_wants_takes_no_topic() -> None:
    world = World.create(Limits(max_topics=1))
    client = world.connect()
    client.publish(b"t", b"", qos=0)

    assert world.broker.stats.topics == 0


def test_more_subscriptions_than_allowed_are_refused_parked_ones_included() -> None:
    world = World.create(Limits(max_subscriptions=2))
    client = world.connect()
    client.subscribe(b"t")
    client.disconnect()
    client = world.connect()
    client.subscribe(b"u", 0)

    assert refusals(client.send(encoder.subscribe(5, b"v", 1))) == [
        (5, 429, "too many subscriptions")
    ]


def test_a_parked_subscription_is_taken_over_though_no_more_may_be_made() -> None:
    world = World.create(Limits(max_subscriptions=1))
    client = world.connect()
    subscription = client.subscribe(b"t")
    client.disconnect()

    assert world.connect().subscribe(b"t") == subscription


@pytest.mark.parametrize("qos", [0, 1])
def test_while_draining_publishes_are_refused(qos: int) -> None:
    world = World.create()
    client = world.connect()
    world.broker.draining = True

    replies = client.send(*(encoder.publish(id_, qos, b"t", b"") for id_ in (5, 6)))

    assert refusals(replies) == [(5, 503, "draining"), (6, 503, "draining")]


def test_while_draining_messages_are_delivered_and_settled() -> None:
    world = World.create()
    client = world.connect()
    subscription = client.subscribe(b"t")
    client.publish(b"t", b"x")
    world.broker.draining = True

    received = client.poll(subscription)

    assert received is not None
    assert client.ack(subscription, received.tag) == []


@pytest.mark.parametrize("topic", [b"$", b"$dead.t"])
@pytest.mark.parametrize("qos", [0, 1])
def test_clients_may_not_publish_to_the_brokers_own_topics(topic: bytes, qos: int) -> None:
    with pytest.raises(NotPermitted, match="not permitted"):
        Publisher(World.create()).publish(topic, b"", qos=qos)


def test_a_subscription_that_was_refused_takes_no_number_of_kept_messages() -> None:
    world = World.create(Limits(max_subscriptions=0), Retention(kept_messages=10))
    client = world.connect()
    client.publish(b"t", b"kept")
    client.send(encoder.subscribe(5, b"t", 1))

    (topic,) = world.broker.checkpoint().kept
    assert topic[0] == b"t"
