from __future__ import annotations

from pathlib import Path

import pytest

from blipmq.wal.encoding import CONTINUED_BYTES
from blipmq.wal.facts import Checkpoint
from blipmq.wal.salvage import MISSING, LiveDisk
from blipmq.wal.scan import LogScan, Loss, NoLog
from tests.wal.directories import (
    QuickDisk,
    change,
    contents,
    put,
    records,
    scanned,
    starts,
    two_segments,
)
from tests.wal.logs import (
    FIRST,
    LAST,
    all_wanted,
    append,
    begin,
    none_wanted,
    record_with_payload,
    run,
    salts,
)


def bounds(loss: Loss) -> tuple[bytes | None, int, int | None]:
    return loss.topic, loss.first, loss.last


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return two_segments(tmp_path / "log")


def test_a_good_log_has_no_damage(path: Path) -> None:
    scan = LogScan.of(QuickDisk(path))
    assert [record.first for record in scan.runs()] == [21, 23, 24]
    assert (scan.last, scan.damages, scan.losses) == (2, [], [])


def test_progress_adds_up_to_the_size(path: Path) -> None:
    scan = LogScan.of(QuickDisk(path))
    done: list[int] = []
    for _ in scan.runs(done.append):
        pass
    assert sum(done) == scan.size == sum(map(len, contents(path).values()))


@pytest.mark.parametrize("name", [FIRST, LAST])
def test_it_finds_damage_exactly_where_the_daemon_would_refuse(path: Path, name: str) -> None:
    good = contents(path)
    for at in range(len(good[name])):
        put(path, good)
        change(path, name, at)
        damaged = bool(scanned(path).damages)
        assert damaged is not starts(path), f"byte {at}"


@pytest.mark.parametrize("name", [FIRST, LAST])
def test_it_judges_a_file_that_was_cut_as_the_daemon_does(path: Path, name: str) -> None:
    good = contents(path)
    for size in range(len(good[name])):
        # An older segment that was cut between two records cannot be told from a good one, but one
        # without any record was never wanted.
        if name == FIRST and size == 32:
            continue
        put(path, {**good, name: good[name][:size]})
        damaged = bool(scanned(path).damages)
        assert damaged is not starts(path), f"{size} bytes"


def test_an_older_segment_without_a_record_is_damaged(path: Path) -> None:
    (path / FIRST).write_bytes((path / FIRST).read_bytes()[:32])
    assert [damage.useless for damage in scanned(path).damages] == [True]


def test_a_damaged_run_is_lost_by_its_topic_and_numbers(path: Path) -> None:
    change(path, FIRST, records(path, FIRST)[2][1] - 2)
    assert [bounds(loss) for loss in scanned(path).losses] == [(b"demo", 21, 22)]


def test_what_an_unreadable_record_held_lies_between_its_neighbours(tmp_path: Path) -> None:
    log = begin(QuickDisk(tmp_path))
    append(log, run(1, 4), run(5, 5), run(10, 2), next_number=12)
    log.close()
    start, end = records(tmp_path, FIRST)[2]
    change(tmp_path, FIRST, start, bytes(end - start))
    (loss,) = scanned(tmp_path).losses
    assert bounds(loss) == (None, 5, 9)
    assert loss.messages_max == 5


def test_many_numbers_in_few_bytes_are_not_so_many_messages(tmp_path: Path) -> None:
    log = begin(QuickDisk(tmp_path))
    append(log, run(1), run(2), run(1_000_000), next_number=1_000_001)
    log.close()
    start, end = records(tmp_path, FIRST)[2]
    change(tmp_path, FIRST, start, bytes(end - start))
    (loss,) = scanned(tmp_path).losses
    assert bounds(loss) == (None, 2, 999_999)
    assert loss.messages_max == (end - start) // 17


def test_nothing_says_how_far_the_last_records_of_a_log_went(path: Path) -> None:
    change(path, LAST, (path / LAST).read_bytes().rindex(b"news"))
    (loss,) = scanned(path).losses
    assert bounds(loss) == (None, 24, None)


def test_no_message_is_lost_where_the_neighbours_leave_no_number(tmp_path: Path) -> None:
    log = begin(QuickDisk(tmp_path))
    append(log, run(1, 4), next_number=5)
    append(log, run(5), next_number=6)
    log.close()
    _, end = records(tmp_path, FIRST)[1]
    content = (tmp_path / FIRST).read_bytes()
    junk = b"\xee" * 40
    (tmp_path / FIRST).write_bytes(content[:end] + junk + content[end:])
    scan = scanned(tmp_path)
    assert len(scan.damages) == 1
    assert scan.losses == []


def test_a_missing_segment_is_damage_and_its_messages_lie_between_the_others(path: Path) -> None:
    (path / FIRST).unlink()
    scan = scanned(path)
    assert [(damage.name, damage.reason) for damage in scan.damages] == [(FIRST, MISSING)]
    assert [bounds(loss) for loss in scan.losses] == [(None, 1, 22)]


def test_a_segment_that_nobody_wants_may_be_damaged(path: Path) -> None:
    old = contents(path)[FIRST]
    log = begin(QuickDisk(path))
    log.roll(Checkpoint(1_000), 25, none_wanted)
    log.close()
    (path / FIRST).write_bytes(old[:40])
    assert scanned(path).damages == []
    assert starts(path)


def test_a_segment_that_was_only_begun_is_no_damage(path: Path) -> None:
    (path / "0000000000000003.wal").write_bytes(b"BLIP")
    scan = scanned(path)
    assert (scan.begun, scan.last, scan.torn_bytes, scan.damages) == (3, 2, 4, [])
    assert starts(path)


def test_a_segment_that_was_only_begun_needs_the_one_before(path: Path) -> None:
    (path / "0000000000000004.wal").write_bytes(b"BLIP")
    assert [damage.name for damage in scanned(path).damages] == ["0000000000000003.wal"]
    assert not starts(path)


def test_segments_that_the_daemon_removes_meanwhile_are_not_missing(tmp_path: Path) -> None:
    log = begin(QuickDisk(tmp_path))
    append(log, run(1))
    log.roll(Checkpoint(1_000), 2, all_wanted)
    append(log, run(2))
    scan = LogScan.of(QuickDisk(tmp_path))
    log.roll(Checkpoint(1_000), 3, none_wanted)
    assert list(scan.runs()) == []
    assert scan.damages == []
    log.close()


def test_the_segment_before_one_that_the_daemon_removes_meanwhile_is_read(tmp_path: Path) -> None:
    log = begin(QuickDisk(tmp_path))
    append(log, run(1, topic=b"kept"))
    log.roll(Checkpoint(1_000), 2, all_wanted)
    append(log, run(2, topic=b"work"))
    scan = LogScan.of(QuickDisk(tmp_path))
    log.roll(Checkpoint(1_000), 3, {b"kept": 1}.get)
    assert [record.first for record in scan.runs()] == [1]
    assert scan.damages == []
    log.close()


class Behind(LiveDisk):
    """Lists the directory once as it was before the daemon went on."""

    def __init__(self, path: Path, names: list[str]) -> None:
        super().__init__(path)
        self.before = [names]

    def names(self) -> list[str]:
        return self.before.pop() if self.before else super().names()


def test_it_begins_again_when_the_last_segment_is_gone_already(tmp_path: Path) -> None:
    log = begin(QuickDisk(tmp_path))
    names = [path.name for path in tmp_path.iterdir()]
    log.roll(Checkpoint(1_000), 3, none_wanted)
    append(log, run(3))
    scan = LogScan.of(Behind(tmp_path, names))
    assert [record.first for record in scan.runs()] == [3]
    log.close()


def test_a_torn_tail_is_counted(path: Path) -> None:
    (path / LAST).write_bytes((path / LAST).read_bytes()[:-3])
    scan = scanned(path)
    start, end = records(path, LAST)[-1]
    assert scan.torn_bytes == end - 3 - start


def test_a_directory_without_segments_holds_no_log(tmp_path: Path) -> None:
    with pytest.raises(NoLog, match="there is no log in this directory"):
        LogScan.of(QuickDisk(tmp_path))


def test_a_directory_that_is_not_there_holds_no_log(tmp_path: Path) -> None:
    with pytest.raises(NoLog, match="No such file or directory"):
        LogScan.of(QuickDisk(tmp_path / "log"))


class Guarded(QuickDisk):
    """Does not let FIRST be read."""

    def read(self, name: str) -> bytes:
        if name == FIRST:
            raise PermissionError(13, "Permission denied", str(self.directory / name))
        return super().read(name)


def test_a_segment_that_may_not_be_read_is_no_damage(path: Path) -> None:
    scan = LogScan.of(Guarded(path))
    with pytest.raises(NoLog, match=f"{FIRST}: Permission denied"):
        list(scan.runs())
    assert scan.damages == []


def test_a_log_that_a_daemon_writes_to_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    log = begin(QuickDisk(tmp_path))
    append(log, run(1))
    scan = LogScan.of(QuickDisk(tmp_path))
    append(log, run(2))
    assert [record.first for record in scan.runs()] == [1, 2]
    log.close()


@pytest.mark.parametrize("lost", [1, 2, 29])
def test_a_crash_while_the_next_segment_is_named_is_no_damage(path: Path, lost: int) -> None:
    content = (path / FIRST).read_bytes()
    (path / FIRST).write_bytes(content[:-lost])
    scan = scanned(path)
    assert (scan.damages, scan.torn_bytes) == ([], CONTINUED_BYTES - lost)
    assert starts(path)


def test_an_older_segment_that_ends_in_an_unknown_record_is_damaged_and_no_more(path: Path) -> None:
    (start, end), salt = records(path, FIRST)[-1], salts()()
    assert end - start == CONTINUED_BYTES
    unknown = record_with_payload(b"\xc8" * (CONTINUED_BYTES - 17), salt=salt)
    change(path, FIRST, start, unknown)
    scan = scanned(path)
    assert ["unknown kind of record 200" in damage.reason for damage in scan.damages] == [True]
    assert not starts(path)
