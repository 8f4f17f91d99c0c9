"""The wanted numbers of one subscription, against a plain set."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from blipmq.broker.restore import Restoration
from blipmq.wal.facts import (
    Attempted,
    Checkpoint,
    Closed,
    Opened,
    RunRecord,
    Settled,
    SubscriptionState,
    UnsettledRange,
)

LAST = 60
numbers = st.integers(1, LAST)
ranges = st.tuples(numbers, st.integers(0, 9)).map(lambda pair: (pair[0], sum(pair)))


def state(cursor: int = 1, *unsettled: UnsettledRange, id_: int = 7) -> SubscriptionState:
    return SubscriptionState(id_, "owner", b"t", cursor, unsettled)


def run(first: int, last: int) -> RunRecord:
    return RunRecord(b"t", first, last - first + 1, b"")


def wanted(restoration: Restoration, first: int, last: int) -> list[int]:
    """Which numbers of a run the one subscription wants."""
    return [
        number
        for _, found in restoration.wanted(run(first, last))
        for a, b, _ in found
        for number in range(a, b + 1)
    ]


@given(st.lists(ranges, max_size=20), ranges)
def test_a_subscription_wants_every_number_that_was_not_settled(
    settled: list[tuple[int, int]], asked: tuple[int, int]
) -> None:
    restoration = Restoration()
    restoration.apply(1, Opened(state()))
    for first, last in settled:
        restoration.apply(1, Settled(7, first, last))

    done = {number for first, last in settled for number in range(first, last + 1)}
    first, last = asked
    assert wanted(restoration, first, last) == [
        number for number in range(first, last + 1) if number not in done
    ]


@given(st.lists(ranges, max_size=20))
def test_applying_settlements_twice_changes_nothing(settled: list[tuple[int, int]]) -> None:
    once, twice = Restoration(), Restoration()
    for restoration, times in ((once, 1), (twice, 2)):
        restoration.apply(1, Opened(state()))
        for first, last in settled * times:
            restoration.apply(1, Settled(7, first, last))

    assert wanted(once, 1, 2 * LAST) == wanted(twice, 1, 2 * LAST)


@given(st.lists(st.tuples(st.booleans(), ranges, st.integers(1, 3)), max_size=20))
def test_what_is_wanted_has_the_attempts_that_were_logged_last(
    facts: list[tuple[bool, tuple[int, int], int]],
) -> None:
    restoration = Restoration()
    restoration.apply(1, Opened(state()))
    attempts_by_number = dict.fromkeys(range(1, 2 * LAST), 0)
    for settled, (first, last), attempts in facts:
        restoration.apply(
            1, Settled(7, first, last) if settled else Attempted(7, first, last, attempts)
        )
        for number in attempts_by_number.keys() & set(range(first, last + 1)):
            del attempts_by_number[number]
            if not settled:
                attempts_by_number[number] = attempts

    assert sorted(attempts_by_number.items()) == [
        (number, attempts)
        for _, found in restoration.wanted(run(1, 2 * LAST - 1))
        for first, last, attempts in found
        for number in range(first, last + 1)
    ]


def test_the_unsettled_ranges_of_a_checkpoint_are_wanted_with_their_attempts() -> None:
    restoration = Restoration()
    restoration.apply(
        1, Checkpoint(99, (), (state(20, UnsettledRange(5, 9, 2), UnsettledRange(12, 12, 0)),))
    )
    restoration.apply(1, Settled(7, 7, 7))

    assert restoration.wanted(run(1, 25)) == [(7, [(5, 6, 2), (8, 9, 2), (12, 12, 0), (20, 25, 0)])]
    assert restoration.reserved == 99


def test_a_checkpoint_replaces_what_came_before() -> None:
    restoration = Restoration()
    restoration.apply(1, Opened(state(id_=7)))
    restoration.apply(50, Checkpoint(99, (), (state(20, id_=8),)))

    assert list(restoration.subscriptions) == [8]
    assert restoration.wanted(run(1, 25)) == [(8, [(20, 25, 0)])]


def test_a_subscription_opened_again_is_as_the_checkpoint_says() -> None:
    restoration = Restoration()
    restoration.apply(50, Checkpoint(99, (), (state(20),)))
    restoration.apply(50, Opened(state(1)))

    assert wanted(restoration, 1, 25) == list(range(20, 26))


def test_settlements_and_the_end_of_an_unknown_subscription_are_ignored() -> None:
    restoration = Restoration()
    restoration.apply(50, Checkpoint(99, (), (), ((b"t", 10),)))
    restoration.apply(50, Settled(7, 1, 5))
    restoration.apply(50, Closed(7, 40))

    assert restoration.kept(run(10, 10))
    assert not restoration.kept(run(1, 9))


def test_a_topic_without_subscriptions_keeps_messages_from_where_the_checkpoint_says() -> None:
    restoration = Restoration()
    restoration.apply(50, Checkpoint(99, (), (), ((b"t", 10),)))

    assert restoration.kept_from(b"t") == 10
    assert restoration.kept_from(b"not in the checkpoint") == 50


def test_a_topic_whose_last_subscription_ended_keeps_messages_from_then_on() -> None:
    restoration = Restoration()
    restoration.apply(1, Opened(state(id_=7)))
    restoration.apply(1, Opened(state(id_=8)))
    restoration.apply(1, Closed(7, 20))
    assert not restoration.kept(run(30, 39))

    restoration.apply(1, Closed(8, 30))

    assert restoration.kept(run(30, 39))
    assert not restoration.kept(run(20, 29))
