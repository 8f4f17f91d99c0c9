"""QoS 1 subscriptions whose connection has ended."""

from __future__ import annotations

from blipmq.broker.limits import Retention
from blipmq.broker.stats import DropReason
from tests.broker.world import World

EXPIRY = 60.0
SOON = 0.001


def world() -> World:
    return World.create(retention=Retention(session_expiry_ms=int(EXPIRY * 1000)))


def test_the_next_subscribe_takes_it_over_with_its_position() -> None:
    here = world()
    client = here.connect()
    subscription = client.subscribe(b"t")
    client.publish(b"t", b"one", b"two")
    received = client.poll(subscription)
    assert received is not None
    client.ack(subscription, received.tag)
    client.disconnect()
    here.connect().publish(b"t", b"while away")

    client = here.connect()

    assert client.subscribe(b"t") == subscription
    assert client.poll_all(subscription) == [b"two", b"while away"]


def test_what_was_not_settled_comes_with_it() -> None:
    here = world()
    client = here.connect()
    subscription = client.subscribe(b"t")
    client.publish(b"t", b"x")
    client.poll(subscription)
    client.disconnect()

    client = here.connect()

    assert client.poll_all(client.subscribe(b"t")) == [b"x"]


def test_of_several_the_one_that_was_parked_first_is_taken_over_first() -> None:
    here = world()
    clients = [here.connect() for _ in range(3)]
    subscriptions = [client.subscribe(b"t") for client in clients]
    for index in (1, 0, 2):
        here.pass_time(1)
        clients[index].disconnect()

    client = here.connect()

    assert [client.subscribe(b"t") for _ in range(3)] == [subscriptions[i] for i in (1, 0, 2)]


def test_only_when_none_is_parked_a_new_one_is_made() -> None:
    here = world()
    client = here.connect()
    subscription = client.subscribe(b"t")
    assert client.subscribe(b"t") != subscription
    client.disconnect()
    client = here.connect()
    assert {client.subscribe(b"t"), client.subscribe(b"t")} >= {subscription}

    client.subscribe(b"t")

    assert here.broker.stats.subscriptions == 3


def test_another_key_does_not_take_it_over() -> None:
    here = world()
    client = here.connect()
    subscription = client.subscribe(b"t")
    client.publish(b"t", b"x")
    client.disconnect()

    stranger = here.connect(b"other key")
    other = stranger.subscribe(b"t")

    assert other != subscription
    assert stranger.poll(other) is None


def test_a_subscribe_to_another_topic_does_not_take_it_over() -> None:
    here = world()
    client = here.connect()
    subscription = client.subscribe(b"t")
    client.disconnect()

    assert here.connect().subscribe(b"u") != subscription


def test_a_subscribe_at_qos_0_does_not_take_it_over() -> None:
    here = world()
    client = here.connect()
    subscription = client.subscribe(b"t")
    client.disconnect()

    assert here.connect().subscribe(b"t", 0) != subscription


def test_a_qos_0_subscription_ends_with_its_connection() -> None:
    here = world()
    client = here.connect()
    subscription = client.subscribe(b"t", 0)
    client.publish(b"t", b"x", b"y", qos=0)
    client.disconnect()

    assert here.broker.stats.subscriptions == 0
    assert here.broker.stats.dropped[DropReason.DISCONNECTED] == 2
    assert here.connect().subscribe(b"t", 0) != subscription


def test_a_subscription_may_be_parked_and_taken_over_again_and_again() -> None:
    here = world()
    client = here.connect()
    subscription = client.subscribe(b"t")
    for i in range(5):
        client.disconnect()
        here.pass_time(EXPIRY - SOON)
        client = here.connect()
        assert client.subscribe(b"t") == subscription
        client.publish(b"t", b"%d" % i)

    assert client.poll_all(subscription) == [b"0", b"1", b"2", b"3", b"4"]


def test_one_that_nobody_takes_over_in_time_ends_and_what_it_held_is_counted() -> None:
    here = world()
    client = here.connect()
    subscription = client.subscribe(b"t")
    client.publish(b"t", b"one", b"two", b"three")
    client.poll(subscription)
    client.disconnect()

    here.pass_time(EXPIRY)

    client = here.connect()
    assert client.poll(subscription) is None
    assert here.broker.stats.subscriptions == 0
    assert here.broker.stats.dropped[DropReason.SUBSCRIPTION_EXPIRED] == 3
    assert client.subscribe(b"t") != subscription


def test_just_before_its_end_it_may_still_be_taken_over() -> None:
    here = world()
    client = here.connect()
    subscription = client.subscribe(b"t")
    client.disconnect()

    here.pass_time(EXPIRY - SOON)

    assert here.connect().subscribe(b"t") == subscription


def test_the_broker_says_when_a_parked_one_ends() -> None:
    here = world()
    client = here.connect()
    client.subscribe(b"t")
    assert here.broker.next_deadline is None

    client.disconnect()

    assert here.broker.next_deadline == here.now + EXPIRY


def test_one_that_was_taken_over_does_not_end() -> None:
    here = world()
    client = here.connect()
    client.subscribe(b"t")
    client.disconnect()
    client = here.connect()
    subscription = client.subscribe(b"t")

    here.pass_time(2 * EXPIRY)
    client.publish(b"t", b"x")

    assert client.poll_all(subscription) == [b"x"]


def test_one_ends_while_another_connection_holds_a_message_of_it() -> None:
    here = world()
    client, colleague = here.connect(), here.connect()
    subscription = client.subscribe(b"t")
    client.publish(b"t", b"x")
    client.disconnect()
    here.pass_time(EXPIRY - SOON)
    assert colleague.poll(subscription) is not None

    here.pass_time(SOON)

    assert here.broker.stats.inflight == 0
    here.pass_time(EXPIRY)
    assert here.broker.stats.inflight == 0


def test_after_the_last_one_ended_messages_are_kept_for_the_next() -> None:
    here = world()
    client = here.connect()
    client.subscribe(b"t")
    client.publish(b"t", b"lost")
    client.disconnect()
    here.pass_time(EXPIRY)

    client = here.connect()
    client.publish(b"t", b"kept")

    assert client.poll_all(client.subscribe(b"t")) == [b"kept"]


def test_after_the_last_one_ended_messages_are_kept_though_a_qos_0_subscription_is_there() -> None:
    here = world()
    client, other = here.connect(), here.connect()
    client.subscribe(b"t", 1)
    other.subscribe(b"t", 0)
    client.disconnect()
    here.pass_time(EXPIRY)

    other.publish(b"t", b"kept")

    assert other.poll_all(other.subscribe(b"t", 1)) == [b"kept"]


def test_subscriptions_and_parked_ones_are_counted() -> None:
    here = world()
    client = here.connect()
    client.subscribe(b"t")
    client.subscribe(b"t")
    client.subscribe(b"t", 0)
    stats = here.broker.stats
    assert (stats.subscriptions, stats.subscriptions_parked) == (3, 0)

    client.disconnect()
    assert (stats.subscriptions, stats.subscriptions_parked) == (2, 2)
    client = here.connect()
    client.subscribe(b"t")
    assert (stats.subscriptions, stats.subscriptions_parked) == (2, 1)
    here.pass_time(EXPIRY)
    assert (stats.subscriptions, stats.subscriptions_parked) == (1, 0)
