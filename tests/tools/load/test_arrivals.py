"""A message that is missing, or comes twice, or out of order, is found, however many come."""

from __future__ import annotations

import pytest

from tools.bench.load.arrivals import Arrivals
from tools.bench.load.body import body
from tools.bench.load.latencies import percentiles
from tools.bench.load.work import Guarantee, Miscounted, Work

SIZE = 24
HEAD = 5
STRIDE = HEAD + SIZE
ALONE = Work(guarantee=Guarantee.AT_MOST_ONCE, messages=1)
TWO_TOPICS = Work(guarantee=Guarantee.AT_MOST_ONCE, messages=1, topics=2)


def frames(*numbers: int, stream: int = 0, stamp: int = 0) -> bytes:
    return b"".join(b"\xff" * HEAD + body(SIZE, stream, number, stamp) for number in numbers)


def take(arrivals: Arrivals, data: bytes) -> None:
    arrivals.column(data, HEAD, STRIDE, len(data) // STRIDE)


def take_in_reads(arrivals: Arrivals, numbers: list[int]) -> None:
    for at in range(0, len(numbers), 100):
        take(arrivals, frames(*numbers[at : at + 100]))


def test_frames_in_order_are_counted_over_several_reads() -> None:
    arrivals = Arrivals(ALONE, 0)
    take(arrivals, frames(*range(300)))
    take(arrivals, frames(300))
    take(arrivals, frames(*range(301, 700)))
    assert arrivals.received == 700


def test_the_numbers_of_a_stream_begin_anew_after_a_cycle() -> None:
    arrivals = Arrivals(ALONE, 0)
    take(arrivals, frames(*(number % ALONE.cycle for number in range(3 * ALONE.cycle + 5))))
    take(arrivals, frames(5))
    assert arrivals.received == 3 * ALONE.cycle + 6


@pytest.mark.parametrize(
    "numbers",
    [
        [0, 1, 3, 4],
        [0, 1, 1, 2],
        [0, 2, 1, 3],
        [1, 2, 3],
        [256, 257, 258],
        [*range(100), *range(356, 400)],
    ],
    ids=["missing", "twice", "swapped", "first missing", "far ahead", "gap of a byte"],
)
def test_what_is_not_in_order_is_found(numbers: list[int]) -> None:
    with pytest.raises(Miscounted):
        take_in_reads(Arrivals(ALONE, 0), numbers)


def test_a_repetition_between_reads_is_found() -> None:
    arrivals = Arrivals(ALONE, 0)
    take(arrivals, frames(0, 1, 2))
    with pytest.raises(Miscounted, match="number 2 of stream 0, expected 3"):
        take(arrivals, frames(2))


def test_each_stream_has_an_order_of_its_own() -> None:
    arrivals = Arrivals(TWO_TOPICS, 0)
    take(arrivals, frames(0, 1) + frames(0, stream=1) + frames(2) + frames(1, 2, stream=1))
    assert arrivals.received == 6
    with pytest.raises(Miscounted):
        take(arrivals, frames(3, stream=1) + frames(2))


def test_a_message_of_a_foreign_stream_is_found() -> None:
    with pytest.raises(Miscounted, match="not subscribed"):
        take(Arrivals(ALONE, 0), frames(0, stream=1))


def test_sampled_messages_are_timed() -> None:
    arrivals = Arrivals(ALONE, 0)
    arrivals.now_ns = 5_000_000
    stamped = frames(0, stamp=2_000_000) + frames(*range(1, 256)) + frames(256, stamp=4_000_000)
    take(arrivals, stamped[: STRIDE * 200])
    take(arrivals, stamped[STRIDE * 200 :])
    found = percentiles([arrivals.latencies.encoded()])
    assert found is not None
    assert found.count == 2
    assert found.max_us == pytest.approx(3000, rel=1e-3)
    assert found.p50_us == pytest.approx(1000, rel=1e-3)


def test_at_a_rate_every_message_is_timed() -> None:
    arrivals = Arrivals(Work(guarantee=Guarantee.AT_MOST_ONCE, seconds=1.0, rate=10.0), 0)
    arrivals.now_ns = 1_000
    take(arrivals, frames(0, 1, 2, stamp=500))
    found = percentiles([arrivals.latencies.encoded()])
    assert found is not None
    assert found.count == 3
