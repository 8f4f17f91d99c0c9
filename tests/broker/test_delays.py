"""Version 2: messages that are published later."""

from __future__ import annotations

import pytest

from blipmq.protocol.properties import MessageProperties
from tests.broker.attached import Member
from tests.broker.logged import LoggedWorld
from tests.broker.world import World


@pytest.mark.parametrize("crash_at", [0.5, 1.5])
def test_a_delayed_message_outlives_a_restart(crash_at: float) -> None:
    world = LoggedWorld.logged()
    Member(world).attach(b"t", name=b"n")
    Member(world).message(b"t", b"a", MessageProperties(delay_ms=1_000))
    world.commit()
    world.now += crash_at
    world.crash()
    member = Member(world)
    member.attach(b"t", name=b"n")

    world.pass_time(1)
    world.commit()

    assert member.take() == [b"a"]


def test_a_delayed_message_whose_publishing_is_not_in_the_log_is_published_after_the_restart() -> (
    None
):
    world = LoggedWorld.logged()
    Member(world).attach(b"t", name=b"n")
    Member(world).message(b"t", b"a", MessageProperties(delay_ms=1_000))
    world.commit()
    world.pass_time(1)
    world.checkpoint()
    world.crash()
    member = Member(world)
    member.attach(b"t", name=b"n")

    world.pass_time(0.1)
    world.commit()

    assert member.take() == [b"a"]


def test_a_delayed_message_that_was_published_is_not_published_again_after_a_restart() -> None:
    world = LoggedWorld.logged()
    Member(world).attach(b"t", name=b"n")
    Member(world).message(b"t", b"a", MessageProperties(delay_ms=1_000))
    world.commit()
    world.pass_time(1)
    world.commit()
    world.crash()
    member = Member(world)
    member.attach(b"t", name=b"n")
    member.receive()

    world.pass_time(5)
    world.commit()

    assert member.take() == [b"a"]


def test_the_ttl_of_a_delayed_message_runs_from_when_it_is_due() -> None:
    world = World.create()
    member, dead = Member(world), Member(world)
    member.attach(b"t", name=b"n", prefetch=0)
    dead.attach(b"$dead.t")
    Member(world).message(b"t", b"a", MessageProperties(delay_ms=5_000, ttl_ms=1_000))

    world.pass_time(5.9)
    early = dead.take()
    world.pass_time(0.1)

    assert (early, dead.take()) == ([], [b"a"])


def test_a_delayed_message_goes_to_those_that_are_there_when_it_is_due() -> None:
    world = World.create()
    before, after, publisher = (Member(world) for _ in range(3))
    id_ = before.attach(b"t")
    publisher.message(b"t", b"a", MessageProperties(delay_ms=1_000))
    before.detach(id_)
    after.attach(b"t")

    world.pass_time(1)

    assert (before.take(), after.take()) == ([], [b"a"])


def test_a_delayed_message_that_fails_is_never_published() -> None:
    world = World.create(durable=True)
    member, publisher = Member(world), Member(world)
    member.attach(b"t")
    call = publisher.message(b"t", b"a", MessageProperties(delay_ms=1_000))
    world.fail()
    publisher.receive()

    world.pass_time(2)
    world.commit()

    assert [(c, code) for c, code, _ in publisher.refused] == [(call, 500)]
    assert (member.take(), world.broker.stats.delayed) == ([], 0)
