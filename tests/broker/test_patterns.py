"""Version 2: attachments to patterns."""

from __future__ import annotations

import pytest

from blipmq.broker.limits import Limits
from tests.broker.attached import Member
from tests.broker.logged import LoggedWorld
from tests.broker.world import World


@pytest.mark.parametrize(
    ("pattern", "topics"),
    [
        (b"*", {b"a"}),
        (b">", {b"a", b"a.b", b"a.b.c"}),
        (b"a.*", {b"a.b"}),
        (b"a.>", {b"a.b", b"a.b.c"}),
        (b"*.b", {b"a.b"}),
        (b"*.*.*", {b"a.b.c"}),
        (b"a.*.c", {b"a.b.c"}),
        (b"a", {b"a"}),
        (b"b.>", set()),
    ],
)
@pytest.mark.parametrize("early", [False, True], ids=["topics later", "topics first"])
def test_a_pattern_gets_what_it_matches(pattern: bytes, topics: set[bytes], early: bool) -> None:
    world = World.create()
    member, publisher, keeper = (Member(world) for _ in range(3))
    if early:
        for topic in (b"a", b"a.b", b"a.b.c"):
            keeper.attach(topic)
    member.attach(pattern, pattern=True)

    for topic in (b"a", b"a.b", b"a.b.c"):
        publisher.publish(topic, topic)

    assert set(member.take()) == topics


def test_a_wildcard_in_the_first_level_does_not_match_dead_letters() -> None:
    world = World.create()
    wild, named = Member(world), Member(world)
    wild.attach(b">", pattern=True)
    named.attach(b"$dead.>", pattern=True)
    member = Member(world)
    member.attach(b"t", ack_wait_ms=1_000, max_attempts=1)
    Member(world).publish(b"t", b"a")
    member.take()

    world.pass_time(1)

    assert (wild.take(), named.take()) == ([b"a"], [b"a"])


def test_a_topic_in_which_patterns_alone_are_makes_room_for_another() -> None:
    world = World.create(Limits(max_topics=2))
    member, publisher = Member(world), Member(world)
    id_ = member.attach(b">", pattern=True)
    for topic in (b"a", b"b", b"c", b"d"):
        publisher.publish(topic, topic)
        assert member.take() == [topic]
        member.accept_all(id_)

    assert publisher.refused == []


def test_a_named_pattern_goes_on_after_a_restart() -> None:
    world = LoggedWorld.logged()
    Member(world).attach(b"a.*", name=b"n", pattern=True)
    Member(world).publish(b"a.b", b"1")
    world.commit()
    world.crash()
    publisher, member = Member(world), Member(world)
    publisher.publish(b"a.c", b"2")
    world.commit()

    member.attach(b"a.*", name=b"n", pattern=True)
    member.receive()
    world.read()

    assert sorted(member.take()) == [b"1", b"2"]


def test_a_pattern_whose_place_in_a_topic_a_crash_has_cut_off_takes_a_new_one() -> None:
    world = LoggedWorld.logged()
    for name in (b"one", b"other"):
        Member(world).attach(b">", name=name, pattern=True)
    world.commit()
    Member(world).publish(b"a", b"1")
    batch = world.broker.handoff()
    assert batch is not None
    del batch.facts[1:]  # of two places and a run
    world.log.append(batch, world.time_ms)
    world.crash()

    Member(world).publish(b"a", b"2")
    world.commit()

    for name in (b"one", b"other"):
        member = Member(world)
        member.attach(b">", name=name, pattern=True)
        member.receive()
        world.read()
        assert member.take() == [b"2"]
