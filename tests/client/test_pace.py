from __future__ import annotations

import pytest

from blipmq.client.polling.pace import Pace


def full_rounds(pace: Pace, seconds_per_message: float, rounds: int) -> list[int]:
    """What it asks for while every round is full and its consumer takes that long a message."""
    now, asked = 0.0, []
    for _ in range(rounds):
        polls = pace.polls(now, 0, starved=True)
        asked.append(polls)
        pace.over(now, polls, polls)
        for _ in range(polls):
            pace.took()
            now += seconds_per_message
    return asked


def test_full_rounds_double_up_to_the_prefetch() -> None:
    assert full_rounds(Pace(100, 1), 1e-6, 9) == [1, 2, 4, 8, 16, 32, 64, 100, 100]


def test_a_round_has_at_most_256_polls() -> None:
    assert max(full_rounds(Pace(10_000, 1), 1e-6, 12)) == 256


@pytest.mark.parametrize(("milliseconds", "most"), [(1000, 1), (25, 1), (5, 5), (1, 25)])
def test_at_qos_1_no_more_is_asked_for_than_is_consumed_in_25_ms(
    milliseconds: float, most: int
) -> None:
    asked = full_rounds(Pace(128, 1), milliseconds / 1000, 20)
    assert max(asked) <= most
    assert asked[-1] >= most - 1


def test_at_qos_0_a_slow_consumer_gets_a_full_prefetch_all_the_same() -> None:
    assert full_rounds(Pace(128, 0), 10.0, 9)[-1] == 128


def test_a_consumer_that_becomes_slow_is_asked_for_one_message_next() -> None:
    pace = Pace(128, 1)
    full_rounds(pace, 1e-6, 8)
    pace.over(0.0, 128, 128)
    pace.took()
    assert pace.polls(10.0, 0, starved=True) == 1


def test_nothing_is_asked_for_ahead_of_a_slow_consumer() -> None:
    pace = Pace(128, 1)
    pace.over(0.0, 8, 8)
    for _ in range(6):
        pace.took()
    assert pace.polls(1.0, 2, starved=False) == 0


def test_a_fast_consumer_is_asked_for_more_when_half_is_left() -> None:
    pace = Pace(128, 1)
    pace.over(0.0, 8, 8)
    for _ in range(8):
        pace.took()
    assert not pace.low(9)
    assert pace.low(8)
    assert pace.polls(0.001, 9, starved=False) == 0
    assert pace.polls(0.001, 8, starved=False) == 16


def test_nothing_is_asked_for_when_nobody_waits_and_rounds_are_single() -> None:
    assert Pace(128, 1).polls(0.0, 0, starved=False) == 0


def test_what_waits_and_what_is_asked_for_stay_within_the_prefetch() -> None:
    pace = Pace(8, 0)
    pace.over(0.0, 8, 8)
    assert pace.polls(0.001, 3, starved=False) == 5


def test_the_pause_doubles_from_1_ms_to_100_ms_and_ends_with_a_message() -> None:
    pace = Pace(128, 1)
    pauses = [pace.over(0.0, 1, 0) for _ in range(10)]
    assert pauses == pytest.approx([0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.1, 0.1, 0.1])
    assert pace.over(0.0, 1, 1) == 0.0
    assert pace.over(0.0, 1, 0) == pytest.approx(0.001)


def test_after_a_round_that_was_not_full_it_asks_for_as_many_as_came() -> None:
    pace = Pace(128, 1)
    pace.over(0.0, 64, 5)
    for _ in range(5):
        pace.took()
    assert pace.polls(0.0, 0, starved=True) == 5
