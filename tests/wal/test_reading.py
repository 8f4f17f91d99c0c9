"""Reading messages of one topic out of a log that goes on growing."""

from __future__ import annotations

import errno
import random
import re
from pathlib import Path
from threading import Thread

import pytest

from blipmq.errors import CorruptLog, LogError
from blipmq.wal import reading
from blipmq.wal.facts import Fact, Moved, RunRecord, Settled
from blipmq.wal.log import Log
from blipmq.wal.reading import LogReader, Place
from tests.wal.directories import QuickDisk
from tests.wal.logs import (
    CHECKPOINT,
    FIRST,
    LAST,
    TIME_MS,
    all_wanted,
    append,
    begin,
    none_wanted,
    records_of,
    run,
)
from tests.wal.memory_disk import MemoryDisk

ALL = 1 << 40
DEMO = b"demo"


@pytest.fixture
def disk() -> MemoryDisk:
    return MemoryDisk()


@pytest.fixture
def log(disk: MemoryDisk) -> Log:
    return begin(disk)


def numbers(reader: LogReader, topic: bytes = DEMO, first: int = 0, stop: int = ALL) -> list[int]:
    """The first numbers of all runs that are found at once."""
    return [record.first for record in reader.read(topic, first, stop, ALL).runs]


def bit_by_bit(reader: LogReader, topic: bytes, first: int = 0, stop: int = ALL) -> list[RunRecord]:
    """All runs, read one by one, each from where the one before was found."""
    found: list[RunRecord] = []
    place: Place | None = None
    while first < stop:
        chunk = reader.read(topic, first, stop, 1, place)
        assert chunk.reached > first
        found += chunk.runs
        first, place = chunk.reached, chunk.place
    return found


# What is read


def test_the_runs_of_a_topic_are_found_in_order_and_those_of_others_are_not(log: Log) -> None:
    append(log, run(21, 2), run(23, topic=b"news"), Settled(7, 1, 1), run(24), run(25, topic=b""))
    assert numbers(log.reader()) == [21, 24]
    assert numbers(log.reader(), b"") == [25]
    assert numbers(log.reader(), b"dem") == []


def test_a_run_is_read_as_it_was_appended(log: Log) -> None:
    append(log, written := run(21, 3))
    (found,) = log.reader().read(DEMO, 0, ALL, ALL).runs
    assert (found.topic, found.first, found.count, found.time_ms) == (DEMO, 21, 3, TIME_MS)
    assert found.data == written.data


def test_a_moved_run_is_read_with_the_others_of_its_topic(log: Log) -> None:
    append(log, run(21), Moved(7, 3, 4, moved := run(22, 2)), run(24))
    found = log.reader().read(DEMO, 0, ALL, ALL).runs
    assert [record.first for record in found] == [21, 22, 24]
    assert found[1].data == moved.data


@pytest.mark.parametrize(
    ("first", "stop", "expected"),
    [
        (0, 21, []),
        (0, 22, [21]),
        (22, 23, [21]),
        (23, 26, [23, 25]),
        (22, 24, [21, 23]),
        (26, 27, [25]),
        (27, ALL, []),
    ],
)
def test_runs_are_read_that_hold_any_of_the_numbers(
    log: Log, first: int, stop: int, expected: list[int]
) -> None:
    append(log, run(21, 2), run(23, 2), run(25, 2))
    chunk = log.reader().read(DEMO, first, stop, ALL)
    assert [record.first for record in chunk.runs] == expected
    assert chunk.reached == stop


def test_the_runs_of_all_segments_are_found(log: Log) -> None:
    for number in (21, 22, 23):
        append(log, run(number))
        log.roll(CHECKPOINT, number + 1, all_wanted)
    assert numbers(log.reader()) == [21, 22, 23]


def test_after_a_restart_the_same_is_found(disk: MemoryDisk, log: Log) -> None:
    append(log, run(21), Moved(7, 3, 4, run(22)), run(23, topic=b"news"))
    restarted = begin(disk.after_kill())
    append(restarted, run(24))
    assert numbers(restarted.reader()) == [21, 22, 24]


def test_what_is_appended_later_is_found_by_the_same_reader(log: Log) -> None:
    reader = log.reader()
    chunk = reader.read(DEMO, 1, 21, ALL)
    append(log, run(21))
    assert [record.first for record in reader.read(DEMO, 21, 22, ALL, chunk.place).runs] == [21]


# How much


def test_reading_ends_when_it_has_the_bytes_that_were_asked_for(log: Log) -> None:
    append(log, *(run(number, body=bytes(1_000)) for number in range(21, 31)))
    chunk = log.reader().read(DEMO, 0, ALL, 2_500)
    assert [record.first for record in chunk.runs] == [21, 22, 23]
    assert chunk.reached == 24


def test_at_least_one_run_is_read(log: Log) -> None:
    append(log, run(21, body=bytes(1_000)), run(22))
    assert [record.first for record in log.reader().read(DEMO, 0, ALL, 0).runs] == [21]


def test_a_run_that_goes_on_beyond_the_end_is_read_again_from_there(log: Log) -> None:
    append(log, run(21, 4))
    reader = log.reader()
    chunk = reader.read(DEMO, 0, 23, 1)
    assert chunk.reached == 23
    assert [record.first for record in reader.read(DEMO, 23, ALL, 1, chunk.place).runs] == [21]


@pytest.mark.parametrize("seed", range(20))
def test_reading_bit_by_bit_finds_what_was_appended(
    monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """With an index of any coarseness, buffers that are too small, and segments in between."""
    rng = random.Random(seed)  # noqa: S311
    monkeypatch.setattr(reading, "BUFFER_BYTES", 1 << rng.randrange(9, 13))
    monkeypatch.setattr(reading, "_AHEAD_BYTES_MIN", 1 << rng.randrange(5, 9))
    monkeypatch.setattr("blipmq.wal.segment.SEGMENT_ENTRIES_MAX", rng.choice([1, 5, 20, 1_000]))
    log = begin(MemoryDisk())
    for segment in log._segments:
        segment.index.granule = rng.choice([1, 100, 1_000])
    appended: dict[bytes, list[tuple[int, bytes]]] = {}
    number, readers, places = 1, [log.reader(), log.reader()], dict[bytes, Place]()
    for _ in range(200):
        topic = b"t%d" % (rng.randrange(6) ** 2 // 4)
        record = run(number, rng.choice([1, 3]), topic, bytes(rng.choice([0, 90, 700, 5_000])))
        published: list[Fact] = [record, Moved(1, 1, 1, record)]
        append(log, Settled(1, 1, 1), rng.choice(published), next_number=number + 1)
        appended.setdefault(topic, []).append((number, bytes(record.data)))
        number += record.count
        if rng.random() < 0.05:
            log.roll(CHECKPOINT, number, all_wanted)
            log._segments[-1].index.granule = rng.choice([1, 100, 1_000])
        place = places.get(topic)
        chunk = rng.choice(readers).read(topic, place.reached if place else 0, number, 1, place)
        places[topic] = chunk.place
    for topic, expected in appended.items():
        found = bit_by_bit(readers[0], topic, stop=number)
        assert [(record.first, record.data) for record in found] == expected
        first = rng.choice(expected)[0]
        assert numbers(readers[1], topic, first) == [n for n, _ in expected if n >= first]


def test_a_place_of_another_topic_or_further_on_does_no_harm(log: Log) -> None:
    append(log, run(21), run(22, topic=b"news"), run(23), run(24, topic=b"news"))
    reader = log.reader()
    place = reader.read(DEMO, 0, ALL, 1).place
    place = reader.read(DEMO, 22, ALL, 1, place).place
    assert [record.first for record in reader.read(DEMO, 20, ALL, ALL, place).runs] == [21, 23]
    assert [record.first for record in reader.read(b"news", 24, ALL, 1, place).runs] == [24]


# Files that come and go


def test_a_segment_that_was_removed_is_passed_over(log: Log) -> None:
    append(log, run(21), run(22))
    reader = log.reader()
    place = reader.read(DEMO, 0, ALL, 1).place
    log.roll(CHECKPOINT, 23, none_wanted)
    append(log, run(23))
    assert [record.first for record in reader.read(DEMO, 22, ALL, ALL, place).runs] == [23]


def test_what_is_open_of_removed_segments_is_closed(disk: MemoryDisk, log: Log) -> None:
    append(log, run(21))
    reader = log.reader()
    assert numbers(reader) == [21]
    assert disk.open_files == 2
    log.roll(CHECKPOINT, 22, none_wanted)
    assert numbers(reader) == []
    assert disk.open_files == 1


def test_a_bounded_number_of_files_is_open(
    disk: MemoryDisk, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "FILES_MAX", 2)
    for number in range(21, 30):
        append(log, run(number))
        log.roll(CHECKPOINT, number + 1, all_wanted)
    reader = log.reader()
    assert len(numbers(reader)) == 9
    assert disk.open_files == 1 + 2
    reader.close()
    assert disk.open_files == 1


# What does not check


def damaged(disk: MemoryDisk, at: int) -> int:
    """Flip a bit of the last record of the first segment; where that begins."""
    *_, (start, _) = records_of(disk.files[FIRST])
    disk.files[FIRST][start + at] ^= 1
    return start


@pytest.mark.parametrize("at", [0, 8, 12, 17, 31, 40])
def test_a_damaged_record_is_named_with_its_file(disk: MemoryDisk, log: Log, at: int) -> None:
    append(log, run(21), run(22))
    start = damaged(disk, at)
    with pytest.raises(CorruptLog, match=re.escape(f"/log/{FIRST}: offset {start}: ")):
        numbers(log.reader())


def test_damage_of_another_topic_is_not_looked_at(disk: MemoryDisk, log: Log) -> None:
    append(log, run(21), run(22, topic=b"news"))
    damaged(disk, 50)
    assert numbers(log.reader()) == [21]


def test_a_record_that_ends_inside_of_the_next_is_damage(disk: MemoryDisk, log: Log) -> None:
    log._segments[0].index.granule = 1
    append(log, run(21), run(22))
    *_, (start, _), (following, _) = records_of(disk.files[FIRST])
    disk.files[FIRST][start + 8] += 1
    disk.files[FIRST][start + 19] ^= 1
    log._segments[0].index.granule = following
    with pytest.raises(CorruptLog, match=re.escape(f"/log/{FIRST}: offset ")):
        numbers(log.reader())


@pytest.mark.parametrize("call", ["open", "read"])
def test_a_segment_that_cannot_be_read_is_an_error_that_names_it(
    disk: MemoryDisk, log: Log, call: str
) -> None:
    append(log, run(21))
    disk.fail("open" if call == "open" else "read", errno.EIO)
    with pytest.raises(LogError, match=f"/log/{FIRST}: Input/output error"):
        numbers(log.reader())


def test_a_segment_that_is_missing_is_an_error_that_names_it(disk: MemoryDisk, log: Log) -> None:
    append(log, run(21))
    del disk.files[FIRST]
    with pytest.raises(LogError, match=f"/log/{FIRST}: No such file or directory"):
        numbers(log.reader())


# Numbers


def test_the_earliest_number_of_a_topic_is_known(disk: MemoryDisk, log: Log) -> None:
    append(log, run(21, topic=b"news"))
    log.roll(CHECKPOINT, 22, all_wanted)
    append(log, run(22, 2), run(24, topic=b"news"))
    for its_log in (log, begin(disk.after_kill())):
        reader = its_log.reader()
        assert [reader.earliest(topic) for topic in (b"news", DEMO, b"none")] == [21, 22, None]


def test_the_first_number_of_a_time_is_found(disk: MemoryDisk, log: Log) -> None:
    for number in range(21, 27):
        log.append([run(number, topic=(b"news", DEMO)[number % 2])], number + 1, number * 1_000)
        if number == 23:
            log.roll(CHECKPOINT, 24, all_wanted)
    reader = log.reader()
    times = (0, 21_000, 21_001, 23_000, 23_001, 25_000, 25_001)
    found = [reader.first_number_at(DEMO, time_ms) for time_ms in times]
    assert found == [21, 21, 23, 23, 25, 25, None]
    assert sorted(disk.files) == [FIRST, LAST]


def test_a_reader_finds_everything_while_another_thread_writes(tmp_path: Path) -> None:
    """Numbers 1 to `committed` were appended before a read begins, as a broker knows of them."""
    log = begin(QuickDisk(tmp_path), segment_bytes=20_000)
    runs, committed = 600, [1]
    reader = log.reader()

    def write() -> None:
        for number in range(1, runs + 1):
            append(log, run(number, body=bytes(number % 7 * 100)), next_number=number + 1)
            committed[0] = number + 1
            if log.full:
                log.roll(CHECKPOINT, number + 1, {DEMO: max(1, reached)}.get)

    reached, found, place = 1, list[int](), None
    thread = Thread(target=write)
    thread.start()
    try:
        while reached <= runs:
            chunk = reader.read(DEMO, reached, committed[0], 1_000, place)
            found += [record.first for record in chunk.runs]
            reached, place = chunk.reached, chunk.place
    finally:
        thread.join()
    assert found == list(range(1, runs + 1))
    reader.close()
    log.close()
