"""The queues of deadlines, against plain lists."""

from __future__ import annotations

import itertools

import attrs
from hypothesis import given
from hypothesis import strategies as st

from blipmq.broker.message import Delivery
from blipmq.broker.retry import DeliveryDeadlines, Timers, backoff
from blipmq.protocol.run import Run

RUN = Run(b"", (), b"t", 1)


@attrs.define(eq=False)
class Alarm:
    """Goes off at its times, one after the other."""

    times: list[float]
    rung: list[float] = attrs.Factory(list)

    def tick(self, now: float) -> float | None:
        self.rung.append(now)
        self.times = [time for time in self.times if time > now]
        return min(self.times, default=None)


class Stuck(Alarm):
    """Is never done."""

    def tick(self, now: float) -> float | None:
        self.rung.append(now)
        return now


times = st.integers(1, 50).map(float)


@given(st.lists(st.lists(times, min_size=1, max_size=4), max_size=8), st.lists(times, max_size=20))
def test_everything_is_ticked_at_the_first_run_after_each_of_its_times(
    schedules: list[list[float]], runs: list[float]
) -> None:
    timers = Timers()
    alarms = [Alarm(list(schedule)) for schedule in schedules]
    for alarm in alarms:
        for time in alarm.times:
            timers.at(alarm, time)
    runs = sorted({*runs, 50.0})

    for now in runs:
        timers.run(now)

    for alarm, schedule in zip(alarms, schedules, strict=True):
        assert alarm.rung == sorted({min(run for run in runs if run >= t) for t in schedule})
    assert timers.next is None


@given(st.lists(times, min_size=1, max_size=20), st.integers(0, 19))
def test_the_next_time_is_the_earliest_that_was_not_cancelled(
    schedule: list[float], cancelled: int
) -> None:
    timers = Timers()
    alarms = [Alarm([time]) for time in schedule]
    for alarm, time in zip(alarms, schedule, strict=True):
        timers.at(alarm, time)

    for alarm in alarms[:cancelled]:
        timers.cancel(alarm)

    assert timers.next == min(schedule[cancelled:], default=None)


def test_something_due_again_at_once_lets_the_others_have_their_turn() -> None:
    timers = Timers()
    stuck, other = Stuck([]), Alarm([])
    timers.at(stuck, 1.0)
    timers.at(other, 1.0)

    timers.run(1.0)

    assert (stuck.rung, other.rung) == ([1.0], [1.0])
    assert timers.next is not None
    assert timers.next > 1.0


def test_things_that_come_and_go_before_their_time_leave_nothing_behind() -> None:
    timers = Timers()
    for _ in range(10_000):
        alarm = Alarm([])
        timers.at(alarm, 10**6)
        timers.cancel(alarm)

    assert len(timers._heap) < 100


def test_a_time_that_moves_forward_again_and_again_leaves_nothing_behind() -> None:
    timers = Timers()
    alarm = Alarm([])
    for time in range(10_000, 0, -1):
        timers.at(alarm, float(time))

    assert len(timers._heap) < 100
    assert timers.next == 1.0


def delivery(number: int, attempt: int, deadline: float) -> Delivery:
    return Delivery(number, number, RUN, attempt, float("inf"), 0.0, deadline)


@given(
    st.lists(st.tuples(st.integers(1, 4), st.integers(0, 2)), max_size=40),
    st.sets(st.integers(0, 39)),
    st.lists(st.floats(0, 20), max_size=10),
)
def test_due_deliveries_come_out_once_in_the_order_of_their_numbers(
    attempts_and_waits: list[tuple[int, int]], discarded: set[int], looks: list[float]
) -> None:
    deadlines = DeliveryDeadlines()
    now = 0.0
    left: dict[int, float] = {}
    for number, (attempt, wait) in enumerate(attempts_and_waits):
        now += wait / 10
        left[number] = now + backoff(100, attempt)
        one = delivery(number, attempt, left[number])
        deadlines.add(one)
        if number in discarded:
            deadlines.discard(one)
            del left[number]

    for look in itertools.accumulate(sorted(looks)):
        assert deadlines.earliest() == min(left.values(), default=None)
        due = [d.first for d in deadlines.pop_due(look)]
        assert due == [number for number, deadline in left.items() if deadline <= look]
        left = {number: deadline for number, deadline in left.items() if deadline > look}
