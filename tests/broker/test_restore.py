"""What a broker takes over from a log."""

from __future__ import annotations

import pytest

from blipmq.broker.broker import NUMBERS_RESERVED
from blipmq.broker.limits import Limits, Retention, Retries
from blipmq.broker.stats import DropReason
from blipmq.errors import PublishFailed
from tests.broker.memory_log import MemoryLog
from tests.broker.world import Client, Publisher, World, message_bytes


def start(log: MemoryLog, now: float = 0.0, time_ms: int = 0) -> World:
    return World(log.start(now, time_ms), now)


def commit(world: World, log: MemoryLog, time_ms: int = 0) -> None:
    """The log takes everything that waits for it, and keeps it."""
    batch = world.broker.handoff()
    assert batch is not None
    log.append(batch, time_ms)
    world.broker.committed(batch, world.now)


def published(log: MemoryLog, *bodies: bytes) -> tuple[World, Client, int]:
    """A client with a subscription in which these messages wait."""
    world = start(log)
    client = world.connect()
    subscription = client.subscribe(b"t")
    client.publish(b"t", *bodies)
    commit(world, log)
    return world, client, subscription


def settle(client: Client, subscription: int) -> None:
    """Take one message and settle it."""
    received = client.poll(subscription)
    assert received is not None
    assert client.ack(subscription, received.tag) == []


def waiting(world: World, topic: bytes = b"t") -> list[bytes]:
    """What a client gets that subscribes now."""
    client = world.connect()
    return client.poll_all(client.subscribe(topic))


@pytest.mark.parametrize("checkpoint", [False, True])
def test_what_was_not_settled_is_delivered(checkpoint: bool) -> None:
    log = MemoryLog()
    world, client, subscription = published(log, b"one", b"two", b"three")
    settle(client, subscription)
    client.poll(subscription)
    commit(world, log)
    if checkpoint:
        log.checkpoint(world.broker)

    assert waiting(start(log)) == [b"two", b"three"]


def test_what_was_settled_out_of_order_is_not_delivered() -> None:
    log = MemoryLog()
    world, client, subscription = published(log, b"one", b"two", b"three")
    client.poll(subscription)
    settle(client, subscription)
    commit(world, log)

    assert waiting(start(log)) == [b"one", b"three"]


@pytest.mark.parametrize("index", [0, 1, 2])
def test_what_was_delivered_before_may_be_settled_after(index: int) -> None:
    log = MemoryLog()
    _, client, subscription = published(log, b"one", b"two", b"three")
    received = [client.poll(subscription) for _ in range(3)]
    settled = received.pop(index)
    assert settled is not None

    client = start(log).connect()

    assert client.ack(subscription, settled.tag) == []
    assert [client.poll(subscription) for _ in range(3)] == [*received, None]


def test_what_was_not_committed_is_gone() -> None:
    log = MemoryLog()
    _, client, _ = published(log, b"committed")
    client.publish(b"t", b"not committed")

    assert waiting(start(log)) == [b"committed"]


def test_the_bytes_are_those_that_were_delivered_before() -> None:
    log = MemoryLog()
    _, client, subscription = published(log, b"x")
    before = client.poll(subscription)

    client = start(log).connect()

    assert client.subscribe(b"t") == subscription
    assert client.poll(subscription) == before is not None


def test_a_subscription_belongs_to_the_same_key_as_before() -> None:
    log = MemoryLog()
    _, _, subscription = published(log, b"x")

    stranger = start(log).connect(b"other key")

    assert stranger.poll(subscription) is None
    assert stranger.subscribe(b"t") != subscription


def test_a_subscription_waits_as_long_as_any_that_was_parked() -> None:
    log = MemoryLog(retention=Retention(session_expiry_ms=60_000))
    published(log, b"x")
    world = start(log, now=1_000.0)

    world.pass_time(59)
    assert world.broker.stats.subscriptions_parked == 1
    world.pass_time(1)

    assert world.broker.stats.subscriptions == 0
    assert world.broker.stats.dropped[DropReason.SUBSCRIPTION_EXPIRED] == 1


def test_a_subscription_that_ended_is_not_there() -> None:
    log = MemoryLog()
    world, client, _ = published(log, b"x")
    client.disconnect()
    world.pass_time(10**6)
    commit(world, log)

    world = start(log)

    assert world.broker.stats.subscriptions == 0
    assert waiting(world) == []


def test_kept_messages_are_kept() -> None:
    log = MemoryLog()
    world = start(log)
    world.connect().publish(b"t", b"one", b"two")
    commit(world, log)

    assert waiting(start(log)) == [b"one", b"two"]


def test_kept_messages_beyond_the_limit_are_dropped_after_a_restart_too() -> None:
    log = MemoryLog(retention=Retention(kept_messages=2))
    world = start(log)
    world.connect().publish(b"t", b"one", b"two", b"three")
    commit(world, log)

    assert waiting(start(log)) == [b"two", b"three"]


def test_a_checkpoint_says_which_messages_of_a_run_are_still_kept() -> None:
    log = MemoryLog(retention=Retention(kept_messages=2))
    world = start(log)
    world.connect().publish(b"t", b"one", b"two", b"three")
    commit(world, log)
    log.checkpoint(world.broker)
    log.retention = Retention(kept_messages=100)

    assert waiting(start(log)) == [b"two", b"three"]


def test_messages_on_their_way_when_the_last_subscription_ended_are_kept() -> None:
    log = MemoryLog()
    world, client, _ = published(log, b"lost")
    client.disconnect()
    world.connect().publish(b"t", b"kept")
    world.pass_time(10**6)
    commit(world, log)

    assert waiting(start(log)) == [b"kept"]


def test_a_full_subscription_drops_its_oldest() -> None:
    log = MemoryLog(Limits(queue_capacity=10))
    published(log, *(b"%d" % i for i in range(10)))
    log.limits = Limits(queue_capacity=3)

    assert waiting(start(log)) == [b"7", b"8", b"9"]


def test_the_attempts_of_a_checkpoint_count() -> None:
    log = MemoryLog(retries=Retries(max_retries=3))
    world, client, subscription = published(log, b"x")
    client.poll(subscription)
    world.pass_time(1)
    client.poll(subscription)
    log.checkpoint(world.broker)

    world = start(log)
    assert waiting(world) == [b"x"]
    world.pass_time(1)

    assert waiting(world) == []
    assert world.broker.stats.dropped[DropReason.MAX_RETRIES] == 1


def test_redeliveries_that_were_logged_count_without_a_checkpoint() -> None:
    log = MemoryLog(retries=Retries(max_retries=3))
    world, client, subscription = published(log, b"x")
    for _ in range(2):
        client.poll(subscription)
        world.pass_time(1)
    commit(world, log)

    world = start(log)
    assert waiting(world) == [b"x"]
    world.pass_time(1)

    assert waiting(world) == []


def test_what_was_delivered_as_often_as_allowed_is_given_up_by_a_restart() -> None:
    log = MemoryLog(retries=Retries(max_retries=2))
    world, client, subscription = published(log, b"x", b"y")
    received = client.poll(subscription)
    world.pass_time(1)
    client.poll(subscription)
    assert client.poll(subscription) == received is not None
    commit(world, log)

    world = start(log)

    assert waiting(world) == [b"y"]
    world.pass_time(0)
    assert world.broker.stats.dropped[DropReason.MAX_RETRIES] == 1


def test_a_message_has_the_age_that_it_had_when_the_log_took_it() -> None:
    log = MemoryLog(retention=Retention(message_ttl_ms=1_000))
    world = start(log)
    client = world.connect()
    client.subscribe(b"t")
    client.publish(b"t", b"old")
    commit(world, log, time_ms=10_000)
    client.publish(b"t", b"new")
    commit(world, log, time_ms=10_500)

    assert waiting(start(log, now=50.0, time_ms=11_000)) == [b"new"]


def test_a_restored_message_expires_by_itself() -> None:
    log = MemoryLog(retention=Retention(message_ttl_ms=1_000))
    published(log, b"x")
    world = start(log)

    world.pass_time(1)

    assert world.broker.stats.expired == 1


def test_a_clock_that_went_back_makes_no_message_younger_than_new() -> None:
    log = MemoryLog(retention=Retention(message_ttl_ms=1_000))
    world = start(log)
    client = world.connect()
    client.subscribe(b"t")
    client.publish(b"t", b"x")
    commit(world, log, time_ms=10_000)

    world = start(log, time_ms=5_000)
    world.pass_time(1)

    assert waiting(world) == []


def test_messages_come_in_publish_order_though_the_clock_went_back_between_them() -> None:
    log = MemoryLog()
    world = start(log)
    client = world.connect()
    client.subscribe(b"t")
    for time_ms, body in ((10_000, b"one"), (5_000, b"two"), (7_000, b"three")):
        client.publish(b"t", body)
        commit(world, log, time_ms)

    assert waiting(start(log, time_ms=11_000)) == [b"one", b"two", b"three"]


def test_a_checkpoint_is_needed_before_the_numbers_that_the_last_one_reserved_run_out() -> None:
    log = MemoryLog()
    broker = start(log).broker
    needed = [broker.needs_checkpoint]

    broker.context.give_number(3 * NUMBERS_RESERVED // 4)
    needed.append(broker.needs_checkpoint and broker.has_facts)
    log.checkpoint(broker)
    needed.append(broker.needs_checkpoint)

    assert needed == [False, True, False]


def test_no_number_is_given_out_that_the_log_has_not_reserved() -> None:
    log = MemoryLog()
    world = start(log)
    publisher = Publisher(world)
    world.broker.context.give_number(NUMBERS_RESERVED - 1)
    publisher.publish(b"t", b"x")

    with pytest.raises(PublishFailed, match="no number is reserved"):
        publisher.publish(b"t", b"x")


@pytest.mark.parametrize("checkpoint", [False, True])
def test_numbers_that_were_given_out_are_not_given_out_again(checkpoint: bool) -> None:
    log = MemoryLog()
    world, client, subscription = published(log, b"x")
    client.publish(b"t", b"not committed")
    client.subscribe(b"u")
    if checkpoint:
        log.checkpoint(world.broker)
    given = world.broker.context.next_number

    client = start(log).connect()

    assert client.subscribe(b"t") == subscription
    assert client.subscribe(b"v") >= given


def test_what_is_restored_counts_as_memory_until_it_is_settled() -> None:
    log = MemoryLog()
    _, _, subscription = published(log, b"x")
    broker = start(log).broker
    assert message_bytes(broker) > 0
    assert broker.stats.wal_replayed_messages == 1

    taken = broker.take("owner", subscription, log, 0.0)
    assert taken is not None
    broker.accept("owner", subscription, taken.tag)
    del taken

    assert message_bytes(broker) == 0


def test_runs_that_nobody_wants_take_no_memory_and_no_topic() -> None:
    log = MemoryLog()
    world, client, subscription = published(log, b"x")
    settle(client, subscription)
    client.disconnect()
    world.pass_time(10**6)
    commit(world, log)
    assert log.runs

    broker = start(log).broker

    assert message_bytes(broker) == 0
    assert broker.stats.topics == 0


def test_a_log_is_wanted_from_the_first_message_that_is_not_settled() -> None:
    log = MemoryLog()
    world = start(log)
    client = world.connect()
    fast, slow = client.subscribe(b"t"), client.subscribe(b"t")
    for body in (b"one", b"two", b"three"):
        client.publish(b"t", body)
        commit(world, log)
    for subscription in (fast, fast, slow):
        settle(client, subscription)

    log.checkpoint(world.broker)

    assert [bytes(run.data)[-3:] for run in log.runs] == [b"two", b"ree"]


def test_facts_from_before_a_checkpoint_may_follow_it() -> None:
    log = MemoryLog()
    world, client, subscription = published(log, b"one", b"two")
    settle(client, subscription)
    client.disconnect()
    batch = world.broker.handoff()
    client = world.connect()
    client.subscribe(b"t")
    client.subscribe(b"t")
    later = world.broker.handoff()
    log.checkpoint(world.broker)
    assert batch is not None
    assert later is not None
    log.append(batch)
    log.append(later)

    world = start(log)

    assert world.broker.stats.subscriptions == 2
    assert waiting(world) == [b"two"]
