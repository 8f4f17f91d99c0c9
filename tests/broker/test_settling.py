"""Version 2: what members say of what they got, and what comes of saying nothing."""

from __future__ import annotations

import pytest

from blipmq.broker.limits import Retries
from blipmq.protocol import encoder
from blipmq.protocol.frames import Outcome
from blipmq.protocol.properties import MessageProperties
from tests.broker.attached import LAST, Member, tags
from tests.broker.world import World

TTL = MessageProperties(ttl_ms=10_000)


def test_a_range_settles_across_runs_and_over_tags_of_others() -> None:
    world = World.create()
    one, other, publisher = (Member(world) for _ in range(3))
    id_ = one.attach(b"t", name=b"n", prefetch=2)
    other.attach(b"t", name=b"n", prefetch=2)
    for body in (b"a", b"b", b"c", b"d"):
        publisher.publish(b"t", body)
        publisher.publish(b"u", b"foreign")
    mine, others = one.take_pushed(), other.take_pushed()

    one.settle(id_, min(tags(mine + others)), max(tags(mine + others)))

    inflight = world.broker.stats.inflight
    assert (len(mine), len(others), inflight) == (2, 2, 2)


def test_a_tag_of_another_connection_cannot_be_settled() -> None:
    world = World.create()
    one, other = Member(world), Member(world)
    one.attach(b"t", name=b"n", ack_wait_ms=1_000)
    theirs = other.attach(b"t", name=b"n", prefetch=0)
    Member(world).publish(b"t", b"a")
    (pushed,) = one.take_pushed()

    other.settle(theirs, pushed.tag)
    world.pass_time(1)

    assert one.take() == [b"a"]


def test_an_attachment_of_another_connection_is_not_there() -> None:
    world = World.create()
    one, other = Member(world), Member(world)
    id_ = one.attach(b"t")
    Member(world).publish(b"t", b"a")
    (pushed,) = one.take_pushed()

    other.settle(id_, pushed.tag)
    other.send(encoder.poll(7, id_), encoder.detach(8, id_))

    inflight = world.broker.stats.inflight
    assert (inflight, other.take()) == (1, [])
    assert other.refused == [(8, 404, "unknown subscription")]


def test_settling_twice_or_what_is_unknown_is_skipped() -> None:
    world = World.create()
    member = Member(world)
    id_ = member.attach(b"t")
    Member(world).publish(b"t", b"a", b"b")
    first, _ = member.take_pushed()

    member.settle(id_, first.tag)
    member.settle(id_, first.tag)
    member.settle(id_, 1_000, LAST)
    member.settle(99, 1, LAST)

    inflight = world.broker.stats.inflight
    assert (inflight, member.refused) == (1, [])


def test_rows_are_carried_out_in_their_order() -> None:
    world = World.create()
    member = Member(world)
    id_ = member.attach(b"t")
    Member(world).publish(b"t", b"a", b"b", b"c")
    first, second, third = tags(member.take_pushed())

    member.send(
        encoder.settle(
            id_, [(Outcome.RELEASE, second, second, 0), (Outcome.ACCEPT, first, third, 0)]
        )
    )

    assert member.take() == [b"b"]


def test_an_acceptance_counts_after_the_deadline() -> None:
    world = World.create()
    member = Member(world)
    id_ = member.attach(b"t", prefetch=1, ack_wait_ms=1_000)
    other = member.attach(b"u", prefetch=1)
    publisher = Member(world)
    publisher.publish(b"t", b"a")
    (pushed,) = member.take_pushed()
    world.pass_time(1)

    member.settle(id_, pushed.tag)
    publisher.publish(b"u", b"b")

    assert [(p.subscription, p.body) for p in member.take_pushed()] == [(other, b"b")]
    assert world.broker.next_deadline is not None


def test_an_acceptance_does_not_count_when_another_has_the_message_by_then() -> None:
    world = World.create()
    one, other = Member(world), Member(world)
    late = one.attach(b"t", name=b"n", prefetch=1, ack_wait_ms=1_000)
    Member(world).publish(b"t", b"a")
    (pushed,) = one.take_pushed()
    other.attach(b"t", name=b"n")
    world.pass_time(1)
    assert other.take() == [b"a"]

    one.settle(late, pushed.tag)

    assert world.broker.stats.inflight == 1


def test_an_acceptance_counts_for_the_rest_of_what_came_back_when_another_took_some() -> None:
    world = World.create()
    one, other = Member(world), Member(world)
    late = one.attach(b"t", name=b"n", prefetch=10, ack_wait_ms=1_000)
    Member(world).publish(b"t", *(b"%d" % i for i in range(10)))
    one.take()
    other.attach(b"t", name=b"n", prefetch=1)
    world.pass_time(1)
    assert other.take() == [b"0"]

    one.accept_all(late)

    assert one.take() == []


def test_what_is_extended_after_the_deadline_is_held_again() -> None:
    world = World.create()
    member = Member(world)
    id_ = member.attach(b"t", ack_wait_ms=1_000)
    Member(world).publish(b"t", b"a")
    (pushed,) = member.take_pushed()
    world.pass_time(1)
    member.client.feed(encoder.settle(id_, [(Outcome.EXTEND, pushed.tag, pushed.tag, 0)]))

    early = member.take()
    world.pass_time(1)

    assert (early, [p.attempt for p in member.take_pushed()]) == ([], [2])


def test_a_retry_comes_after_its_own_delay() -> None:
    world = World.create()
    member = Member(world)
    id_ = member.attach(b"t")
    Member(world).publish(b"t", b"a")
    (pushed,) = member.take_pushed()
    member.settle(id_, pushed.tag, outcome=Outcome.RETRY, delay_ms=5_000)

    world.pass_time(4.999)
    early = member.take()
    world.pass_time(0.001)

    assert (early, member.take()) == ([], [b"a"])


def test_a_retry_without_a_delay_waits_twice_as_long_each_time() -> None:
    world = World.create(retries=Retries(retry_backoff_ms=100))
    member = Member(world)
    id_ = member.attach(b"t", max_attempts=0)
    Member(world).publish(b"t", b"a")
    waits = []
    for _ in range(4):
        (pushed,) = member.take_pushed()
        member.settle(id_, pushed.tag, outcome=Outcome.RETRY)
        due = world.broker.next_deadline
        assert due is not None
        waits.append(round(due - world.now, 3))
        world.pass_time(due - world.now)

    assert waits == [0.1, 0.2, 0.4, 0.8]


@pytest.mark.parametrize("most", [1, 3])
def test_a_message_is_delivered_as_often_as_allowed(most: int) -> None:
    world = World.create()
    member = Member(world)
    member.attach(b"t", ack_wait_ms=1_000, max_attempts=most)
    Member(world).publish(b"t", b"a")
    attempts = []
    for _ in range(5):
        attempts += [pushed.attempt for pushed in member.take_pushed()]
        world.pass_time(1)

    assert attempts == list(range(1, most + 1))


def test_max_attempts_0_has_no_limit() -> None:
    world = World.create()
    member = Member(world)
    member.attach(b"t", ack_wait_ms=1_000, max_attempts=0)
    Member(world).publish(b"t", b"a")
    attempts = []
    for _ in range(20):
        attempts += [pushed.attempt for pushed in member.take_pushed()]
        world.pass_time(1)

    assert attempts == list(range(1, 21))


@pytest.mark.parametrize("outcome", [Outcome.RETRY, Outcome.RELEASE])
def test_a_release_does_not_use_up_an_attempt_and_a_retry_does(outcome: Outcome) -> None:
    world = World.create()
    member = Member(world)
    id_ = member.attach(b"t", max_attempts=2)
    Member(world).publish(b"t", b"a")
    deliveries = 0
    for _ in range(5):
        for pushed in member.take_pushed():
            deliveries += 1
            member.client.feed(encoder.settle(id_, [(outcome, pushed.tag, pushed.tag, 0)]))
        world.pass_time(1)

    assert deliveries == (2 if outcome is Outcome.RETRY else 5)


def test_what_is_detached_from_is_released_to_others_without_counting() -> None:
    world = World.create()
    one, other = Member(world), Member(world)
    id_ = one.attach(b"t", name=b"n", max_attempts=1)
    Member(world).publish(b"t", b"a", b"b")
    one.take()
    other.attach(b"t", name=b"n")

    one.detach(id_)

    assert [(p.body, p.attempt) for p in other.take_pushed()] == [(b"a", 1), (b"b", 1)]


def test_what_fell_due_expires_when_its_time_comes() -> None:
    world = World.create()
    member, dead, publisher = (Member(world) for _ in range(3))
    member.attach(b"t", name=b"n", prefetch=1, ack_wait_ms=5_000)
    dead.attach(b"$dead.t")
    publisher.message(b"t", b"a", TTL)
    assert member.take() == [b"a"]
    publisher.message(b"t", b"b", MessageProperties(ttl_ms=3_000))
    world.pass_time(3)
    early = dead.take()

    world.pass_time(7)

    assert (early, dead.take()) == ([b"b"], [b"a"])


def test_settling_lets_the_next_ones_come() -> None:
    world = World.create()
    member = Member(world)
    id_ = member.attach(b"t", prefetch=3)
    Member(world).publish(b"t", *(b"%d" % i for i in range(10)))
    first = member.take_pushed()

    member.settle(id_, first[1].tag)

    assert [p.body for p in first] == [b"0", b"1", b"2"]
    assert member.take() == [b"3"]


@pytest.mark.parametrize("payload", [b"", bytes(20), b"\5" + bytes(20), bytes(22)])
def test_a_malformed_settle_is_refused(payload: bytes) -> None:
    member = Member(World.create())

    member.send(encoder.frame(0x16, 7, payload))

    assert member.refused == [(0, 400, "invalid SETTLE payload")]


def test_a_settle_whose_range_is_upside_down_is_refused_as_a_whole() -> None:
    world = World.create()
    member = Member(world)
    id_ = member.attach(b"t")
    Member(world).publish(b"t", b"a")
    (pushed,) = member.take_pushed()

    member.send(encoder.settle(id_, [(0, pushed.tag, pushed.tag, 0), (0, 2, 1, 0)]))

    inflight = world.broker.stats.inflight
    assert (inflight, member.refused) == (1, [(0, 400, "invalid SETTLE payload")])


def test_what_a_member_lets_fall_due_goes_to_another_that_has_room() -> None:
    world = World.create()
    idle, other = Member(world), Member(world)
    idle.attach(b"t", name=b"n", ack_wait_ms=1_000)
    Member(world).publish(b"t", b"a")
    assert idle.take() == [b"a"]
    other.attach(b"t", name=b"n", ack_wait_ms=1_000)
    other.receive()

    world.pass_time(1)

    assert idle.client.session.has_output is False
    assert [(p.body, p.attempt) for p in other.take_pushed()] == [(b"a", 2)]
