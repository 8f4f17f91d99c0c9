"""Who gets what, in which order, in which bytes."""

from __future__ import annotations

import pytest

from blipmq.broker.stats import DropReason
from blipmq.protocol import encoder
from tests.broker.world import World, parse
from tests.protocol.reference import Read


@pytest.mark.parametrize(
    ("published", "subscribed", "delivered"), [(0, 0, 0), (0, 1, 0), (1, 0, 0), (1, 1, 1)]
)
def test_a_delivery_has_the_lower_qos_of_publisher_and_subscription(
    published: int, subscribed: int, delivered: int
) -> None:
    client = World.create().connect()
    subscription = client.subscribe(b"t", subscribed)
    client.publish(b"t", b"x", qos=published)

    received = client.poll(subscription)

    assert received is not None
    assert received.qos == delivered


@pytest.mark.parametrize(("published", "subscribed"), [(0, 0), (0, 1), (1, 0)])
def test_at_qos_0_a_delivery_carries_the_correlation_id_of_its_poll(
    published: int, subscribed: int
) -> None:
    client = World.create().connect()
    subscription = client.subscribe(b"t", subscribed)
    client.publish(b"t", b"x", qos=published)

    (reply,) = client.send(encoder.poll(4711, subscription))

    assert reply == encoder.publish(4711, 0, b"t", b"x")


def test_at_qos_1_a_delivery_is_the_published_frame_but_for_the_number() -> None:
    client = World.create().connect()
    subscriptions = [client.subscribe(b"t"), client.subscribe(b"t")]
    frames = [encoder.publish(5, 1, b"t", bytes(range(256))), encoder.publish(6, 1, b"t", b"")]
    client.send(*frames)

    for subscription in subscriptions:
        for frame in frames:
            (reply,) = client.send(encoder.poll(7, subscription))
            assert reply[:5] == frame[:5]
            assert reply[13:] == frame[13:]


def test_every_subscription_gets_a_message_under_the_same_number() -> None:
    client = World.create().connect()
    one, other = client.subscribe(b"t"), client.subscribe(b"t")
    client.publish(b"t", b"x")

    assert client.poll(one) == client.poll(other) is not None


def test_a_redelivery_repeats_the_bytes() -> None:
    world = World.create()
    client = world.connect()
    subscription = client.subscribe(b"t")
    client.publish(b"t", b"x")
    first = client.send(encoder.poll(5, subscription))

    world.pass_time(1)

    assert client.send(encoder.poll(6, subscription)) == first != []


def test_first_deliveries_come_in_publish_order_whatever_their_qos() -> None:
    world = World.create()
    publishers = [world.connect(), world.connect()]
    client = world.connect()
    subscription = client.subscribe(b"t")
    bodies = [b"%d" % i for i in range(40)]
    for i, body in enumerate(bodies):
        publishers[i // 3 % 2].publish(b"t", body, qos=i // 5 % 2)

    assert client.poll_all(subscription) == bodies


def test_numbers_grow_with_the_order_of_publishing() -> None:
    client = World.create().connect()
    subscriptions = [client.subscribe(topic) for topic in (b"t", b"u")]
    tags = []
    for _ in range(5):
        for subscription, topic in zip(subscriptions, (b"t", b"u"), strict=True):
            client.publish(topic, b"x")
            received = client.poll(subscription)
            assert received is not None
            tags.append(received.tag)

    assert tags == sorted(set(tags))


def test_subscriptions_do_not_wait_for_each_other() -> None:
    client = World.create().connect()
    fast, slow = client.subscribe(b"t"), client.subscribe(b"t")
    client.publish(b"t", b"one", b"two", b"three")

    assert client.poll_all(fast) == [b"one", b"two", b"three"]
    assert client.poll_all(slow) == [b"one", b"two", b"three"]


def test_connections_that_poll_one_subscription_share_its_messages() -> None:
    world = World.create()
    client, colleague = world.connect(), world.connect()
    subscription = client.subscribe(b"t")
    client.publish(b"t", b"one", b"two", b"three")

    polls = [peer.poll(subscription) for peer in (client, colleague, client)]

    assert [received and received.body for received in polls] == [b"one", b"two", b"three"]


def test_a_subscription_gets_its_topic_and_no_other() -> None:
    client = World.create().connect()
    subscription = client.subscribe(b"t")
    client.publish(b"T", b"other")
    client.publish(b"t/", b"other")

    assert client.poll(subscription) is None


def test_a_second_qos_1_subscription_gets_nothing_from_before() -> None:
    client = World.create().connect()
    client.subscribe(b"t")
    client.publish(b"t", b"before")
    late = client.subscribe(b"t")
    client.publish(b"t", b"after")

    assert client.poll_all(late) == [b"after"]


def test_a_second_qos_1_subscription_gets_nothing_that_was_on_its_way_before() -> None:
    world = World.create(durable=True)
    client = world.connect()
    client.subscribe(b"t")
    world.connect().publish(b"t", b"before")
    late = client.subscribe(b"t")
    world.commit()

    assert client.poll_all(late) == []


def test_a_qos_0_subscription_gets_nothing_from_before() -> None:
    client = World.create().connect()
    client.subscribe(b"t", 0)
    client.publish(b"t", b"before", qos=0)
    client.publish(b"t", b"before", qos=1)
    late = client.subscribe(b"t", 0)
    client.publish(b"t", b"after", qos=0)

    assert client.poll_all(late) == [b"after"]


def test_a_qos_0_message_that_nobody_subscribed_to_is_dropped_and_counted() -> None:
    client = World.create().connect()
    client.publish(b"t", b"x", b"y", qos=0)

    assert client.poll_all(client.subscribe(b"t")) == []
    assert client.world.broker.stats.published == [2, 0]
    assert client.world.broker.stats.dropped[DropReason.NO_SUBSCRIBER] == 2


def test_publishes_and_deliveries_are_counted_by_qos() -> None:
    client = World.create().connect()
    lossy, durable = client.subscribe(b"t", 0), client.subscribe(b"t", 1)
    client.publish(b"t", b"x", b"y", b"z", qos=1)
    client.publish(b"t", b"x", qos=0)
    client.poll_all(lossy)
    client.poll_all(durable)

    stats = client.world.broker.stats
    assert stats.published == [1, 3]
    assert stats.delivered == [4 + 1, 3]


def test_a_long_run_is_delivered_message_by_message() -> None:
    client = World.create().connect()
    subscription = client.subscribe(b"t")
    bodies = [b"%04d" % i for i in range(500)]
    client.publish(b"t", *bodies)

    assert client.poll_all(subscription) == bodies


def test_deliveries_are_whole_frames() -> None:
    client = World.create().connect()
    subscription = client.subscribe(b"t")
    client.publish(b"t", b"x")

    (reply,) = client.send(encoder.poll(5, subscription))

    frame = parse(reply)
    assert reply == Read(frame.type, frame.correlation_id, frame.payload).data
