"""What a time to live does to messages."""

from __future__ import annotations

import pytest

from blipmq.broker.limits import Retention, Retries
from blipmq.broker.stats import DropReason
from blipmq.protocol.properties import MessageProperties
from tests.broker.attached import Member
from tests.broker.world import World, refusals

TTL = 1.0
SOON = 0.001


def mortal() -> World:
    return World.create(retention=Retention(message_ttl_ms=int(TTL * 1000), dead_letters=False))


@pytest.mark.parametrize("qos", [0, 1])
def test_a_waiting_message_expires_when_its_time_is_over_and_not_before(qos: int) -> None:
    world = mortal()
    client = world.connect()
    early, late = client.subscribe(b"t", qos), client.subscribe(b"t", qos)
    client.publish(b"t", b"x", qos=qos)

    world.pass_time(TTL - SOON)
    assert client.poll_all(early) == [b"x"]
    world.pass_time(SOON)
    assert client.poll_all(late) == []


def test_a_message_that_nobody_polls_for_expires_by_itself_and_is_counted() -> None:
    world = mortal()
    client = world.connect()
    client.subscribe(b"t")
    client.publish(b"t", b"x", b"y")

    world.pass_time(TTL)

    assert world.broker.stats.expired == 2
    assert world.broker.backlogs(1, world.now)[0].messages == 0


def test_when_everything_has_expired_nothing_is_due() -> None:
    world = mortal()
    client = world.connect()
    client.subscribe(b"t")
    client.publish(b"t", b"x")

    world.pass_time(TTL)

    assert world.broker.next_deadline is None


def test_messages_expire_one_after_the_other() -> None:
    world = mortal()
    client = world.connect()
    subscription = client.subscribe(b"t")
    for body in (b"one", b"two", b"three"):
        client.publish(b"t", body)
        world.pass_time(TTL / 4)
    assert world.broker.stats.expired == 0

    world.pass_time(TTL / 4)
    assert world.broker.stats.expired == 1
    world.pass_time(TTL / 4)
    assert world.broker.stats.expired == 2
    assert client.poll_all(subscription) == [b"three"]


def test_an_unsettled_message_that_comes_back_too_late_has_expired() -> None:
    world = mortal()
    client = world.connect()
    subscription = client.subscribe(b"t")
    client.publish(b"t", b"x")
    world.pass_time(TTL - SOON)
    received = client.poll(subscription)
    assert received is not None

    world.pass_time(1)

    assert client.poll(subscription) is None
    assert world.broker.stats.expired == 1
    assert refusals(client.ack(subscription, received.tag))[0][1] == 404


def test_an_unsettled_message_may_be_settled_after_its_time_is_over() -> None:
    world = mortal()
    client = world.connect()
    subscription = client.subscribe(b"t")
    client.publish(b"t", b"x")
    world.pass_time(TTL - SOON)
    received = client.poll(subscription)
    assert received is not None
    world.pass_time(2 * SOON)

    assert client.ack(subscription, received.tag) == []
    assert world.broker.stats.expired == 0


def test_a_message_that_came_back_expires_by_itself_though_it_outlived_others() -> None:
    world = World.create(
        retention=Retention(message_ttl_ms=int(TTL * 1000), dead_letters=False),
        retries=Retries(retry_backoff_ms=600),
    )
    client = world.connect()
    subscription = client.subscribe(b"t")
    client.publish(b"t", b"one")
    world.pass_time(TTL / 2)
    client.publish(b"t", b"two")
    client.poll_all(subscription)

    world.pass_time(TTL / 2)
    world.pass_time(0.1)
    assert world.broker.stats.expired == 1
    world.pass_time(TTL / 2 - 0.1)

    assert world.broker.stats.expired == 2


def test_a_message_given_back_by_a_lost_connection_too_late_has_expired() -> None:
    world = mortal()
    client = world.connect()
    subscription = client.subscribe(b"t")
    client.publish(b"t", b"x")
    world.pass_time(TTL - SOON)
    client.poll(subscription)
    world.pass_time(2 * SOON)

    client.disconnect()

    assert world.connect().poll(subscription) is None
    assert world.broker.stats.expired == 1


def test_kept_messages_expire_too_and_their_topic_is_forgotten() -> None:
    world = mortal()
    client = world.connect()
    client.publish(b"t", b"x", b"y")
    assert world.broker.stats.topics == 1

    world.pass_time(TTL)

    assert world.broker.stats.expired == 2
    assert world.broker.stats.topics == 0
    assert client.poll_all(client.subscribe(b"t")) == []


def test_messages_expire_in_a_parked_subscription() -> None:
    world = mortal()
    client = world.connect()
    client.subscribe(b"t")
    client.publish(b"t", b"x")
    client.disconnect()

    world.pass_time(TTL)

    assert world.broker.stats.expired == 1


def test_a_message_that_is_committed_too_late_has_expired() -> None:
    world = World.create(
        retention=Retention(message_ttl_ms=int(TTL * 1000), dead_letters=False), durable=True
    )
    client = world.connect()
    subscription = client.subscribe(b"t")
    client.publish(b"t", b"x")
    world.pass_time(TTL)

    world.commit()

    assert client.poll(subscription) is None
    assert world.broker.stats.expired == 1


def test_without_a_time_to_live_messages_wait_for_ever() -> None:
    world = World.create(retention=Retention(session_expiry_ms=10**12))
    client = world.connect()
    subscription = client.subscribe(b"t")
    client.publish(b"t", b"x")

    world.pass_time(10**8)

    assert client.poll_all(subscription) == [b"x"]


def test_expired_messages_make_room_before_any_is_dropped_for_capacity() -> None:
    world = mortal()
    client = world.connect()
    subscription = client.subscribe(b"t")
    client.publish(b"t", *(b"old" for _ in range(1_000)))
    world.pass_time(TTL)
    client.publish(b"t", *(b"new" for _ in range(1_000)))

    assert client.poll_all(subscription) == [b"new"] * 1_000
    assert world.broker.stats.dropped[DropReason.CAPACITY] == 0


def test_one_that_has_waited_longest_expires_behind_another_that_lives_on() -> None:
    world = World.create(retries=Retries(max_retries=9, retry_backoff_ms=100))
    client, publisher = world.connect(), Member(world)
    subscription = client.subscribe(b"t")
    publisher.message(b"t", b"lasting", MessageProperties())
    publisher.message(b"t", b"mortal", MessageProperties(ttl_ms=int(TTL * 1000)))
    assert client.poll_all(subscription) == [b"lasting", b"mortal"]
    world.pass_time(0.1)
    client.poll(subscription)  # the first one again, which comes back later than the second
    world.pass_time(TTL)

    assert client.poll_all(subscription) == [b"lasting"]
