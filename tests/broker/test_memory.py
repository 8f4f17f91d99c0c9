"""What the broker holds on to: nothing that nobody wants any more."""

from __future__ import annotations

import gc
import weakref

import pytest

from blipmq.broker.broker import Batch
from blipmq.broker.limits import Limits, Retention
from blipmq.broker.message import OVERHEAD_BYTES, Node
from blipmq.protocol import encoder
from tests.broker.world import Publisher, World, message_bytes

OWNER = "owner"


def take_all(world: World, subscription: int, session: object) -> list[int]:
    tags = []
    while (taken := world.broker.take(OWNER, subscription, session, world.now)) is not None:
        tags.append(taken.tag)
    return tags


def test_a_run_is_counted_by_its_frames_and_what_it_takes_besides() -> None:
    world = World.create()
    publisher = Publisher(world)

    publisher.publish(b"t", b"x", b"yy")

    frames = encoder.publish(1, 1, b"t", b"x") + encoder.publish(1, 1, b"t", b"yy")
    assert message_bytes(world.broker) == len(frames) + OVERHEAD_BYTES


@pytest.mark.parametrize("qos", [0, 1])
@pytest.mark.parametrize("subscribed", [0, 1])
def test_when_all_is_consumed_no_memory_is_taken(qos: int, subscribed: int) -> None:
    world = World.create()
    publisher = Publisher(world)
    if qos and not subscribed:
        world.broker.context.retention = Retention(kept_messages=0)
    subscriptions = [
        world.broker.subscribe(OWNER, b"t", subscribed, publisher, world.now) for _ in range(3)
    ]
    for _ in range(4):
        publisher.publish(b"t", b"x", b"y", qos=qos)

    for subscription in subscriptions:
        for tag in take_all(world, subscription, publisher):
            if tag:
                world.broker.accept(OWNER, subscription, tag)

    assert message_bytes(world.broker) == 0


def test_a_run_is_held_until_its_slowest_subscription_is_done_with_it() -> None:
    world = World.create()
    publisher = Publisher(world)
    fast, slow = (world.broker.subscribe(OWNER, b"t", 0, publisher, world.now) for _ in range(2))
    publisher.publish(b"t", b"x", qos=0)

    take_all(world, fast, publisher)
    assert message_bytes(world.broker) > 0
    take_all(world, slow, publisher)

    assert message_bytes(world.broker) == 0


def test_an_unsettled_message_holds_its_run_and_no_other() -> None:
    world = World.create()
    publisher = Publisher(world)
    subscription = world.broker.subscribe(OWNER, b"t", 1, publisher, world.now)
    for _ in range(10):
        publisher.publish(b"t", b"x")
    one_run = message_bytes(world.broker) // 10
    tags = take_all(world, subscription, publisher)

    for tag in tags[:4] + tags[5:]:
        world.broker.accept(OWNER, subscription, tag)

    assert message_bytes(world.broker) == one_run


def test_what_expires_frees_its_memory() -> None:
    world = World.create(retention=Retention(message_ttl_ms=1_000, dead_letters=False))
    publisher = Publisher(world)
    world.broker.subscribe(OWNER, b"t", 1, publisher, world.now)
    publisher.publish(b"t", b"x")
    publisher.publish(b"kept", b"x")

    world.pass_time(1)

    assert message_bytes(world.broker) == 0


def test_the_end_of_a_subscription_frees_what_it_held() -> None:
    world = World.create()
    publisher = Publisher(world)
    subscriptions = [
        world.broker.subscribe(OWNER, b"t", qos, publisher, world.now) for qos in (0, 1)
    ]
    publisher.publish(b"t", b"x", qos=0)
    publisher.publish(b"t", b"x", qos=1)
    world.broker.disconnect(publisher, subscriptions, world.now)
    assert message_bytes(world.broker) > 0

    world.pass_time(10**6)

    assert message_bytes(world.broker) == 0


def test_a_failed_commit_frees_its_runs() -> None:
    world = World.create(durable=True)
    publisher = Publisher(world)
    world.broker.subscribe(OWNER, b"t", 1, publisher, world.now)
    publisher.publish(b"t", b"x")

    world.fail()

    assert message_bytes(world.broker) == 0


def test_what_is_dropped_from_a_full_subscription_frees_its_memory() -> None:
    world = World.create(Limits(queue_capacity=8))
    publisher = Publisher(world)
    world.broker.subscribe(OWNER, b"t", 0, publisher, world.now)
    for _ in range(100):
        publisher.publish(b"t", b"x", qos=0)

    one_run = len(encoder.publish(1, 0, b"t", b"x")) + OVERHEAD_BYTES
    assert message_bytes(world.broker) <= 9 * one_run


def test_a_session_that_ended_is_forgotten() -> None:
    world = World.create()
    client = world.connect()
    client.poll_all(client.subscribe(b"t"))
    client.publish(b"t", b"x")
    client.disconnect()
    session = weakref.ref(client.session)

    del client
    gc.collect()

    assert session() is None


def test_a_topic_that_nobody_uses_is_forgotten() -> None:
    world = World.create()
    client = world.connect()
    client.subscribe(b"lossy", 0)
    client.subscribe(b"durable", 1)
    assert world.broker.stats.topics == 2

    client.disconnect()
    assert world.broker.stats.topics == 1
    world.pass_time(10**6)
    assert world.broker.stats.topics == 0


def node_of(batch: Batch) -> Node:
    place = batch.publications[0].place
    assert place is not None
    return place.node


def test_a_subscription_that_idles_holds_none_of_many_failed_runs() -> None:
    world = World.create(durable=True)
    publisher = Publisher(world)
    subscription = world.broker.subscribe(OWNER, b"t", 1, publisher, world.now)
    world.commit()
    batches = []
    for _ in range(3):
        publisher.publish(b"t", b"x")
        batch = world.broker.handoff()
        assert batch is not None
        batches.append(batch)
    nodes = [weakref.ref(node_of(batch)) for batch in batches]

    for batch in batches:
        world.broker.failed(batch, "disk full", world.now)
    batches.clear()
    del batch
    gc.collect()

    assert [node() for node in nodes] == [None, None, None]
    assert world.broker.take(OWNER, subscription, publisher, world.now) is None


def test_a_backlog_of_many_runs_is_let_go_of_at_once() -> None:
    world = World.create(Limits(queue_capacity=10**6))
    publisher = Publisher(world)
    subscription = world.broker.subscribe(OWNER, b"t", 0, publisher, world.now)
    for _ in range(20_000):
        publisher.publish(b"t", b"", qos=0)

    world.broker.disconnect(publisher, [subscription], world.now)

    assert message_bytes(world.broker) == 0
