"""QoS 1 messages that no QoS 1 subscription matches."""

from __future__ import annotations

from blipmq.broker.limits import Limits, Retention
from blipmq.broker.stats import DropReason
from tests.broker.world import World, refusals


def test_they_are_kept_for_the_first_qos_1_subscription_in_their_order() -> None:
    client = World.create().connect()
    client.publish(b"t", b"one", b"two")
    client.publish(b"t", b"three")

    subscription = client.subscribe(b"t")
    client.publish(b"t", b"four")

    assert client.poll_all(subscription) == [b"one", b"two", b"three", b"four"]


def test_the_second_subscription_gets_none_of_them() -> None:
    client = World.create().connect()
    client.publish(b"t", b"kept")

    first, second = client.subscribe(b"t"), client.subscribe(b"t")

    assert client.poll_all(second) == []
    assert client.poll_all(first) == [b"kept"]


def test_a_qos_0_subscription_does_not_take_them() -> None:
    client = World.create().connect()
    client.publish(b"t", b"kept")

    assert client.poll_all(client.subscribe(b"t", 0)) == []
    assert client.poll_all(client.subscribe(b"t", 1)) == [b"kept"]


def test_they_are_kept_though_a_qos_0_subscription_gets_them() -> None:
    client = World.create().connect()
    lossy = client.subscribe(b"t", 0)
    client.publish(b"t", b"kept")

    assert client.poll_all(lossy) == [b"kept"]
    assert client.poll_all(client.subscribe(b"t")) == [b"kept"]


def test_qos_0_messages_are_not_kept() -> None:
    client = World.create().connect()
    client.subscribe(b"t", 0)
    client.publish(b"t", b"one", qos=1)
    client.publish(b"t", b"two", qos=0)
    client.publish(b"t", b"three", qos=1)

    assert client.poll_all(client.subscribe(b"t")) == [b"one", b"three"]


def test_beyond_the_limit_the_oldest_are_dropped_and_counted() -> None:
    client = World.create(retention=Retention(kept_messages=3)).connect()
    client.publish(b"t", b"1", b"2")
    client.publish(b"t", b"3", b"4", b"5")

    assert client.poll_all(client.subscribe(b"t")) == [b"3", b"4", b"5"]
    assert client.world.broker.stats.dropped[DropReason.KEPT] == 2


def test_the_limit_is_per_topic() -> None:
    client = World.create(retention=Retention(kept_messages=1)).connect()
    client.publish(b"t", b"x")
    client.publish(b"u", b"y")

    assert client.poll_all(client.subscribe(b"t")) == [b"x"]
    assert client.poll_all(client.subscribe(b"u")) == [b"y"]


def test_with_a_limit_of_none_the_topic_is_forgotten_at_once() -> None:
    client = World.create(retention=Retention(kept_messages=0)).connect()
    client.publish(b"t", b"x")

    assert client.world.broker.stats.topics == 0
    assert client.poll_all(client.subscribe(b"t")) == []


def test_one_of_them_may_be_settled_before_the_others_are_delivered() -> None:
    world = World.create()
    client = world.connect()
    client.publish(b"t", b"one", b"two", b"three", b"four")
    subscription = client.subscribe(b"t")
    first = client.poll(subscription)
    second = client.poll(subscription)
    assert first is not None
    assert second is not None

    client.ack(subscription, second.tag)
    world.pass_time(1)

    assert sorted(client.poll_all(subscription)) == [b"four", b"one", b"three"]
    assert client.ack(subscription, first.tag) == []


def test_one_that_came_back_does_not_let_later_messages_overtake_the_others() -> None:
    world = World.create()
    client = world.connect()
    client.publish(b"t", b"one", b"two")
    subscription = client.subscribe(b"t")
    client.publish(b"t", b"three")
    client.poll(subscription)

    world.pass_time(1)

    assert client.poll_all(subscription) == [b"two", b"three", b"one"]


def test_they_are_not_kept_while_a_parked_subscription_waits_for_them() -> None:
    world = World.create()
    client = world.connect()
    client.subscribe(b"t")
    client.disconnect()
    world.connect().publish(b"t", b"x")

    stranger = world.connect(b"other key")

    assert stranger.poll_all(stranger.subscribe(b"t")) == []


def test_the_first_subscription_gets_what_is_not_committed_yet_as_well() -> None:
    world = World.create(durable=True)
    client = world.connect()
    client.publish(b"t", b"committed")
    world.commit()
    client.publish(b"t", b"not yet")

    subscriber = world.connect()
    subscription = subscriber.subscribe(b"t")
    assert subscriber.poll_all(subscription) == [b"committed"]
    world.commit()

    assert subscriber.poll_all(subscription) == [b"not yet"]


def test_the_first_subscription_gets_no_qos_0_message_from_before_it() -> None:
    world = World.create(durable=True)
    client = world.connect()
    client.subscribe(b"t", 0)
    client.publish(b"t", b"one", qos=1)
    client.publish(b"t", b"two", qos=0)

    subscriber = world.connect()
    subscription = subscriber.subscribe(b"t")
    world.commit()

    assert subscriber.poll_all(subscription) == [b"one"]


def test_beyond_the_bytes_of_all_topics_the_topic_that_kept_first_loses_its_oldest() -> None:
    world = World.create(retention=Retention(kept_bytes=3_500))
    client = world.connect()
    for topic in (b"a", b"b", b"c", b"d"):
        client.publish(topic, bytes(1_000))

    assert world.broker.stats.dropped[DropReason.KEPT] == 1
    assert world.broker.stats.kept_messages == 3
    assert world.broker.stats.kept_bytes <= 3_500
    assert client.poll_all(client.subscribe(b"a")) == []
    assert client.poll_all(client.subscribe(b"b")) == [bytes(1_000)]
    assert world.broker.stats.kept_messages == 2


def test_one_that_was_never_delivered_cannot_be_settled() -> None:
    world = World.create()
    client = world.connect()
    client.publish(b"t", b"x")
    number = world.broker.context.next_number - 1
    subscription = client.subscribe(b"t")

    assert [refusal[1] for refusal in refusals(client.ack(subscription, number))] == [404]
    assert client.poll_all(subscription) == [b"x"]


def test_no_room_is_taken_by_qos_0_messages_from_before_the_first_subscription() -> None:
    world = World.create(Limits(queue_capacity=4), durable=True)
    client = world.connect()
    client.subscribe(b"t", 0)
    client.publish(b"t", b"one", qos=1)
    for _ in range(4):
        client.publish(b"t", b"zero", qos=0)
    subscriber = world.connect()
    subscription = subscriber.subscribe(b"t")
    world.commit()

    assert subscriber.poll_all(subscription) == [b"one"]


def test_qos_0_messages_whose_last_subscriber_left_before_they_were_visible_are_counted() -> None:
    world = World.create(durable=True)
    client, subscriber = world.connect(), world.connect()
    subscriber.subscribe(b"t", 0)
    client.publish(b"t", b"one", qos=1)
    client.publish(b"t", b"two", b"three", qos=0)
    subscriber.disconnect()
    world.commit()

    assert world.broker.stats.dropped[DropReason.NO_SUBSCRIBER] == 2
