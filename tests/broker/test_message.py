"""The table of deliveries, against a plain set of numbers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from blipmq.broker.message import Delivery, DeliveryTable, ReturnedTable
from blipmq.protocol import encoder
from blipmq.protocol.run import Run
from tests.protocol.streams import decode_run

COUNT = 60


def numbered_run() -> Run:
    """A run of messages 1 to 60, each of another size."""
    run = decode_run(*(encoder.publish(i, 1, b"t", bytes(i)) for i in range(COUNT)))
    run.stamp(1)
    return run


RUN = numbered_run()


def delivery(first: int, last: int) -> Delivery:
    return Delivery(first, last, RUN, 0, float("inf"), 0.0)


@st.composite
def ranges(draw: st.DrawFn) -> list[tuple[int, int]]:
    """Ranges of numbers that do not overlap, in any order."""
    edges = sorted(draw(st.sets(st.integers(1, COUNT), max_size=20)))
    pairs = list(zip(edges[::2], edges[1::2], strict=False))
    return draw(st.permutations(pairs))


def size_of(first: int, last: int) -> int:
    return sum(len(RUN.data(number - 1, number)) for number in range(first, last + 1))


@given(ranges(), st.integers(0, 20))
def test_messages_and_bytes_are_those_of_what_is_in_the_table(
    pairs: list[tuple[int, int]], removed: int
) -> None:
    table = DeliveryTable()
    deliveries = [delivery(*pair) for pair in pairs]
    for one in deliveries:
        table.add(one)
    for one in deliveries[:removed]:
        table.remove(one)

    left = pairs[removed:]
    assert table.messages == sum(last - first + 1 for first, last in left)
    assert table.bytes == sum(size_of(first, last) for first, last in left)
    assert [(d.first, d.last) for d in table] == sorted(left)
    assert (table.lowest and table.lowest.first) == min((pair[0] for pair in left), default=None)
    assert bool(table) == bool(left)


@given(ranges(), st.integers(0, COUNT + 1), st.integers(0, 9))
def test_overlapping_finds_what_holds_a_number_of_the_range(
    pairs: list[tuple[int, int]], first: int, more: int
) -> None:
    last = first + more
    table = DeliveryTable()
    for pair in pairs:
        table.add(delivery(*pair))

    found = [(d.first, d.last) for d in table.overlapping(first, last)]

    assert found == [
        (a, b) for a, b in sorted(pairs) if set(range(a, b + 1)) & set(range(first, last + 1))
    ]


@given(ranges(), st.lists(st.integers(0, 3), min_size=10, max_size=10), st.integers(0, 20))
def test_of_what_was_returned_the_one_that_waits_longest_comes_first(
    pairs: list[tuple[int, int]], times: list[int], removed: int
) -> None:
    table = ReturnedTable()
    deliveries = [delivery(*pair) for pair in pairs]
    for one, since in zip(deliveries, times, strict=False):
        one.since = since
        table.add(one)
    for one in deliveries[:removed]:
        table.remove(one)

    left = [(one.since, one.first, one) for one in deliveries[removed:]]
    assert table.longest_waiting is (min(left)[2] if left else None)


def test_what_was_returned_again_waits_since_then() -> None:
    table = ReturnedTable()
    one, other = delivery(1, 1), delivery(2, 2)
    table.add(one)
    other.since = 5.0
    table.add(other)
    table.remove(one)
    one.since = 7.0
    table.add(one)

    assert table.longest_waiting is other


def test_what_was_returned_and_settled_leaves_nothing_behind() -> None:
    table = ReturnedTable()
    waiting, settled = delivery(1, 1), delivery(2, 2)
    table.add(waiting)
    for _ in range(10_000):
        table.add(settled)
        table.remove(settled)

    assert len(table._queue) < 100
    assert table.longest_waiting is waiting


@given(st.integers(1, COUNT - 1), st.data())
def test_a_split_leaves_every_message_in_one_of_the_parts(first: int, data: st.DataObject) -> None:
    last = data.draw(st.integers(first + 1, COUNT))
    at = data.draw(st.integers(first + 1, last))
    one = delivery(first, last)

    rest = one.split(at)

    assert (one.first, one.last, rest.first, rest.last) == (first, at - 1, at, last)
    assert one.size + rest.size == size_of(first, last)
    assert one.count + rest.count == last - first + 1
