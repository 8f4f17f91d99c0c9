"""QoS 0: what is handed on as it came, and what has to go by way of its topics."""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeVar

import pytest

from blipmq.broker.limits import Limits, Retention
from blipmq.broker.stats import DropReason
from blipmq.protocol import encoder
from blipmq.protocol.properties import MessageProperties
from tests.broker.attached import Member
from tests.broker.world import World

T = TypeVar("T")
NAMES = [b"a.x", b"b.x", b"a.y", b"c.z"]


def interleaved(count: int, qos: int = 0) -> bytes:
    """One message for each number, the topics take turns."""
    return b"".join(
        encoder.publish(i + 1, qos, NAMES[i % len(NAMES)], b"%d" % i) for i in range(count)
    )


def of(pattern: bytes, count: int) -> list[bytes]:
    return [b"%d" % i for i in range(count) if NAMES[i % len(NAMES)].startswith(pattern)]


def test_topics_that_take_turns_come_to_a_pattern_in_the_order_of_publishing() -> None:
    world = World.create()
    member, publisher = Member(world), Member(world)
    subscription = member.attach(b">", qos=0, pattern=True)
    publisher.send(interleaved(40))  # its topics are new
    member.take()

    publisher.send(interleaved(400))

    pushed = member.take_pushed()
    assert [message.body for message in pushed] == of(b"", 400)
    assert [message.topic for message in pushed] == [NAMES[i % 4] for i in range(400)]
    assert {message.subscription for message in pushed} == {subscription}
    assert [message.tag for message in pushed] == list(range(pushed[0].tag, pushed[0].tag + 400))
    assert world.broker.stats.published[0] == world.broker.stats.delivered[0] == 440


def test_everyone_gets_what_matches_and_nothing_else() -> None:
    world = World.create()
    publisher = Member(world)
    members = [Member(world) for _ in range(4)]
    for member, selector in zip(members, [b"a.*", b"b.x", b">", b"q"], strict=True):
        member.attach(selector, qos=0, pattern=b"*" in selector or b">" in selector)

    for _ in range(2):
        publisher.send(interleaved(100))

    assert [sorted(member.take()) for member in members] == [
        sorted(2 * of(b"a.", 100)),
        sorted(2 * of(b"b.", 100)),
        sorted(2 * of(b"", 100)),
        [],
    ]


def test_what_comes_behind_a_message_that_is_not_committed_waits_for_it() -> None:
    world = World.create(durable=True)
    member, publisher = Member(world), Member(world)
    member.attach(b">", qos=0, pattern=True)
    publisher.send(interleaved(8))
    member.take()

    publisher.send(encoder.publish(1, 1, b"a.x", b"logged"), interleaved(8))
    before = member.take()
    world.commit()

    assert before == [b"1", b"2", b"3", b"5", b"6", b"7"]
    assert member.take() == [b"logged", b"0", b"4"]


def test_once_it_is_committed_messages_are_relayed_again() -> None:
    world = World.create(durable=True)
    member, publisher = Member(world), Member(world)
    member.attach(b"a.x", qos=0)
    publisher.send(encoder.publish(1, 1, b"a.x", b"logged"))
    world.commit()
    assert member.take() == [b"logged"]

    publisher.publish(b"a.x", b"relayed", qos=0)

    assert b"a.x" in world.broker.context.routes
    assert member.take() == [b"relayed"]


def test_what_waits_in_a_topic_comes_before_what_could_be_relayed() -> None:
    world = World.create()
    member, publisher = Member(world), Member(world)
    member.attach(b"a.x", qos=0)
    publisher.message(b"a.x", b"first", MessageProperties(ttl_ms=1_000), qos=0)

    publisher.publish(b"a.x", b"second", qos=0)

    assert member.take() == [b"first", b"second"]


def test_subscribers_of_version_1_and_attachments_at_qos_1_get_theirs() -> None:
    world = World.create()
    pushed, acknowledging, publisher = Member(world), Member(world), Member(world)
    old = world.connect()
    pushed.attach(b">", qos=0, pattern=True)
    acknowledging.attach(b"b.x")
    polled = old.subscribe(b"a.x", 0)

    publisher.send(interleaved(40))

    assert sorted(pushed.take()) == sorted(of(b"", 40))
    assert acknowledging.take() == of(b"b.", 40)
    assert old.poll_all(polled) == of(b"a.x", 40)


def test_an_attachment_that_comes_later_gets_what_is_published_from_then_on() -> None:
    world = World.create()
    early, late, publisher = Member(world), Member(world), Member(world)
    early.attach(b">", qos=0, pattern=True)
    publisher.send(interleaved(8))
    late.attach(b"a.x", qos=0)

    publisher.send(interleaved(12))

    assert sorted(early.take()) == sorted(of(b"", 8) + of(b"", 12))
    assert late.take() == of(b"a.x", 12)


def test_a_refused_message_among_others_is_refused_alone() -> None:
    world = World.create()
    member, publisher = Member(world), Member(world)
    member.attach(b">", qos=0, pattern=True)
    reserved = encoder.publish(99, 0, b"$dead.a", b"")

    publisher.send(interleaved(4), reserved, interleaved(4))

    assert publisher.refused == [(99, 403, "not permitted")]
    assert sorted(member.take()) == sorted(2 * of(b"", 4))


def test_of_what_a_client_leaves_unread_the_oldest_are_dropped_counted() -> None:
    world = World.create(Limits(qos0_window_bytes=4_000))
    member, publisher = Member(world), Member(world)
    member.attach(b">", qos=0, pattern=True)
    publisher.send(interleaved(4))
    member.take()

    for i in range(100):
        publisher.client.session.paused_until = None
        publisher.send(
            encoder.publish(1, 0, b"a.x", b"%03d" % i), encoder.publish(2, 0, b"b.x", bytes(97))
        )

    bodies = member.take()
    got = [int(body) for body in bodies if len(body) == 3]
    assert 0 < len(got) < 100
    assert got == list(range(100 - len(got), 100))
    assert world.broker.stats.dropped[DropReason.QOS0_WINDOW] == 200 - len(bodies)


def test_publishers_wait_for_a_slow_reader_until_a_quarter_of_its_window_is_left() -> None:
    world = World.create(Limits(qos0_window_bytes=4_000, slow_consumer_wait_ms=1_500))
    member, publisher = Member(world), Member(world)
    member.attach(b"a.x", qos=0)
    member.take()
    session = publisher.client.session

    publisher.send(*[encoder.publish(1, 0, b"a.x", bytes(100))] * 20)
    waits_until, progress = session.paused_until, publisher.client.progress
    member.take()

    assert waits_until == 1.5
    assert session.paused_until is None
    assert publisher.client.progress == progress + 1


def test_what_an_attachment_leaves_unread_when_it_goes_is_counted() -> None:
    world = World.create()
    member, publisher = Member(world), Member(world)
    member.attach(b">", qos=0, pattern=True)
    publisher.send(interleaved(8))
    member.take()
    publisher.send(interleaved(8))
    (held,) = [row.messages for row in world.broker.backlogs(1, world.now)]

    member.disconnect()

    assert held == 8
    assert world.broker.stats.dropped[DropReason.DISCONNECTED] == 8


def test_memory_is_given_back_when_the_messages_are_sent() -> None:
    world = World.create()
    member, publisher = Member(world), Member(world)
    member.attach(b">", qos=0, pattern=True)
    publisher.send(interleaved(8))
    member.take()
    before = world.broker.stats.memory_bytes

    publisher.send(interleaved(800))
    publisher.disconnect()  # its receive buffer counts, too
    during = world.broker.stats.memory_bytes
    member.take()

    assert during >= before + 800 * len(encoder.publish(1, 0, NAMES[0], b""))
    assert world.broker.stats.memory_bytes == before


def test_where_memory_has_no_room_messages_are_dropped_counted() -> None:
    world = World.create(Limits(max_memory_bytes=64 * 1024))
    member, publisher = Member(world), Member(world)
    member.attach(b">", qos=0, pattern=True)
    publisher.send(interleaved(4))
    member.take()

    for _ in range(10):
        publisher.send(*[encoder.publish(1, 0, NAMES[i % 2], bytes(1_000)) for i in range(10)])

    dropped = world.broker.stats.dropped[DropReason.MEMORY]
    assert dropped > 0
    assert len(member.take()) == 100 - dropped


def test_messages_that_expire_do_so_though_topics_take_turns() -> None:
    world = World.create(retention=Retention(message_ttl_ms=1_000))
    member, publisher = Member(world), Member(world)
    member.attach(b">", qos=0, pattern=True)
    publisher.send(interleaved(8))

    world.pass_time(1.5)

    assert member.take() == []
    assert world.broker.stats.expired == 8


@pytest.mark.parametrize("qos", [0, 1])
def test_without_a_subscriber_nothing_is_relayed(qos: int) -> None:
    world = World.create()
    publisher = Member(world)

    publisher.send(interleaved(8, qos))

    assert not world.broker.context.routes
    assert world.broker.stats.dropped[DropReason.NO_SUBSCRIBER] == (0 if qos else 8)


def test_a_relayed_message_can_be_polled_for() -> None:
    world = World.create()
    member, publisher = Member(world), Member(world)
    subscription = member.attach(b"a.x", qos=0)
    publisher.send(interleaved(12))

    world.broker.draining = True  # nothing is pushed any more
    member.send(encoder.poll(77, subscription))

    assert [(message.tag, message.body) for message in member.take_pushed()] == [(77, b"0")]


def test_an_attachment_to_dead_letters_does_not_let_clients_publish_there() -> None:
    world = World.create()
    member, publisher = Member(world), Member(world)
    member.attach(b"$dead.a", qos=0)

    publisher.publish(b"$dead.a", b"forged", qos=0)

    assert [refusal[1:] for refusal in publisher.refused] == [(403, "not permitted")]
    assert member.take() == []


def test_what_comes_in_one_read_is_not_too_much_for_who_has_read_all_before() -> None:
    world = World.create(Limits(qos0_window_bytes=1_000))
    member, publisher = Member(world), Member(world)
    member.attach(b"a.x", qos=0)

    publisher.publish(b"a.x", *[bytes(100)] * 30, qos=0)

    assert len(member.take()) == 30


def test_an_operator_sees_and_purges_what_is_not_sent() -> None:
    world = World.create(Limits(qos0_window_bytes=4_000))
    member, publisher = Member(world), Member(world)
    member.attach(b"a.x", qos=0)
    member.take()
    publisher.send(*[encoder.publish(1, 0, b"a.x", bytes(100))] * 20)
    (subscription,) = list(world.broker._sharing)
    view = finish(world.broker.overview.subscription(subscription.id, world.now))
    assert view is not None

    purged = finish(world.broker.operator.purge(subscription.id, world.now))

    assert (view.backlog.messages, view.slow) == (20, True)
    assert purged == 20
    assert member.take() == []
    assert world.broker.stats.dropped[DropReason.PURGED] == 20


def test_purging_a_topic_takes_what_is_not_sent_of_it() -> None:
    world = World.create()
    member, publisher = Member(world), Member(world)
    member.attach(b"a.x", qos=0)
    member.take()
    publisher.publish(b"a.x", b"1", b"2", qos=0)

    assert finish(world.broker.operator.purge_topic("a.x", world.now)) == 2
    assert member.take() == []


def finish(steps: Generator[None, None, T]) -> T:
    """What the steps come to."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
