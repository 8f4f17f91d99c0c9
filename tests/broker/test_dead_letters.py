"""Version 2: messages that were given up."""

from __future__ import annotations

import pytest

from blipmq.broker.limits import Limits, Retention, Retries
from blipmq.broker.stats import DropReason
from blipmq.protocol.frames import Outcome
from blipmq.protocol.properties import MessageProperties
from tests.broker.attached import LAST, Member
from tests.broker.logged import LoggedWorld
from tests.broker.world import World


def given_up(world: World, name: bytes = b"n") -> None:
    """One message of `t` was rejected."""
    member = Member(world)
    id_ = member.attach(b"t", name=name)
    Member(world).message(b"t", b"a", MessageProperties(message_id=b"1", key=b"k"))
    world.commit()
    (pushed,) = member.take_pushed()
    member.settle(id_, pushed.tag, outcome=Outcome.REJECT)


def test_a_dead_letter_has_what_the_message_had_but_its_message_id() -> None:
    world = World.create()
    dead = Member(world)
    dead.attach(b"$dead.t")

    given_up(world)

    (letter,) = dead.take_pushed()
    assert (letter.properties.message_id, letter.properties.key) == (None, b"k")
    assert (letter.qos, letter.attempt) == (1, 1)


def test_each_subscription_gives_up_for_itself() -> None:
    world = World.create()
    one, other, dead, publisher = (Member(world) for _ in range(4))
    dead.attach(b"$dead.t")
    for member, name in ((one, b"m"), (other, b"n")):
        member.attach(b"t", name=name, ack_wait_ms=1_000, max_attempts=1)
    publisher.publish(b"t", b"a")
    one.take(), other.take()

    world.pass_time(1)

    origins = [letter.properties.dead_letter for letter in dead.take_pushed()]
    assert sorted(o.subscription for o in origins if o is not None) == [b"m", b"n"]


def test_a_dead_letter_and_its_settlement_are_in_the_log_together() -> None:
    world = LoggedWorld.logged()
    given_up(world)
    world.crash()
    member = Member(world)
    id_ = member.attach(b"t", name=b"n")
    member.receive()
    world.read()
    assert member.take() == [b"a"]
    member.settle(id_, 1, LAST, Outcome.REJECT)
    world.commit()

    world.crash()

    member, dead = Member(world), Member(world)
    member.attach(b"t", name=b"n")
    dead.attach(b"$dead.t")
    member.receive()
    world.read()
    assert (member.take(), dead.take()) == ([], [b"a"])


def test_a_crash_between_checkpoint_and_dead_letter_makes_no_further_delivery() -> None:
    world = LoggedWorld.logged()
    member = Member(world)
    member.attach(b"t", name=b"n", ack_wait_ms=1_000, max_attempts=1)
    Member(world).publish(b"t", b"a")
    world.commit()
    assert member.take() == [b"a"]
    world.commit()
    world.pass_time(1)
    world.checkpoint()
    world.crash()

    again, dead = Member(world), Member(world)
    again.attach(b"t", name=b"n", prefetch=1)
    dead.attach(b"$dead.t")
    world.read()
    again.receive()
    world.commit()

    assert (again.take(), dead.take()) == ([], [b"a"])


def test_a_dead_letter_that_is_given_up_is_dropped_counted() -> None:
    world = World.create()
    dead, further = Member(world), Member(world)
    id_ = dead.attach(b"$dead.t")
    further.attach(b"$dead.>", pattern=True)
    given_up(world)
    (letter,) = dead.take_pushed()
    assert further.take() == [b"a"]

    dead.settle(id_, letter.tag, outcome=Outcome.REJECT)

    dropped = world.broker.stats.dropped[DropReason.DEAD_LETTER]
    assert (dropped, further.take()) == (1, [])


def test_a_dead_letter_does_not_expire() -> None:
    world = World.create(retention=Retention(message_ttl_ms=1_000))
    keeper, dead = Member(world), Member(world)
    keeper.detach(keeper.attach(b"$dead.t", name=b"keeper"))
    given_up(world)
    world.pass_time(10)

    dead.attach(b"$dead.t", name=b"keeper", prefetch=1)

    assert dead.take() == [b"a"]


def test_a_full_dead_letter_topic_drops_its_oldest() -> None:
    world = World.create(Limits(max_backlog_bytes=400, queue_bytes=8))
    keeper, dead = Member(world), Member(world)
    keeper.attach(b"$dead.t", name=b"keeper", prefetch=0)
    member, publisher = Member(world), Member(world)
    id_ = member.attach(b"t")
    for i in range(20):
        publisher.publish(b"t", b"%02d" % i)
        member.take()
        member.settle(id_, 1, LAST, Outcome.REJECT)

    dead.attach(b"$dead.t", name=b"keeper")

    got = [int(body) for body in dead.take()]
    dropped = world.broker.stats.dropped[DropReason.BACKLOG]
    assert publisher.refused == []
    assert 0 < len(got) < 20
    assert (got, dropped) == (list(range(20 - len(got), 20)), 20 - len(got))


def test_dead_letters_can_be_switched_off() -> None:
    world = World.create(retention=Retention(dead_letters=False))
    dead = Member(world)
    dead.attach(b"$dead.t")

    given_up(world)

    assert (dead.take(), world.broker.stats.dropped[DropReason.REJECTED]) == ([], 1)


def test_a_version_1_subscription_gives_up_to_the_dead_letters_too() -> None:
    world = World.create(retries=Retries(max_retries=1, retry_backoff_ms=100))
    dead, old = Member(world), world.connect()
    dead.attach(b"$dead.t")
    subscription = old.subscribe(b"t")
    old.publish(b"t", b"a")
    old.poll(subscription)

    world.pass_time(1)

    (letter,) = dead.take_pushed()
    origin = letter.properties.dead_letter
    assert origin is not None
    assert (letter.body, origin.reason, origin.subscription) == (b"a", "max attempts", b"")


@pytest.mark.parametrize("topic", [b"$dead.t", b"$x"])
def test_nobody_publishes_to_topics_of_the_broker(topic: bytes) -> None:
    member = Member(World.create())

    (call,) = member.publish(topic, b"a")

    assert member.refused == [(call, 403, "not permitted")]
