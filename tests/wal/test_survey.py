from __future__ import annotations

from pathlib import Path

import pytest

from blipmq.broker.restore import Restoration
from blipmq.protocol.properties import MessageProperties
from blipmq.wal.facts import Checkpoint, Moved, Opened, RunRecord, Settled, SubscriptionState
from blipmq.wal.scan import LogScan
from blipmq.wal.survey import Survey, survey
from blipmq.wal.transfer import StoredMessage
from tests.wal.directories import QuickDisk, change, records, two_segments
from tests.wal.logs import FIRST, LAST, TIME_MS, begin, run


def surveyed(path: Path) -> Survey:
    return survey(LogScan.of(QuickDisk(path)), Restoration())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return two_segments(tmp_path / "log")


def frames(*records: RunRecord) -> int:
    return sum(len(record.data) for record in records)


def test_segments_have_their_size_and_records(path: Path) -> None:
    first, last = surveyed(path).segments
    assert (first.sequence, first.bytes, first.records) == (1, (path / FIRST).stat().st_size, 5)
    assert (last.sequence, last.bytes, last.records) == (2, (path / LAST).stat().st_size, 4)


def test_a_segment_spans_the_times_of_its_messages(tmp_path: Path) -> None:
    log = begin(QuickDisk(tmp_path))
    for number in (1, 2, 3):
        log.append([run(number)], number + 1, TIME_MS + number)
    log.close()
    (segment,) = surveyed(tmp_path).segments
    assert (segment.first_ms, segment.last_ms) == (TIME_MS + 1, TIME_MS + 3)


def test_a_segment_without_messages_has_no_time(tmp_path: Path) -> None:
    begin(QuickDisk(tmp_path)).close()
    (segment,) = surveyed(tmp_path).segments
    assert (segment.first_ms, segment.last_ms) == (0, 0)


def test_topics_count_all_messages_that_are_there(path: Path) -> None:
    topics = surveyed(path).topics
    demo, news = topics[b"demo"], topics[b"news"]
    assert (demo.messages, demo.first, demo.last, demo.oldest_ms) == (3, 21, 23, TIME_MS)
    assert demo.bytes == frames(run(21, 2), run(23))
    assert (news.messages, news.first, news.last) == (1, 24, 24)


def test_the_oldest_message_counts_even_when_the_clock_went_back(tmp_path: Path) -> None:
    log = begin(QuickDisk(tmp_path))
    log.append([run(1)], 2, TIME_MS + 5)
    log.append([run(2)], 3, TIME_MS)
    log.close()
    assert surveyed(tmp_path).topics[b"demo"].oldest_ms == TIME_MS


def test_subscriptions_have_what_they_did_not_settle(path: Path) -> None:
    (subscription,) = surveyed(path).subscriptions.values()
    state = subscription.state
    assert (state.id, state.owner, state.topic) == (7, "key-1", b"demo")
    unsettled = subscription.unsettled
    assert (unsettled.messages, unsettled.first, unsettled.last) == (1, 23, 23)
    assert unsettled.bytes == frames(run(23))


def test_a_run_that_is_settled_in_part_counts_in_part(tmp_path: Path) -> None:
    log = begin(QuickDisk(tmp_path), Checkpoint(99, (), (SubscriptionState(7, "k", b"demo", 1),)))
    log.append([run(1, 5), Settled(7, 2, 3)], 6, TIME_MS)
    log.close()
    unsettled = surveyed(tmp_path).subscriptions[7].unsettled
    assert (unsettled.messages, unsettled.first, unsettled.last) == (3, 1, 5)
    assert unsettled.bytes == frames(run(1, 3))


def test_a_subscription_that_has_settled_everything_has_nothing(tmp_path: Path) -> None:
    state = SubscriptionState(7, "k", b"demo", 50)
    begin(QuickDisk(tmp_path), Checkpoint(99, (), (state,))).close()
    unsettled = surveyed(tmp_path).subscriptions[7].unsettled
    assert (unsettled.messages, unsettled.first, unsettled.oldest_ms) == (0, 0, 0)


DELAYED = MessageProperties(delay_ms=60_000)


def delayed(first: int, topic: bytes) -> RunRecord:
    """A message that is to be published yet."""
    return RunRecord(b"", first, 1, StoredMessage(topic, b"x", properties=DELAYED).frame(first))


def test_delayed_messages_are_counted_by_the_topic_they_are_for(tmp_path: Path) -> None:
    log = begin(QuickDisk(tmp_path), Checkpoint(99))
    records = [delayed(1, b"a"), delayed(2, b"b"), delayed(3, b"a"), delayed(4, b"a")]
    log.append([Opened(SubscriptionState(0, "", b"", 1)), *records], 5, TIME_MS)
    log.append([Moved(0, 1, 1, run(5, topic=b"a"))], 6, TIME_MS)
    log.close()
    found = surveyed(tmp_path)
    assert {topic: amount.messages for topic, amount in found.delayed.items()} == {b"a": 2, b"b": 1}
    assert (found.delayed[b"a"].first, found.delayed[b"a"].last) == (3, 4)
    assert found.subscriptions == {}
    assert (found.topics[b""].messages, found.topics[b"a"].messages) == (4, 1)


def test_messages_without_a_subscription_are_kept(path: Path) -> None:
    kept = surveyed(path).kept
    assert list(kept) == [b"news"]
    assert (kept[b"news"].messages, kept[b"news"].first) == (1, 24)


def test_a_run_that_is_kept_in_part_counts_in_part(tmp_path: Path) -> None:
    log = begin(QuickDisk(tmp_path), Checkpoint(99, (), (), ((b"demo", 3),)))
    log.append([run(1, 5)], 6, TIME_MS)
    log.close()
    kept = surveyed(tmp_path).kept[b"demo"]
    assert (kept.messages, kept.first, kept.last) == (3, 3, 5)


def test_the_last_checkpoint_is_there(path: Path) -> None:
    found = surveyed(path)
    assert found.checkpoint_segment == 2
    assert found.checkpoint is not None
    assert (found.checkpoint.reserved, found.checkpoint.segments) == (1_000, (1,))


def test_a_torn_tail_is_counted_in_its_segment(path: Path) -> None:
    start, end = records(path, LAST)[-1]
    (path / LAST).write_bytes((path / LAST).read_bytes()[: end - 1])
    found = surveyed(path)
    assert found.torn_bytes == found.segments[-1].torn_bytes == end - 1 - start


def test_what_is_not_damaged_is_counted(path: Path) -> None:
    change(path, FIRST, records(path, FIRST)[2][0])
    found = surveyed(path)
    assert len(found.damages) == 1
    assert found.topics[b"demo"].messages == 1
