"""Version 2: where a new subscription starts, and who gets what was kept."""

from __future__ import annotations

import pytest

from blipmq.broker.limits import Limits
from blipmq.broker.stats import DropReason
from blipmq.protocol import encoder
from blipmq.protocol.attach_properties import Start, StartKind
from tests.broker.attached import Member
from tests.broker.logged import LoggedWorld
from tests.broker.world import World

EARLIEST = Start(StartKind.EARLIEST)
NEW = Start(StartKind.NEW)


def test_the_first_one_gets_what_was_kept() -> None:
    world = World.create()
    publisher, first, second = (Member(world) for _ in range(3))
    publisher.publish(b"t", b"a", b"b")

    first.attach(b"t")
    second.attach(b"t")

    assert (first.take(), second.take()) == ([b"a", b"b"], [])


def test_a_first_one_that_wants_only_new_messages_drops_what_was_kept() -> None:
    world = World.create()
    publisher, first = Member(world), Member(world)
    publisher.publish(b"t", b"a")

    first.attach(b"t", start=NEW)
    publisher.publish(b"t", b"b")

    kept = world.broker.stats.dropped[DropReason.KEPT]
    assert (first.take(), kept) == ([b"b"], 1)


def test_a_qos_0_attachment_takes_nothing_that_is_kept() -> None:
    world = World.create()
    publisher, zero, first = (Member(world) for _ in range(3))
    publisher.publish(b"t", b"a")

    zero.attach(b"t", qos=0)
    first.attach(b"t")

    assert (zero.take(), first.take()) == ([], [b"a"])


@pytest.mark.parametrize("logged", [False, True], ids=["no log", "log"])
def test_a_start_from_a_tag_begins_with_that_message(logged: bool) -> None:
    world: World = LoggedWorld.logged() if logged else World.create()
    keeper, publisher, late = (Member(world) for _ in range(3))
    keeper.attach(b"t", name=b"keeper", prefetch=0)
    for body in (b"a", b"b", b"c"):
        publisher.publish(b"t", body)
        world.commit()
    keeper.send(encoder.poll(7, next(iter(keeper.client.session._attachments))))
    (pushed,) = keeper.take_pushed()

    late.attach(b"t", start=Start(StartKind.TAG, pushed.tag + 1))
    late.receive()
    world.commit()
    if isinstance(world, LoggedWorld):
        world.read()

    assert late.take() == [b"b", b"c"]


def test_a_start_from_a_time_begins_with_what_was_written_then() -> None:
    world = LoggedWorld.logged(Limits(window_bytes=100, queue_bytes=8))
    Member(world).attach(b"t", name=b"keeper", prefetch=0)
    publisher, late = Member(world), Member(world)
    publisher.publish(b"t", b"a" * 200)
    world.commit()
    world.pass_time(10)
    publisher.publish(b"t", b"b")
    world.commit()

    late.attach(b"t", start=Start(StartKind.TIME, world.time_ms - 5_000))
    late.receive()
    world.read()

    assert late.take() == [b"b"]


def test_the_earliest_is_followed_by_what_is_not_committed_yet() -> None:
    world = LoggedWorld.logged()
    publisher, late = Member(world), Member(world)
    publisher.publish(b"t", b"a")
    world.commit()
    publisher.publish(b"t", b"b")

    late.attach(b"t", start=EARLIEST)
    late.receive()
    world.read()
    before = late.take()
    world.commit()

    assert (before, late.take()) == ([b"a"], [b"b"])


def test_qos_0_messages_from_before_a_subscription_are_not_its_loss() -> None:
    world = LoggedWorld.logged()
    Member(world).attach(b"t", qos=0)
    publisher, late = Member(world), Member(world)
    publisher.publish(b"t", b"a", qos=0)
    publisher.publish(b"t", b"b")
    world.commit()

    late.attach(b"t", start=EARLIEST)
    late.receive()
    world.read()

    lost = world.broker.stats.dropped[DropReason.BEHIND]
    assert (late.take(), lost) == ([b"b"], 0)


def test_a_start_counts_only_when_the_subscription_is_made() -> None:
    world = LoggedWorld.logged()
    member, publisher = Member(world), Member(world)
    id_ = member.attach(b"t", name=b"n")
    publisher.publish(b"t", b"a")
    world.commit()
    member.take()
    member.accept_all(id_)

    member.attach(b"t", name=b"n", start=EARLIEST)
    member.receive()
    world.read()

    assert member.take() == []
