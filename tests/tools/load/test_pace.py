"""Publishers keep to their bounds and their schedule, and say in time how many there will be."""

from __future__ import annotations

from collections.abc import Callable

import attrs
import pytest

from tools.bench.load.counters import Counters
from tools.bench.load.pace import Pace
from tools.bench.load.work import Guarantee, Work

SECOND_NS = 10**9


@attrs.define
class Clock:
    now_ns: int = 0

    def __call__(self) -> int:
        return self.now_ns


@pytest.fixture
def clock() -> Clock:
    return Clock()


@attrs.frozen
class Paced:
    pace: Pace
    counters: Counters


@pytest.fixture
def paced(clock: Clock) -> Callable[[Work], Paced]:
    def make(work: Work) -> Paced:
        counters = Counters(work)
        pace = Pace(work, 0, counters, clock)
        pace.begin()
        return Paced(pace, counters)

    return make


def drain(pace: Pace) -> int:
    """All that may be sent without anything else happening."""
    total = 0
    while count := pace.take():
        total += count
    return total


def test_no_subscriber_is_left_further_behind_than_allowed(
    paced: Callable[[Work], Paced],
) -> None:
    asked = Work(guarantee=Guarantee.AT_MOST_ONCE, messages=10_000, subscribers=2, ahead=1000)
    it = paced(asked)
    assert drain(it.pace) == 1000
    it.counters.received[0] = 1000
    assert drain(it.pace) == 0, "the other one has nothing yet"
    it.counters.received[1] = 500
    assert drain(it.pace) == 500


def test_publishers_together_stay_within_the_bound(clock: Clock) -> None:
    asked = Work(guarantee=Guarantee.AT_MOST_ONCE, messages=10_000, publishers=2, ahead=1000)
    counters = Counters(asked)
    paces = [Pace(asked, place, counters, clock) for place in range(2)]
    for pace in paces:
        pace.begin()
    assert 0 < sum(map(drain, paces)) <= 1000
    assert counters.outstanding(0) <= 1000


def test_unconfirmed_messages_are_bounded_by_the_window(paced: Callable[[Work], Paced]) -> None:
    it = paced(Work(guarantee=Guarantee.AT_LEAST_ONCE, messages=1000, window=100))
    assert drain(it.pace) == 100
    it.pace.confirmed = 30
    assert drain(it.pace) == 30
    assert it.pace.window_full


def test_the_last_message_is_the_last(paced: Callable[[Work], Paced]) -> None:
    it = paced(Work(guarantee=Guarantee.AT_MOST_ONCE, messages=7))
    assert drain(it.pace) == 7
    assert it.pace.done


def test_messages_of_a_rate_go_when_they_are_due(
    paced: Callable[[Work], Paced], clock: Clock
) -> None:
    it = paced(Work(guarantee=Guarantee.AT_MOST_ONCE, messages=100, rate=10.0))
    assert drain_stamped(it.pace) == [0]
    clock.now_ns = SECOND_NS // 10 - 1
    assert drain_stamped(it.pace) == []
    clock.now_ns += 1
    assert drain_stamped(it.pace) == [SECOND_NS // 10]


def test_what_a_stall_held_up_counts_from_when_it_was_due(
    paced: Callable[[Work], Paced], clock: Clock
) -> None:
    it = paced(Work(guarantee=Guarantee.AT_MOST_ONCE, messages=100, rate=10.0))
    clock.now_ns = SECOND_NS // 2
    assert drain_stamped(it.pace) == [number * SECOND_NS // 10 for number in range(6)]


def test_a_stall_by_the_window_counts_too(paced: Callable[[Work], Paced], clock: Clock) -> None:
    it = paced(Work(guarantee=Guarantee.AT_LEAST_ONCE, messages=100, rate=10.0, window=1))
    assert drain_stamped(it.pace) == [0]
    clock.now_ns = SECOND_NS
    assert drain_stamped(it.pace) == []
    it.pace.confirmed = 1
    assert drain_stamped(it.pace) == [SECOND_NS // 10]


def drain_stamped(pace: Pace) -> list[int]:
    found: list[int] = []
    while count := pace.take():
        stamps = pace.stamps(count)
        assert stamps is not None
        found += stamps
    return found


def test_publishers_of_a_rate_take_turns(clock: Clock) -> None:
    asked = Work(guarantee=Guarantee.AT_MOST_ONCE, messages=100, publishers=2, rate=10.0)
    counters = Counters(asked)
    paces = [Pace(asked, place, counters, clock) for place in range(2)]
    for pace in paces:
        pace.begin()
    clock.now_ns = SECOND_NS // 5
    found = sorted(stamp for pace in paces for stamp in drain_stamped(pace))
    assert found == [0, SECOND_NS // 10, SECOND_NS // 5]


def test_the_number_of_a_timed_run_is_known_before_its_last_message(
    paced: Callable[[Work], Paced], clock: Clock
) -> None:
    it = paced(Work(guarantee=Guarantee.AT_MOST_ONCE, seconds=1.0, ahead=100))
    sent = drain(it.pace)
    assert it.counters.goal(0) is None
    clock.now_ns = SECOND_NS
    assert it.pace.take() == 0, "there is no room"
    assert it.counters.goal(0) == sent + 1
    assert not it.pace.done
    it.counters.received[0] = sent
    assert it.pace.take() == 1
    assert it.pace.done


def test_every_topic_gets_a_message_when_the_number_is_known(
    paced: Callable[[Work], Paced], clock: Clock
) -> None:
    it = paced(Work(guarantee=Guarantee.AT_MOST_ONCE, seconds=1.0, topics=3, subscribers=3))
    clock.now_ns = SECOND_NS
    sent = it.pace.sent
    assert drain(it.pace) == it.counters.final[0] - sent == 3


def test_a_subscriber_waits_for_its_own_publishers_only_to_know_its_goal() -> None:
    asked = Work(guarantee=Guarantee.AT_MOST_ONCE, seconds=1, publishers=2, subscribers=2, topics=2)
    counters = Counters(asked)
    counters.final[0] = 700
    assert counters.goal(0) == 700
    assert counters.goal(1) is None
