"""Backlogs that are on the disk: read back in order, once, while publishing goes on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from blipmq.broker import behind, broker, log_cursor, topic
from blipmq.broker.limits import Limits
from blipmq.broker.stats import DropReason
from blipmq.protocol.frames import Outcome
from blipmq.protocol.properties import MessageProperties
from tests.broker.attached import LAST, Member, Pushed
from tests.broker.logged import LoggedWorld

LIMITS = Limits(window_bytes=1_000, queue_capacity=8, queue_bytes=8)


@pytest.fixture(autouse=True)
def _little_memory() -> Iterator[None]:
    """So little is kept that a few messages are a backlog on the disk."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(topic, "WINDOW_BYTES", 500)
        patch.setattr(log_cursor, "LOAD_BYTES", 800)
        patch.setattr(broker, "LOAD_BYTES", 800)
        patch.setattr(behind, "_GAP_MAX", 2)
        yield


def body(number: int) -> bytes:
    return b"%03d" % number + bytes(77)


def publish(world: LoggedWorld, first: int, stop: int, qos: int = 1) -> None:
    publisher = Member(world)
    for number in range(first, stop):
        publisher.publish(b"t", body(number), qos=qos)
        world.commit()
    assert publisher.refused == []
    publisher.disconnect()


def numbers(bodies: list[bytes]) -> list[int]:
    return [int(body[:3]) for body in bodies]


def held(world: LoggedWorld) -> dict[str, int]:
    return {row.subscription: row.messages for row in world.broker.backlogs(9, world.now)}


def receive(world: LoggedWorld, member: Member) -> list[Pushed]:
    """All that the member may have now, read as it is wanted."""
    got = member.take_pushed()
    while world.read_once():
        got += member.take_pushed()
    return got


def bodies(pushed: list[Pushed]) -> list[bytes]:
    return [message.body for message in pushed]


def catch_up(world: LoggedWorld, member: Member, id_: int) -> list[int]:
    """Accept what comes, until nothing more does."""
    got: list[int] = []
    while taken := receive(world, member):
        got += numbers(bodies(taken))
        member.accept_all(id_)
        world.commit()
    return got


def test_a_backlog_takes_little_memory() -> None:
    world = LoggedWorld.logged(LIMITS)
    member = Member(world)
    member.detach(member.attach(b"t", name=b"n"))

    publish(world, 0, 20)
    before = world.broker.stats.memory_bytes
    publish(world, 20, 300)

    memory_bytes, behind_ = world.broker.stats.memory_bytes, world.broker.stats.behind
    assert (memory_bytes, behind_, held(world)) == (before, 1, {"n": 300})


def test_it_is_read_in_order_and_the_list_goes_on_where_it_ends() -> None:
    world = LoggedWorld.logged(LIMITS)
    member = Member(world)
    member.detach(member.attach(b"t", name=b"n"))
    publish(world, 0, 100)

    id_ = member.attach(b"t", name=b"n", prefetch=7)
    got = catch_up(world, member, id_)
    publish(world, 100, 103)
    got += catch_up(world, member, id_)

    behind_ = world.broker.stats.behind
    assert (got, behind_, held(world)) == (list(range(103)), 0, {"n": 0})


def test_publishing_goes_on_while_it_is_read() -> None:
    world = LoggedWorld.logged(LIMITS, read_bytes=200)
    member = Member(world)
    member.detach(member.attach(b"t", name=b"n"))
    publish(world, 0, 40)
    id_ = member.attach(b"t", name=b"n", prefetch=3)
    got: list[int] = []
    for number in range(40, 80):
        got += numbers(member.take())
        member.accept_all(id_)
        assert held(world) == {"n": number - len(got)}
        publish(world, number, number + 1)

    got += catch_up(world, member, id_)

    assert got == list(range(80))


def test_reading_does_not_run_ahead_of_who_wants_it() -> None:
    world = LoggedWorld.logged(LIMITS, read_bytes=200)
    member = Member(world)
    member.detach(member.attach(b"t", name=b"n"))
    publish(world, 0, 200)
    before = world.broker.stats.memory_bytes

    member.attach(b"t", name=b"n", prefetch=1)
    member.receive()
    world.read()
    taken = member.take()
    world.read()

    memory_bytes = world.broker.stats.memory_bytes
    assert len(taken) == 1
    assert memory_bytes < before + 5_000


@pytest.mark.parametrize("checkpoint", [False, True])
def test_a_restart_leaves_what_was_not_accepted(checkpoint: bool) -> None:
    world = LoggedWorld.logged(LIMITS)
    member = Member(world)
    id_ = member.attach(b"t", name=b"n", prefetch=20)
    publish(world, 0, 60)
    pushed = receive(world, member)
    for place in (3, 4, 9, 17):
        member.settle(id_, pushed[place].tag)
    world.commit()
    if checkpoint:
        world.checkpoint()
    world.crash()
    member = Member(world)
    before = held(world)

    id_ = member.attach(b"t", name=b"n", prefetch=5)
    got = catch_up(world, member, id_)

    left = [number for number in range(60) if number not in (3, 4, 9, 17)]
    assert (got, before, held(world)) == (left, {"n": 56}, {"n": 0})


def test_what_comes_back_to_a_backlog_on_the_disk_keeps_its_place_and_attempt() -> None:
    world = LoggedWorld.logged(LIMITS)
    member = Member(world)
    id_ = member.attach(b"t", name=b"n", prefetch=30)
    publish(world, 0, 60)
    pushed = receive(world, member)
    member.settle(id_, pushed[1].tag)
    member.disconnect()
    assert world.broker.stats.behind == 1

    member = Member(world)
    member.attach(b"t", name=b"n", prefetch=100)
    again = receive(world, member)

    assert [int(p.body[:3]) for p in again] == [0, *range(2, 60)]
    assert [p.attempt for p in again] == [2] * 30 + [1] * 29


def test_messages_of_one_run_that_are_far_apart_are_read_once() -> None:
    world = LoggedWorld.logged(LIMITS)
    member, publisher = Member(world), Member(world)
    id_ = member.attach(b"t", name=b"n", prefetch=100)
    publisher.publish(b"t", *(b"%03d" % number for number in range(12)))
    world.commit()
    got = member.take_pushed()
    for place in range(1, 11):
        member.settle(id_, got[place].tag, got[place].tag)
    world.commit()
    world.crash()

    again = Member(world)
    id_ = again.attach(b"t", name=b"n", prefetch=100)
    assert catch_up(world, again, id_) == [0, 11]
    assert held(world) == {"n": 0}


def test_what_comes_back_while_later_messages_are_read_is_read_as_well() -> None:
    world = LoggedWorld.logged(LIMITS)
    member = Member(world)
    member.detach(member.attach(b"t", name=b"n"))
    publish(world, 0, 40)
    member.attach(b"t", name=b"n", prefetch=100)
    for _ in range(2):
        world.read_once()
        member.take_pushed()
    load = world.broker.next_load()
    assert load is not None
    member.disconnect()  # what it held is more than is kept in memory
    runs, reached = world.log.read(load)
    world.broker.loaded(load, runs, reached, None, world.now)

    again = Member(world)
    id_ = again.attach(b"t", name=b"n", prefetch=100)
    assert sorted(catch_up(world, again, id_)) == list(range(40))
    assert held(world) == {"n": 0}


def test_a_limit_of_attempts_holds_for_what_was_read_back() -> None:
    world = LoggedWorld.logged(LIMITS)
    dead, member = Member(world), Member(world)
    dead.attach(b"$dead.t", prefetch=100)
    member.attach(b"t", name=b"n", prefetch=30, max_attempts=1)
    publish(world, 0, 60)
    taken = numbers(bodies(receive(world, member)))

    member.disconnect()
    world.commit()

    assert (taken, numbers(bodies(receive(world, dead)))) == (list(range(30)), list(range(30)))
    assert held(world)["n"] == 30


def test_several_subscriptions_are_at_places_of_their_own() -> None:
    world = LoggedWorld.logged(LIMITS, read_bytes=300)
    members = [Member(world) for _ in range(3)]
    ids = []
    for at, member in enumerate(members):
        ids.append(member.attach(b"t", name=b"n%d" % at, prefetch=1 + 8 * at))
    got: list[list[int]] = [[], [], []]
    for number in range(0, 60, 10):
        publish(world, number, number + 10)
        for at, member in enumerate(members):
            got[at] += numbers(member.take())
            member.accept_all(ids[at])
    for at, member in enumerate(members):
        got[at] += catch_up(world, member, ids[at])

    assert got == [list(range(60))] * 3
    assert (world.broker.stats.behind, set(held(world).values())) == (0, {0})


def test_qos_0_messages_pass_a_subscription_that_is_behind_counted() -> None:
    world = LoggedWorld.logged(LIMITS)
    member = Member(world)
    member.detach(member.attach(b"t", name=b"n"))
    publish(world, 0, 30)
    publish(world, 500, 510, qos=0)
    publish(world, 30, 60)

    id_ = member.attach(b"t", name=b"n")
    got = catch_up(world, member, id_)

    passed = world.broker.stats.dropped[DropReason.BEHIND]
    assert (got, passed) == (list(range(60)), 10)


def test_a_message_that_arrived_before_the_window_comes_before_it_however_late_it_was_written() -> (
    None
):
    world = LoggedWorld.logged(LIMITS)
    Member(world).attach(b"t", name=b"n", prefetch=0)
    world.commit()
    world.crash()
    publisher, member = Member(world), Member(world)
    publisher.publish(b"t", body(0))
    publisher.publish(b"t", body(1))
    world.pass_time(1)
    world.commit()
    for number in range(500, 510):
        publisher.publish(b"t", body(number), qos=0)

    id_ = member.attach(b"t", name=b"n")
    got = catch_up(world, member, id_)

    assert [number for number in got if number < 500] == [0, 1]


def test_many_backlogs_do_not_fill_the_memory() -> None:
    limits = Limits(max_memory_bytes=200_000, window_bytes=20_000)
    world = LoggedWorld.logged(limits)
    member, publisher = Member(world), Member(world)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(topic, "WINDOW_BYTES", 50_000)
        patch.setattr(broker, "_RELIEVED_BYTES", 2_000)
        names = [b"t%d" % i for i in range(8)]
        for name in names:
            member.detach(member.attach(name, name=b"n"))
        for _ in range(60):
            for name in names:
                publisher.publish(name, bytes(1_000))
                world.commit()
                publisher.receive()

    assert publisher.refused == []


def test_what_is_deleted_while_it_is_read_holds_nothing() -> None:
    world = LoggedWorld.logged(LIMITS)
    member = Member(world)
    member.detach(member.attach(b"t", name=b"n"))
    publish(world, 0, 60)
    id_ = member.attach(b"t", name=b"n")
    member.receive()
    load = world.broker.next_load()
    assert load is not None
    runs, reached = world.log.read(load)

    member.detach(id_, delete=True)
    world.broker.loaded(load, runs, reached, None, world.now)
    del load, runs
    world.commit()

    stats = world.broker.stats
    left = stats.memory_bytes, stats.behind, stats.topics
    assert left == (0, 0, 0)


def test_messages_expire_on_the_disk() -> None:
    world = LoggedWorld.logged(LIMITS)
    member, publisher, dead = (Member(world) for _ in range(3))
    member.detach(member.attach(b"t", name=b"n"))
    dead.attach(b"$dead.t")
    for number in range(30):
        ttl_ms = 1_000 if number < 20 else None
        publisher.message(b"t", body(number), MessageProperties(ttl_ms=ttl_ms))
        world.commit()
    world.now += 2

    id_ = member.attach(b"t", name=b"n")
    got = catch_up(world, member, id_)

    assert (got, numbers(bodies(receive(world, dead)))) == (list(range(20, 30)), list(range(20)))


def test_what_is_rejected_of_a_backlog_is_buried_once() -> None:
    world = LoggedWorld.logged(LIMITS)
    member, dead = Member(world), Member(world)
    member.detach(member.attach(b"t", name=b"n"))
    dead.attach(b"$dead.t", prefetch=100)
    publish(world, 0, 30)
    id_ = member.attach(b"t", name=b"n", prefetch=4)
    while receive(world, member):
        member.settle(id_, 1, LAST, Outcome.REJECT)
        world.commit()

    assert numbers(bodies(receive(world, dead))) == list(range(30))


def test_a_full_backlog_on_the_disk_drops_its_oldest_counted() -> None:
    limits = Limits(
        window_bytes=1_000,
        queue_capacity=8,
        queue_bytes=8,
        max_backlog_bytes=5_000,
        backlog_full="drop_oldest",
    )
    world = LoggedWorld.logged(limits)
    member = Member(world)
    member.detach(member.attach(b"t", name=b"n"))
    publish(world, 0, 300)
    (backlog,) = world.broker.backlogs(1, world.now)

    id_ = member.attach(b"t", name=b"n")
    got = catch_up(world, member, id_)

    dropped = world.broker.stats.dropped[DropReason.BACKLOG]
    assert backlog.bytes < 10_000
    assert got == list(range(300 - len(got), 300))
    assert (len(got), dropped) == (backlog.messages, 300 - len(got))


def test_a_full_backlog_on_the_disk_refuses_and_takes_again_when_there_is_room() -> None:
    world = LoggedWorld.logged(
        Limits(window_bytes=1_000, queue_capacity=8, queue_bytes=8, max_backlog_bytes=5_000)
    )
    member, publisher = Member(world), Member(world)
    member.detach(member.attach(b"t", name=b"n"))
    for number in range(100):
        publisher.publish(b"t", body(number))
        world.commit()
    refused = {(code, text) for _, code, text in publisher.refused}
    count = len(publisher.refused)

    id_ = member.attach(b"t", name=b"n")
    got = catch_up(world, member, id_)
    publisher.refused.clear()
    publisher.publish(b"t", body(100))
    world.commit()

    assert (refused, got) == ({(503, "backlog full")}, list(range(100 - count)))
    assert (numbers(member.take()), publisher.refused) == ([100], [])
