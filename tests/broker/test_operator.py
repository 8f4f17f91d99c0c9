"""What an operator does to backlogs, and what of it a crash leaves."""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeVar

import pytest

from blipmq.broker.limits import Limits, Retention
from blipmq.broker.operator import HOLDER, Conflict, Letter, Letters, Missing
from blipmq.broker.overview import Page
from blipmq.broker.stats import DropReason
from blipmq.errors import Unavailable
from blipmq.protocol.attach_properties import Start, StartKind
from blipmq.protocol.frames import Outcome
from blipmq.protocol.properties import MessageProperties
from blipmq.protocol.run import stored_run
from tests.broker.attached import LAST, Member
from tests.broker.logged import LoggedWorld
from tests.broker.world import World

T = TypeVar("T")
SMALL_WINDOW = Limits(window_bytes=200)


def finished(steps: Generator[None, None, T]) -> T:
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: T = end.value
            return result


def id_of(world: World, topic: bytes, name: bytes) -> int:
    found = world.broker.operator.sharing.named(topic, name)
    assert found is not None
    return found.id


def logged_letters(world: LoggedWorld, letters: Letters) -> list[Letter]:
    """What of the log is wanted, as its reader would give it."""
    ranges = world.broker.operator.numbers(letters)
    found = []
    for record in world.log.runs:
        if record.topic != letters.topic.name:
            continue
        run = stored_run(record.topic, record.first, bytes(record.data))
        for index in range(run.count):
            if any(first <= run.first + index <= last for first, last in ranges):
                found.append(Letter(run, index, record.time_ms))
    return found


def reject(world: World, *bodies: bytes, topic: bytes = b"t") -> None:
    """These messages are dead letters."""
    member = Member(world)
    id_ = member.attach(topic, name=b"worker")
    member.take()
    for body in bodies:
        Member(world).message(topic, body, MessageProperties(key=b"k", headers=(("h", b"v"),)))
    world.commit()
    member.take()
    member.settle(id_, 1, LAST, outcome=Outcome.REJECT)
    world.commit()
    member.disconnect()


def bodies_of(letters: list[Letter]) -> list[bytes]:
    return [letter.run.body(letter.index) for letter in letters]


# Purging


def test_a_purge_settles_what_waits_and_leaves_what_is_out() -> None:
    world = LoggedWorld.logged()
    member = Member(world)
    id_ = member.attach(b"t", name=b"n", prefetch=1)
    member.publish(b"t", b"a", b"b", b"c")
    world.commit()
    (held,) = member.take_pushed()

    assert finished(world.broker.operator.purge(id_of(world, b"t", b"n"), 0.0)) == 2

    assert world.broker.stats.dropped[DropReason.PURGED] == 2
    member.settle(id_, held.tag, outcome=Outcome.RELEASE)
    assert member.take() == [b"a"]
    member.publish(b"t", b"d")
    world.commit()
    member.accept_all(id_)
    assert member.take() == [b"d"]


@pytest.mark.parametrize("limits", [Limits(), SMALL_WINDOW], ids=["in memory", "behind"])
def test_what_was_purged_does_not_come_back_after_a_crash(limits: Limits) -> None:
    world = LoggedWorld.logged(limits)
    member = Member(world)
    member.attach(b"t", name=b"n", prefetch=1)
    member.publish(b"t", *[b"%d" % number for number in range(50)])
    world.commit()
    assert member.take() == [b"0"]
    assert finished(world.broker.operator.purge_topic("t", 0.0)) == 49
    member.publish(b"t", b"later")
    world.commit()

    world.crash()
    again = Member(world)
    again.attach(b"t", name=b"n")
    world.read()

    assert again.take() == [b"0", b"later"]


def test_a_purge_that_is_not_in_the_log_yet_is_undone_by_a_crash() -> None:
    world = LoggedWorld.logged()
    member = Member(world)
    member.attach(b"t", name=b"n", prefetch=0)
    member.publish(b"t", b"a")
    world.commit()
    finished(world.broker.operator.purge_topic("t", 0.0))
    world.crash()
    again = Member(world)
    again.attach(b"t", name=b"n")
    world.read()
    assert again.take() == [b"a"]


def test_a_purge_leaves_what_is_not_committed_yet() -> None:
    world = LoggedWorld.logged()
    member = Member(world)
    member.attach(b"t", name=b"n", prefetch=0)
    member.publish(b"t", b"a")
    world.commit()
    member.publish(b"t", b"b")
    assert finished(world.broker.operator.purge_topic("t", 0.0)) == 1
    world.commit()
    world.crash()
    again = Member(world)
    again.attach(b"t", name=b"n")
    world.read()
    assert again.take() == [b"b"]


@pytest.mark.parametrize("restarted", [False, True])
def test_kept_messages_are_purged_and_later_ones_kept(restarted: bool) -> None:
    world = LoggedWorld.logged()
    Member(world).publish(b"t", b"a", b"b")
    world.commit()
    assert finished(world.broker.operator.purge_topic("t", 0.0)) == 2
    Member(world).publish(b"t", b"c")
    world.commit()
    if restarted:
        world.crash()
    member = Member(world)
    member.attach(b"t", name=b"n")
    world.read()
    assert member.take() == [b"c"]


def test_a_version_1_subscription_is_purged() -> None:
    world = LoggedWorld.logged()
    client = world.connect()
    id_ = client.subscribe(b"t")
    client.publish(b"t", b"a", b"b", b"c")
    world.commit()
    assert client.poll(id_) is not None
    assert finished(world.broker.operator.purge(id_, 0.0)) == 2
    world.commit()
    assert client.poll_all(id_) == []
    world.crash()
    again = world.connect()
    assert again.poll_all(again.subscribe(b"t")) == [b"a"]


def test_a_qos_0_subscription_is_purged_and_its_publishers_go_on() -> None:
    world = World.create(Limits(qos0_window_bytes=2_000))
    member = Member(world)
    member.attach(b"t", qos=0, prefetch=0)
    publisher = Member(world)
    publisher.publish(b"t", *[bytes(100) for _ in range(12)], qos=0)
    waits = publisher.client.session
    assert waits.paused_until
    (row,) = finished(world.broker.overview.subscription_page(_page(), 0.0)).rows
    assert row.slow
    assert finished(world.broker.operator.purge(row.id, 0.0)) == 12
    assert not waits.paused_until


def test_a_shared_subscription_with_keys_is_purged() -> None:
    world = LoggedWorld.logged()
    one, two, publisher = Member(world), Member(world), Member(world)
    first = one.attach(b"t", name=b"n", prefetch=1)
    two.attach(b"t", name=b"n", prefetch=1)
    for number in range(8):
        properties = MessageProperties(key=b"%d" % (number % 2))
        publisher.message(b"t", b"%d" % number, properties)
        world.commit()
        one.receive()
        two.receive()
    purged = finished(world.broker.operator.purge_topic("t", 0.0))
    assert purged == 8 - world.broker.stats.inflight
    world.commit()
    one.accept_all(first)
    one.take(), two.take()
    publisher.message(b"t", b"later", MessageProperties(key=b"0"))
    world.commit()
    assert sorted([*one.take(), *two.take()]) == [b"later"]


def test_a_purge_of_what_waits_for_its_time_holds() -> None:
    world = World.create()
    member = Member(world)
    id_ = member.attach(b"t", name=b"n")
    member.publish(b"t", b"a")
    (pushed,) = member.take_pushed()
    member.settle(id_, pushed.tag, outcome=Outcome.RETRY, delay_ms=1_000)
    assert finished(world.broker.operator.purge_topic("t", 0.0)) == 1
    world.pass_time(10)
    assert member.take() == []


def test_a_purge_of_a_pattern_is_one_of_all_its_topics() -> None:
    world = LoggedWorld.logged()
    member = Member(world)
    member.attach(b"t.*", name=b"n", pattern=True, prefetch=0)
    member.publish(b"t.a", b"1")
    member.publish(b"t.b", b"2")
    world.commit()
    (row,) = finished(world.broker.overview.subscription_page(_page(), 0.0)).rows
    assert (row.topics, row.backlog.messages) == (2, 2)
    assert finished(world.broker.operator.purge(row.id, 0.0)) == 2


def test_what_does_not_exist_is_not_purged() -> None:
    operator = World.create().broker.operator
    with pytest.raises(Missing, match="no topic 'nothing'"):
        finished(operator.purge_topic("nothing", 0.0))
    with pytest.raises(Missing, match="no subscription 7"):
        finished(operator.purge(7, 0.0))


# Deleting


def test_a_deleted_subscription_is_gone_after_a_crash_and_its_members_are_told() -> None:
    world = LoggedWorld.logged()
    member = Member(world)
    id_ = member.attach(b"t", name=b"n", prefetch=0)
    member.publish(b"t", b"a")
    world.commit()
    assert world.broker.operator.delete(id_of(world, b"t", b"n"), 0.0) == 1
    member.receive()
    assert member.ended == [(id_, "deleted")]
    world.commit()
    world.crash()
    assert world.broker.stats.subscriptions == 0


def test_a_parked_subscription_is_deleted_and_a_connected_one_is_not() -> None:
    world = LoggedWorld.logged()
    client = world.connect()
    id_ = client.subscribe(b"t")
    with pytest.raises(Conflict, match="its client is connected"):
        world.broker.operator.delete(id_, 0.0)
    client.disconnect()
    world.broker.operator.delete(id_, 0.0)
    assert world.broker.stats.subscriptions_parked == 0
    world.pass_time(100_000)
    with pytest.raises(Missing):
        world.broker.operator.delete(id_, 0.0)


# Dead letters


@pytest.mark.parametrize("restarted", [False, True])
def test_a_kept_dead_letter_is_published_again_and_the_others_stay(restarted: bool) -> None:
    world = LoggedWorld.logged()
    reject(world, b"a", b"b", b"c")
    operator = world.broker.operator
    letters = operator.letters("t")
    found = logged_letters(world, letters)
    assert bodies_of(found) == [b"a", b"b", b"c"]

    assert operator.resend(letters, [found[1]], 0.0) == [found[1].number]
    world.commit()
    operator.tidy(letters)

    if restarted:
        world.crash()
    letters = world.broker.operator.letters("t")
    assert letters.subscription is not None
    assert bodies_of(logged_letters(world, letters)) == [b"a", b"c"]
    member = Member(world)
    member.attach(b"t", name=b"worker")
    world.read()
    (again,) = member.take_pushed()
    assert (again.body, again.properties.dead_letter, again.attempt) == (b"b", None, 1)
    assert (again.properties.key, again.properties.headers) == (b"k", (("h", b"v"),))


def test_with_the_last_kept_dead_letter_its_subscription_goes() -> None:
    world = LoggedWorld.logged()
    reject(world, b"a", b"b")
    operator = world.broker.operator
    letters = operator.letters("t")
    operator.resend(letters, logged_letters(world, letters), 0.0)
    operator.tidy(letters)
    assert operator.sharing.named(b"$dead.t", HOLDER) is not None, "not committed yet"
    world.commit()
    operator.tidy(letters)
    assert operator.sharing.named(b"$dead.t", HOLDER) is None
    with pytest.raises(Missing, match="no dead letters of 't'"):
        operator.letters("t")


@pytest.mark.parametrize("limits", [Limits(), SMALL_WINDOW], ids=["in memory", "behind"])
def test_the_dead_letters_of_a_subscription_are_resent(limits: Limits) -> None:
    world = LoggedWorld.logged(limits)
    dead = Member(world)
    dead.attach(b"$dead.t", name=b"d", prefetch=0)
    reject(world, *[b"%d" % number for number in range(20)])
    operator = world.broker.operator
    letters = operator.letters("t")
    found = logged_letters(world, letters)
    assert len(found) == 20
    chosen = [found[3], found[4], found[11]]

    assert len(operator.resend(letters, chosen, 0.0)) == 3
    assert operator.resend(letters, chosen, 0.0) == [], "they are on their way"
    world.commit()
    world.crash()

    member, dead = Member(world), Member(world)
    member.attach(b"t", name=b"worker")
    dead.attach(b"$dead.t", name=b"d")
    world.read()
    assert member.take() == [b"3", b"4", b"11"]
    assert dead.take() == [b"%d" % number for number in range(20) if number not in (3, 4, 11)]


def test_a_resend_that_is_not_in_the_log_yet_is_undone_by_a_crash() -> None:
    world = LoggedWorld.logged()
    reject(world, b"a")
    letters = world.broker.operator.letters("t")
    world.broker.operator.resend(letters, logged_letters(world, letters), 0.0)
    world.checkpoint()
    world.crash()
    letters = world.broker.operator.letters("t")
    assert bodies_of(logged_letters(world, letters)) == [b"a"]


def test_a_dead_letter_that_a_consumer_holds_is_neither_resent_nor_dropped() -> None:
    world = LoggedWorld.logged()
    dead = Member(world)
    id_ = dead.attach(b"$dead.t", name=b"d")
    reject(world, b"a")
    assert dead.take() == [b"a"]
    operator = world.broker.operator
    letters = operator.letters("t")
    found = logged_letters(world, letters)
    assert operator.resend(letters, found, 0.0) == []
    assert operator.drop(letters, [found[0].number], 0.0) == []
    dead.accept_all(id_)
    assert dead.refused == []


def test_dropped_dead_letters_do_not_come_back() -> None:
    world = LoggedWorld.logged()
    reject(world, b"a", b"b", b"c")
    operator = world.broker.operator
    letters = operator.letters("t")
    found = logged_letters(world, letters)
    assert len(operator.drop(letters, [found[0].number, found[2].number], 0.0)) == 2
    assert world.broker.stats.dropped[DropReason.PURGED] == 2
    world.commit()
    world.crash()
    letters = world.broker.operator.letters("t")
    assert bodies_of(logged_letters(world, letters)) == [b"b"]


def test_a_broker_without_a_log_has_the_same_letters_in_memory() -> None:
    world = World.create()
    reject(world, b"a", b"b", b"c")
    operator = world.broker.operator
    letters = operator.letters("t")
    found = list(operator.in_memory(letters))
    assert bodies_of(found) == [b"a", b"b", b"c"]
    operator.resend(letters, found[:1], 0.0)
    letters = operator.letters("t")
    assert bodies_of(list(operator.in_memory(letters))) == [b"b", b"c"]
    member = Member(world)
    id_ = member.attach(b"t", name=b"worker")
    assert member.take() == [b"a"]
    member.accept_all(id_)
    member.disconnect()
    reject(world, b"d")
    assert bodies_of(list(operator.in_memory(letters))) == [b"b", b"c", b"d"]


def test_a_dead_letter_with_a_version_1_subscription_is_resent() -> None:
    world = LoggedWorld.logged()
    client = world.connect()
    id_ = client.subscribe(b"$dead.t")
    reject(world, b"a", b"b", b"c")
    letters = world.broker.operator.letters("t", id_)
    found = logged_letters(world, letters)
    assert len(world.broker.operator.resend(letters, found[1:2], 0.0)) == 1
    world.commit()
    assert client.poll_all(id_) == [b"a", b"c"]


def test_of_several_subscriptions_one_is_to_be_named() -> None:
    world = LoggedWorld.logged()
    member = Member(world)
    member.attach(b"$dead.t", name=b"d")
    member.attach(b"$dead.t", name=b"e")
    member.attach(b"other", name=b"f")
    operator = world.broker.operator
    with pytest.raises(Conflict, match="say which"):
        operator.letters("t")
    id_ = id_of(world, b"$dead.t", b"e")
    assert operator.letters("t", id_).cursor is not None
    with pytest.raises(Missing, match="has no dead letters of that topic"):
        operator.letters("t", id_of(world, b"other", b"f"))


def test_nothing_is_resent_to_a_topic_that_is_full() -> None:
    world = LoggedWorld.logged(Limits(max_backlog_bytes=100))
    reject(world, b"a")
    member = Member(world)
    member.attach(b"t", name=b"worker", prefetch=0)
    member.publish(b"t", *[bytes(100) for _ in range(10)])
    world.commit()
    operator = world.broker.operator
    letters = operator.letters("t")
    with pytest.raises(Unavailable, match="backlog full"):
        operator.resend(letters, logged_letters(world, letters), 0.0)
    assert len(logged_letters(world, operator.letters("t"))) == 1


def test_dead_letters_of_a_reader_from_the_start_are_its_own() -> None:
    world = LoggedWorld.logged(retention=Retention(settled_ms=1_000_000))
    reject(world, b"a", b"b")
    dead = Member(world)
    start = Start(StartKind.EARLIEST)
    dead.attach(b"$dead.t", name=b"d", prefetch=0, start=start)
    world.read()
    letters = world.broker.operator.letters("t")
    assert bodies_of(logged_letters(world, letters)) == [b"a", b"b"]


def _page() -> Page[int]:

    return Page(10)


# When it is in the log


def test_who_waits_for_the_log_is_told_when_a_later_batch_takes_what_failed() -> None:
    world = LoggedWorld.logged()
    Member(world).publish(b"t", b"a")
    world.commit()
    told: list[str] = []
    finished(world.broker.operator.purge_topic("t", 0.0))
    world.broker.when_logged(lambda: told.append("purged"))
    world.fail()
    assert told == []
    world.commit()
    assert told == ["purged"]


def test_with_nothing_to_log_nobody_waits() -> None:
    world = LoggedWorld.logged()
    world.commit()
    told: list[str] = []
    world.broker.when_logged(lambda: told.append("at once"))
    assert told == ["at once"]
