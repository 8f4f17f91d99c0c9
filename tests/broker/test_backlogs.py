"""What an operator sees of subscriptions."""

from __future__ import annotations

from blipmq.protocol import encoder
from tests.broker.world import World

MESSAGE_BYTES = len(encoder.publish(1, 1, b"t", b"x"))


def test_a_backlog_is_what_waits_and_what_is_unsettled() -> None:
    world = World.create()
    client = world.connect()
    subscription = client.subscribe(b"t")
    client.publish(b"t", b"x", b"x", b"x")
    received = client.poll(subscription)
    client.poll(subscription)
    assert received is not None
    client.ack(subscription, received.tag)

    (backlog,) = world.broker.backlogs(1, world.now)

    assert (backlog.subscription, backlog.topic) == (str(subscription), "t")
    assert (backlog.messages, backlog.bytes) == (2, 2 * MESSAGE_BYTES)


def test_its_age_is_that_of_its_oldest_message() -> None:
    world = World.create()
    client = world.connect()
    subscription = client.subscribe(b"t")
    client.publish(b"t", b"old")
    world.pass_time(3)
    client.publish(b"t", b"new")
    world.pass_time(2)
    received = client.poll(subscription)
    ages = [world.broker.backlogs(1, world.now)[0].oldest_age_seconds]

    assert received is not None
    client.ack(subscription, received.tag)
    ages.append(world.broker.backlogs(1, world.now)[0].oldest_age_seconds)

    assert ages == [5, 2]


def test_one_that_holds_nothing_has_no_age() -> None:
    world = World.create()
    client = world.connect()
    client.subscribe(b"t")
    world.pass_time(3)

    (backlog,) = world.broker.backlogs(1, world.now)

    assert (backlog.messages, backlog.bytes, backlog.oldest_age_seconds) == (0, 0, 0)


def test_the_largest_have_a_row_each_and_all_others_one_together() -> None:
    world = World.create()
    client = world.connect()
    for count, topic in ((1, b"a"), (4, b"b"), (2, b"c"), (3, b"d")):
        client.subscribe(topic)
        client.publish(topic, *(b"x" for _ in range(count)))
        world.pass_time(1)

    rows = world.broker.backlogs(2, world.now)

    assert [(row.topic, row.messages) for row in rows] == [("b", 4), ("d", 3), ("", 3)]
    assert (rows[2].bytes, rows[2].oldest_age_seconds) == (3 * MESSAGE_BYTES, 4)
