"""QoS 1 messages on their way into the log."""

from __future__ import annotations

from blipmq.broker.stats import DropReason
from blipmq.protocol import encoder
from blipmq.wal.facts import Closed, Opened, RunRecord, Settled
from tests.broker.world import Publisher, World, refusals


def test_a_message_is_delivered_when_it_is_committed_and_not_before() -> None:
    world = World.create(durable=True)
    subscriber = world.connect()
    subscription = subscriber.subscribe(b"t")
    world.connect().publish(b"t", b"x")

    assert subscriber.poll(subscription) is None
    world.commit()

    assert subscriber.poll_all(subscription) == [b"x"]


def test_without_a_log_a_message_is_committed_when_it_is_accepted() -> None:
    world = World.create()
    publisher = Publisher(world)

    publisher.publish(b"t", b"x")

    assert len(publisher.committed) == 1
    assert world.broker.handoff() is None


def test_a_qos_0_subscription_does_not_see_it_earlier_either() -> None:
    world = World.create(durable=True)
    subscriber = world.connect()
    subscription = subscriber.subscribe(b"t", 0)
    world.connect().publish(b"t", b"x")

    assert subscriber.poll(subscription) is None


def test_qos_0_messages_wait_behind_an_uncommitted_one() -> None:
    world = World.create(durable=True)
    subscriber, publisher = world.connect(), world.connect()
    subscription = subscriber.subscribe(b"t")
    publisher.publish(b"t", b"before", qos=0)
    publisher.publish(b"t", b"uncommitted", qos=1)
    publisher.publish(b"t", b"behind", qos=0)

    assert subscriber.poll_all(subscription) == [b"before"]
    world.commit()

    assert subscriber.poll_all(subscription) == [b"uncommitted", b"behind"]


def test_another_topic_does_not_wait() -> None:
    world = World.create(durable=True)
    subscriber, publisher = world.connect(), world.connect()
    subscription = subscriber.subscribe(b"u")
    publisher.publish(b"t", b"uncommitted", qos=1)
    publisher.publish(b"u", b"x", qos=0)

    assert subscriber.poll_all(subscription) == [b"x"]


def test_a_message_waits_for_those_before_it_though_it_is_committed_first() -> None:
    world = World.create(durable=True)
    subscriber, publisher = world.connect(), world.connect()
    subscription = subscriber.subscribe(b"t")
    publisher.publish(b"t", b"one")
    first = world.broker.handoff()
    publisher.publish(b"t", b"two")
    world.commit()
    assert first is not None

    assert subscriber.poll(subscription) is None
    world.broker.committed(first, world.now)

    assert subscriber.poll_all(subscription) == [b"one", b"two"]


def test_messages_whose_commit_failed_vanish() -> None:
    world = World.create(durable=True)
    subscriber, publisher = world.connect(), world.connect()
    subscription = subscriber.subscribe(b"t")
    publisher.publish(b"t", b"failed", b"failed too")
    world.fail()
    publisher.publish(b"t", b"x")
    world.commit()

    assert subscriber.poll_all(subscription) == [b"x"]
    assert world.broker.stats.dropped[DropReason.COMMIT_FAILED] == 2


def test_what_waited_behind_a_failed_commit_is_delivered() -> None:
    world = World.create(durable=True)
    subscriber, publisher = world.connect(), world.connect()
    subscription = subscriber.subscribe(b"t")
    publisher.publish(b"t", b"failed", qos=1)
    publisher.publish(b"t", b"behind", qos=0)
    batch = world.broker.handoff()
    publisher.publish(b"t", b"later", qos=1)
    world.commit()
    assert batch is not None
    assert subscriber.poll(subscription) is None

    world.broker.failed(batch, "disk full", world.now)

    assert subscriber.poll_all(subscription) == [b"behind", b"later"]


def test_the_numbers_of_failed_messages_stay_unused() -> None:
    world = World.create(durable=True)
    client = world.connect()
    subscription = client.subscribe(b"t")
    tags = []
    for commit in (world.commit, world.fail, world.commit):
        client.publish(b"t", b"x", b"y", b"z")
        commit()
        client.replies()
        while (received := client.poll(subscription)) is not None:
            tags.append(received.tag)

    first = tags[0]
    assert tags == [first, first + 1, first + 2, first + 6, first + 7, first + 8]


def test_a_failed_message_does_not_count_among_those_that_wait() -> None:
    world = World.create(durable=True)
    client = world.connect()
    client.subscribe(b"t")
    client.publish(b"t", b"one")
    world.commit()
    client.publish(b"t", b"failed")
    batch = world.broker.handoff()
    client.publish(b"t", b"two")
    world.commit()
    assert batch is not None
    world.broker.failed(batch, "disk full", world.now)

    (backlog,) = world.broker.backlogs(1, world.now)

    assert backlog.messages == 2
    assert backlog.bytes == 2 * len(encoder.publish(1, 1, b"t", b"one"))


def test_the_publisher_of_a_failed_message_is_told_under_its_correlation_ids() -> None:
    world = World.create(durable=True)
    client = world.connect()
    client.send(*(encoder.publish(2**63 + i, 1, b"t", b"xyz") for i in range(20)))

    world.fail("no space left")

    assert refusals(client.replies()) == [
        (2**63 + i, 500, "durable publish failed: no space left") for i in range(20)
    ]


def test_a_failed_message_is_not_kept() -> None:
    world = World.create(durable=True)
    client = world.connect()
    client.publish(b"t", b"failed")
    world.fail()
    client.replies()

    assert world.broker.stats.topics == 0
    assert client.poll_all(client.subscribe(b"t")) == []


def test_a_commit_that_comes_after_the_publisher_is_gone_counts() -> None:
    world = World.create(durable=True)
    client, publisher = world.connect(), world.connect()
    subscription = client.subscribe(b"t")
    publisher.publish(b"t", b"x")
    publisher.disconnect()

    world.commit()

    assert client.poll_all(subscription) == [b"x"]


# What is handed to the log


def test_facts_are_handed_off_once_and_in_their_order() -> None:
    world = World.create(durable=True)
    client = world.connect()
    subscription = client.subscribe(b"t")
    client.publish(b"t", b"x")
    batch = world.commit()
    assert batch is not None
    received = client.poll(subscription)
    assert received is not None
    client.ack(subscription, received.tag)
    second = world.commit()
    assert second is not None

    assert [type(fact) for fact in batch.facts] == [Opened, RunRecord]
    assert second.facts == [Settled(subscription, received.tag, received.tag)]
    assert world.broker.handoff() is None


def test_a_run_is_handed_off_in_the_bytes_in_which_it_is_delivered() -> None:
    world = World.create(durable=True)
    client = world.connect()
    subscription = client.subscribe(b"t")
    client.publish(b"t", b"x", b"y")
    batch = world.commit()
    assert batch is not None

    delivered = client.send(encoder.poll(5, subscription), encoder.poll(6, subscription))

    (run,) = [fact for fact in batch.facts if isinstance(fact, RunRecord)]
    assert bytes(run.data) == b"".join(delivered)
    assert (run.topic, run.count) == (b"t", 2)


def test_neighbouring_settlements_become_one_fact() -> None:
    world = World.create(durable=True)
    client = world.connect()
    subscription = client.subscribe(b"t")
    client.publish(b"t", *(b"x" for _ in range(10)))
    world.commit()
    tags = []
    while (received := client.poll(subscription)) is not None:
        tags.append(received.tag)
    for tag in tags:
        client.ack(subscription, tag)

    batch = world.broker.handoff()

    assert batch is not None
    assert batch.facts == [Settled(subscription, tags[0], tags[-1])]


def test_neither_qos_0_messages_nor_qos_0_subscriptions_are_logged() -> None:
    world = World.create(durable=True)
    client = world.connect()
    subscription = client.subscribe(b"t", 0)
    client.publish(b"t", b"x", qos=0)
    client.poll(subscription)
    client.disconnect()

    assert world.broker.handoff() is None


def test_the_other_facts_of_a_failed_batch_are_logged_with_the_next_before_later_ones() -> None:
    world = World.create(durable=True)
    client = world.connect()
    subscription = client.subscribe(b"t")
    client.publish(b"t", b"failed")
    batch = world.broker.handoff()
    client.subscribe(b"u")
    assert batch is not None
    world.broker.failed(batch, "disk full", world.now)

    again = world.broker.handoff()

    assert again is not None
    assert again.publications == []
    opened = [fact.subscription.id for fact in again.facts if isinstance(fact, Opened)]
    assert len(opened) == len(again.facts) == 2
    assert opened[0] == subscription


def test_the_end_of_a_subscription_is_logged() -> None:
    world = World.create(durable=True)
    client = world.connect()
    subscription = client.subscribe(b"t")
    client.disconnect()
    world.commit()
    world.pass_time(10**6)

    batch = world.broker.handoff()

    assert batch is not None
    (fact,) = batch.facts
    assert isinstance(fact, Closed)
    assert fact.subscription == subscription


def test_the_broker_says_whether_a_publisher_waits_for_a_handoff() -> None:
    world = World.create(durable=True)
    client = world.connect()
    client.subscribe(b"t")
    seen = [world.broker.has_publications]

    client.publish(b"t", b"x")
    seen.append(world.broker.has_publications)
    world.broker.handoff()
    seen.append(world.broker.has_publications)

    assert seen == [False, True, False]
