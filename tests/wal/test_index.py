"""What an index of a segment leaves to be looked through."""

from __future__ import annotations

from bisect import bisect_left
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blipmq.wal.facts import RunRecord
from blipmq.wal.index import SegmentIndex
from blipmq.wal.log import Log
from tests.wal.logs import CHECKPOINT, all_wanted, append, begin, run
from tests.wal.memory_disk import MemoryDisk

runs = st.lists(st.tuples(st.sampled_from([b"", b"a", b"b", b"c"]), st.integers(1, 5_000)))


def indexed(its_runs: list[tuple[bytes, int]], granule: int = 1_000) -> SegmentIndex:
    """Runs by topic and length of the record; each holds one message, numbered from 1."""
    index, offset = SegmentIndex(granule), 0
    for number, (topic, length) in enumerate(its_runs, 1):
        index.note(topic, number, offset)
        offset += length
    return index


def places(its_runs: list[tuple[bytes, int]], topic: bytes) -> dict[int, int]:
    """Where each number of the topic is."""
    ends = [0]
    for _, length in its_runs:
        ends.append(ends[-1] + length)
    return {n: ends[n - 1] for n, (its, _) in enumerate(its_runs, 1) if its == topic}


@given(runs, st.integers(0, 30), st.integers(0, 3), st.integers(0, 30))
def test_every_run_is_in_a_span_whatever_the_index_is(
    its_runs: list[tuple[bytes, int]], first: int, coarser: int, since: int
) -> None:
    index = indexed(its_runs)
    for _ in range(coarser):
        index = index.coarser(10)
    starts = [0]
    for _, length in its_runs:
        starts.append(starts[-1] + length)
    offset = starts[min(since, len(its_runs))]
    for topic in (b"", b"a", b"b", b"c"):
        spans = list(index.spans(topic, first, offset))
        assert all(a < b for a, b in spans)
        assert all(b <= c for (_, b), (c, _) in pairwise(spans))
        assert {start for start, _ in spans} <= set(starts)
        for number, place in places(its_runs, topic).items():
            if number >= first and place >= offset:
                span = bisect_left(spans, (place + 1,)) - 1
                assert spans[span][0] <= place < spans[span][1]


def test_what_is_far_from_any_run_of_the_topic_is_not_looked_through() -> None:
    index = indexed([(b"a", 10), (b"b", 100_000), (b"a", 10), (b"b", 10)])
    assert list(index.spans(b"a", 0, 0)) == [(0, 1_000), (100_010, 101_010)]
    assert list(index.spans(b"a", 3, 0)) == [(100_010, 101_010)]
    assert list(index.spans(b"a", 0, 100_010)) == [(100_010, 101_010)]


def test_runs_next_to_each_other_cost_one_entry() -> None:
    assert indexed([(b"a", 10)] * 100).entries == 1
    assert indexed([(b"a", 10)] * 1_000).entries == 10


@given(runs, st.integers(0, 100))
def test_a_coarser_index_has_as_few_entries_as_it_was_told(
    its_runs: list[tuple[bytes, int]], entries: int
) -> None:
    index = indexed(its_runs, granule=1)
    coarser = index.coarser(entries)
    assert coarser.entries <= entries + len({topic for topic, _ in its_runs})
    assert coarser.first_number(b"a") == index.first_number(b"a")


def log_of(*its_runs: RunRecord) -> Log:
    log = begin(MemoryDisk())
    append(log, *its_runs)
    return log


def test_the_index_of_a_segment_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("blipmq.wal.segment.SEGMENT_ENTRIES_MAX", 10)
    log = log_of(*(run(n, body=bytes(5_000)) for n in range(1, 100)))
    assert log._segments[0].index.entries <= 10


def test_the_indexes_of_a_log_are_bounded_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("blipmq.wal.log.LOG_ENTRIES_MAX", 50)
    disk = MemoryDisk()
    log = begin(disk)
    for segment in range(10):
        append(log, *(run(segment * 10 + n + 1, body=bytes(5_000)) for n in range(10)))
        log.roll(CHECKPOINT, 1_000, all_wanted)
    restarted = begin(disk.after_kill())
    for its_log in (log, restarted):
        assert sum(segment.index.entries for segment in its_log._segments) <= 50
        chunk = its_log.reader().read(b"demo", 0, 1_000, 1 << 30)
        assert [record.first for record in chunk.runs] == list(range(1, 101))
