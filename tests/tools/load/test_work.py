"""Who gets which topics, and how much of what is published."""

from __future__ import annotations

import pytest

from tools.bench.load.counters import Counters
from tools.bench.load.work import Guarantee, Work, of_round


def work(**options: object) -> Work:
    chosen: dict[str, object] = {"guarantee": Guarantee.AT_MOST_ONCE, "messages": 100, **options}
    return Work(**chosen)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("publishers", "subscribers", "topics", "published", "taken"),
    [
        (1, 1, 1, [[0]], [[0]]),
        (1, 3, 1, [[0]], [[0], [0], [0]]),
        (2, 2, 2, [[0], [1]], [[0], [1]]),
        (1, 2, 3, [[0, 1, 2]], [[0, 2], [1]]),
        (3, 1, 2, [[0], [1], [0]], [[0, 1]]),
    ],
)
def test_topics_are_spread_over_clients(
    publishers: int, subscribers: int, topics: int, published: list[object], taken: list[object]
) -> None:
    asked = work(publishers=publishers, subscribers=subscribers, topics=topics)
    assert [list(asked.publisher_topics(place)) for place in range(publishers)] == published
    assert [list(asked.subscriber_topics(place)) for place in range(subscribers)] == taken


def test_messages_are_divided_among_publishers_to_the_last_one() -> None:
    asked = work(publishers=3, messages=100)
    assert [asked.published_by(place) for place in range(3)] == [34, 33, 33]


def test_the_rest_of_a_round_falls_on_its_first_places() -> None:
    assert [of_round(11, 4, place) for place in range(4)] == [3, 3, 3, 2]


def test_a_subscriber_expects_what_is_published_to_its_topics() -> None:
    counters = Counters(work(publishers=2, subscribers=2, topics=4, messages=10))
    assert [counters.goal(place) for place in range(2)] == [5, 5]
    shared = Counters(work(publishers=1, subscribers=2, topics=3, messages=10))
    assert [shared.goal(place) for place in range(2)] == [7, 3]


def test_the_goal_is_unknown_until_every_publisher_knows_its_own() -> None:
    counters = Counters(work(publishers=2, messages=None, seconds=1.0))
    counters.final[0] = 7
    assert counters.goal(0) is None
    counters.final[1] = 5
    assert counters.goal(0) == 12


def test_what_is_outstanding_is_counted_for_each_subscriber() -> None:
    counters = Counters(work(subscribers=2, topics=2))
    counters.sent[0] = 5
    counters.received[0] = 1
    assert [counters.outstanding(place) for place in range(2)] == [2, 2]


@pytest.mark.parametrize("window", [1, 1000, 5000])
@pytest.mark.parametrize("topics", [1, 7, 100])
def test_frames_are_not_used_again_while_they_may_be_under_way(window: int, topics: int) -> None:
    asked = work(topics=topics, window=window)
    assert asked.cycle * topics >= 2 * window
    assert asked.cycle % asked.sampled == 0


@pytest.mark.parametrize(
    "options",
    [
        {"messages": None},
        {"seconds": 1.0},
        {"sizes": ()},
        {"sizes": (256, 15)},
        {"publishers": 0},
        {"window": 0},
        {"rate": 0.0},
        {"preload": True, "rate": 1.0},
    ],
)
def test_work_that_cannot_be_is_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"."):
        work(**options)
