from __future__ import annotations

from pathlib import Path

import attrs
import pytest

from blipmq.broker.restore import Restoration
from blipmq.errors import CorruptLog
from blipmq.protocol.properties import NO_PROPERTIES, DeadLetter, MessageProperties
from blipmq.wal.facts import Checkpoint, Moved, Seen, Settled, SubscriptionState
from blipmq.wal.log import Log
from blipmq.wal.scan import LogScan
from blipmq.wal.transfer import Imported, Importer, StoredMessage, export
from tests.wal.directories import (
    RESERVE,
    QuickDisk,
    change,
    contents,
    found,
    records,
    state,
    two_segments,
)
from tests.wal.logs import FIRST, TIME_MS, begin, run, salts

NOW_MS = TIME_MS + 1_000_000


def exported(
    path: Path, *, topic: bytes | None = None, settled: bool = False
) -> list[StoredMessage]:
    scan = LogScan.of(QuickDisk(path))
    return list(export(scan, Restoration(), topic=topic, settled=settled))


def numbers(messages: list[StoredMessage]) -> list[int]:
    return [message.number for message in messages]


def imported(
    path: Path, *messages: StoredMessage, segment_bytes: int = 1 << 20
) -> dict[bytes, Imported]:
    log = Log.open(QuickDisk(path), segment_bytes, salts())
    try:
        importer = Importer(log, Restoration(), RESERVE, NOW_MS)
        importer.run(messages)
        return importer.topics
    finally:
        log.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return two_segments(tmp_path / "log")


# Out of a log


def test_what_somebody_wants_is_exported(path: Path) -> None:
    assert numbers(exported(path)) == [23, 24]


def test_what_nobody_wants_is_exported_on_request(path: Path) -> None:
    assert numbers(exported(path, settled=True)) == [21, 22, 23, 24]


def test_one_topic_is_exported(path: Path) -> None:
    assert numbers(exported(path, topic=b"news")) == [24]


def test_a_message_says_who_wants_it(path: Path) -> None:
    wanted, kept = exported(path)
    assert (wanted.subscriptions, wanted.kept) == ((7,), False)
    assert (kept.subscriptions, kept.kept) == ((), True)


def test_a_message_has_its_body_and_time(path: Path) -> None:
    message = exported(path)[0]
    assert (message.topic, message.body, message.qos) == (b"demo", b"body", 1)
    assert message.time_ms == TIME_MS


def test_every_message_of_a_run_has_its_own_subscriptions(tmp_path: Path) -> None:
    both = tuple(SubscriptionState(id_, "k", b"demo", 1) for id_ in (7, 8))
    log = begin(QuickDisk(tmp_path), Checkpoint(99, (), both))
    log.append([run(1, 4), Settled(7, 2, 2), Settled(8, 2, 3)], 5, TIME_MS)
    log.close()
    whose = {message.number: message.subscriptions for message in exported(tmp_path)}
    assert whose == {1: (7, 8), 3: (7,), 4: (7, 8)}


def test_of_a_run_only_what_is_kept_is_exported(tmp_path: Path) -> None:
    log = begin(QuickDisk(tmp_path), Checkpoint(99, (), (), ((b"demo", 3),)))
    log.append([run(1, 5)], 6, TIME_MS)
    log.close()
    assert numbers(exported(tmp_path)) == [3, 4, 5]


# Into a log


def test_into_a_new_log_messages_are_kept_for_whoever_comes(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "log"
    topics = imported(path, StoredMessage(b"demo", b"one"), StoredMessage(b"demo", b"two"))
    assert topics == {b"demo": Imported(0, 2)}
    assert [(m.body, m.kept) for m in exported(path)] == [(b"one", True), (b"two", True)]


def test_messages_are_for_the_subscriptions_of_their_topic(path: Path) -> None:
    assert imported(path, StoredMessage(b"demo", b"new")) == {b"demo": Imported(1, 1)}
    message = exported(path)[-1]
    assert (message.body, message.subscriptions) == (b"new", (7,))


def test_numbers_are_above_all_that_were_reserved(path: Path) -> None:
    imported(path, StoredMessage(b"demo", b"new", number=5))
    assert exported(path)[-1].number >= 1_000


def test_numbers_after_an_import_are_above_it(path: Path) -> None:
    imported(path, StoredMessage(b"demo", b"new"))
    assert state(path).reserved > exported(path)[-1].number


def test_what_was_in_the_log_stays_wanted_as_it_was(path: Path) -> None:
    before = exported(path)
    imported(path, StoredMessage(b"other", b"new"))
    assert exported(path)[:-1] == before


def test_what_nobody_wanted_is_not_kept_after_an_import(tmp_path: Path) -> None:
    log = begin(QuickDisk(tmp_path), Checkpoint(99, (), (), ((b"demo", 3),)))
    log.append([run(1, 2)], 3, TIME_MS)
    log.close()
    imported(tmp_path, StoredMessage(b"demo", b"new"))
    assert [message.body for message in exported(tmp_path)] == [b"new"]


def test_an_import_over_many_segments_is_wanted_as_a_whole(path: Path) -> None:
    messages = [StoredMessage(b"a" if i % 2 else b"demo", b"%d" % i * 100) for i in range(50)]
    imported(path, *messages, segment_bytes=1_000)
    assert len(contents(path)) > 5
    assert [message.body for message in exported(path)[2:]] == [m.body for m in messages]


def test_a_message_keeps_the_time_that_it_brings(path: Path) -> None:
    new, old = StoredMessage(b"demo", b"new"), StoredMessage(b"demo", b"old", time_ms=TIME_MS)
    imported(path, new, old)
    assert [message.time_ms for message in exported(path)[-2:]] == [NOW_MS, TIME_MS]


def test_consecutive_messages_of_a_topic_are_one_run(path: Path) -> None:
    imported(path, *(StoredMessage(b"demo", b"%d" % i) for i in range(2_500)))
    assert [run.count for run in found(path).runs[3:]] == [1_000, 1_000, 500]


def test_a_long_run_of_large_messages_is_divided(path: Path) -> None:
    imported(path, *(StoredMessage(b"demo", bytes(1 << 19)) for _ in range(5)))
    assert [run.count for run in found(path).runs[3:]] == [2, 2, 1]


def test_a_damaged_log_takes_nothing(path: Path) -> None:
    change(path, FIRST, records(path, FIRST)[2][0])
    with pytest.raises(CorruptLog, match=FIRST):
        imported(path, StoredMessage(b"demo", b"new"))


def test_what_was_exported_comes_back_by_an_import(path: Path, tmp_path: Path) -> None:
    messages = exported(path, settled=True)
    imported(tmp_path / "new", *messages)
    again = exported(tmp_path / "new")
    assert [(m.topic, m.body, m.time_ms) for m in again] == [
        (m.topic, m.body, m.time_ms) for m in messages
    ]


# Properties


WITH_PROPERTIES = StoredMessage(
    b"demo",
    b"body",
    properties=MessageProperties(
        ttl_ms=5,
        message_id=b"id",
        key=b"k",
        headers=(("a", b"1"), ("a", b"\xff")),
        dead_letter=DeadLetter("rejected", b"demo", 7, b"workers"),
    ),
)


def test_properties_come_into_a_log_and_out_of_it(path: Path) -> None:
    imported(path, WITH_PROPERTIES, StoredMessage(b"demo", b"none"), WITH_PROPERTIES)
    found = exported(path)[2:]
    assert [message.properties for message in found] == [
        WITH_PROPERTIES.properties,
        NO_PROPERTIES,
        WITH_PROPERTIES.properties,
    ]
    assert [message.body for message in found] == [b"body", b"none", b"body"]


def test_messages_that_share_their_ttl_are_one_run(path: Path) -> None:
    ttls = (5, 5, None, 7)
    messages = [
        StoredMessage(b"demo", b"", properties=MessageProperties(ttl_ms=ttl, key=b"%d" % i))
        for i, ttl in enumerate(ttls)
    ]
    imported(path, *messages)
    assert [run.count for run in found(path).runs[3:]] == [2, 1, 1]


DELAYED = StoredMessage(
    b"demo", b"later", time_ms=TIME_MS, properties=MessageProperties(delay_ms=60_000)
)


def test_a_delayed_message_is_imported_as_one_that_waits(path: Path) -> None:
    assert imported(path, DELAYED) == {b"demo": Imported(1, 1)}
    message = exported(path, topic=b"demo")[-1]
    assert (message.body, message.time_ms, message.properties) == (
        b"later",
        TIME_MS,
        DELAYED.properties,
    )
    assert found(path).runs[-1].topic == b""
    assert (message.kept, message.delayed) == (False, True)


def test_delayed_messages_wait_over_many_segments(path: Path) -> None:
    imported(path, *(attrs.evolve(DELAYED, time_ms=i) for i in range(1, 100)), segment_bytes=1_000)
    assert len(contents(path)) > 5
    assert [message.time_ms for message in exported(path)[2:]] == list(range(1, 100))


def test_delayed_messages_that_were_published_are_not_exported(tmp_path: Path) -> None:
    imported(tmp_path, DELAYED)
    log = begin(QuickDisk(tmp_path), Checkpoint(99, (), (SubscriptionState(0, "", b"", 1),)))
    number = found_number(tmp_path)
    log.append([Moved(0, number, number, run(number + 1))], number + 2, TIME_MS)
    log.close()
    assert numbers(exported(tmp_path)) == [number + 1]
    assert numbers(exported(tmp_path, settled=True)) == [number, number + 1]


def found_number(path: Path) -> int:
    return exported(path)[0].number


def test_an_import_keeps_the_message_ids_that_were_seen(tmp_path: Path) -> None:
    seen = (Seen(b"demo", ((TIME_MS, b"id"),)),)
    begin(QuickDisk(tmp_path), Checkpoint(99, seen=seen)).close()
    imported(tmp_path, StoredMessage(b"demo", b"new"))
    checkpoint = LogScan.of(QuickDisk(tmp_path)).checkpoint
    assert checkpoint is not None
    assert checkpoint.seen == seen


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (StoredMessage(b"", b"x"), "the topic is empty"),
        (StoredMessage(b"t" * 65_536, b"x"), "the topic has 65536 bytes, not up to 65535"),
        (StoredMessage(b"\xff", b"x"), "the topic is not UTF-8"),
        (StoredMessage(b"t", bytes(16_773_108)), "the body has 16773108 bytes"),
        (
            StoredMessage(b"t", bytes(16_773_100), properties=MessageProperties(ttl_ms=5)),
            "the body has 16773100 bytes",
        ),
        (StoredMessage(b"t", b"", properties=MessageProperties(message_id=b"")), "empty"),
        (StoredMessage(b"t", b"", properties=MessageProperties(key=bytes(1_025))), "1024"),
        (StoredMessage(b"t", b"", properties=MessageProperties(reply_to=b"\xff")), "utf-8"),
    ],
)
def test_a_message_that_no_broker_takes_is_refused(message: StoredMessage, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        message.check()


def test_the_largest_message_that_a_broker_takes_is_not_refused() -> None:
    StoredMessage(b"t", bytes(16_773_107)).check()
