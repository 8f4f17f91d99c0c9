"""A segment that begins in a file of zeros: what is found in it, whatever happens meanwhile."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

import attrs
import pytest

from blipmq.broker.restore import Restoration
from blipmq.wal.backup import backup
from blipmq.wal.disk import Disk
from blipmq.wal.facts import Checkpoint, Settled
from blipmq.wal.log import Log
from blipmq.wal.next_segment import NEXT_NAME
from blipmq.wal.repair import save_copy
from blipmq.wal.room import NoRoom
from blipmq.wal.scan import LogScan
from blipmq.wal.survey import survey
from tests.wal.directories import QuickDisk, found, repaired, starts
from tests.wal.logs import (
    CHECKPOINT,
    FIRST,
    LAST,
    all_wanted,
    append,
    begin,
    none_wanted,
    read,
    records_of,
    run,
)
from tests.wal.memory_disk import Call, MemoryDisk
from tests.wal.test_recovery import crashes

SIZE = 5_000
CAPACITY = 1 << 20


@pytest.fixture
def disk() -> MemoryDisk:
    return MemoryDisk(capacity=CAPACITY)


@pytest.fixture
def log(disk: MemoryDisk) -> Log:
    return begin(disk, segment_bytes=SIZE)


def prepare(log: Log) -> None:
    while log.prepare():
        pass


def rolled(disk: Disk) -> Log:
    """A log whose second segment begins in zeros."""
    log = begin(disk, segment_bytes=SIZE)
    append(log, run(21))
    prepare(log)
    log.roll(CHECKPOINT, 22, all_wanted)
    append(log, run(22), Settled(7, 11, 11), run(23))
    return log


def test_a_segment_begins_in_the_file_that_was_prepared(disk: MemoryDisk) -> None:
    rolled(disk)
    assert NEXT_NAME not in disk.files
    assert len(disk.files[LAST]) == SIZE
    assert read(disk.after_kill()).numbers == [21, 22, 23]


def test_it_is_prepared_piece_by_piece(
    disk: MemoryDisk, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("blipmq.wal.next_segment.PIECE_BYTES", 2_000)
    syncs = disk.count("sync")
    assert [log.prepare(), log.prepare(), log.prepare(), log.prepare()] == [
        True,
        True,
        False,
        False,
    ]
    assert disk.files[NEXT_NAME] == bytes(SIZE)
    assert disk.count("sync") == syncs + 3


def test_a_file_that_is_half_prepared_is_not_used(
    disk: MemoryDisk, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("blipmq.wal.next_segment.PIECE_BYTES", 2_000)
    log.prepare()
    log.roll(CHECKPOINT, 1, all_wanted)
    assert len(disk.files[LAST]) < 1_000
    prepare(log)
    log.roll(CHECKPOINT, 1, all_wanted)
    assert len(disk.files["0000000000000003.wal"]) == SIZE


def test_a_file_that_is_ready_is_reason_enough_to_begin_a_segment(log: Log) -> None:
    full = [log.full]
    prepare(log)
    full.append(log.full)
    log.roll(CHECKPOINT, 1, all_wanted)
    prepare(log)
    full.append(log.full)
    assert full == [False, True, False]


def test_a_checkpoint_that_is_longer_than_the_zeros_is_no_reason(disk: MemoryDisk) -> None:
    log = begin(disk, segment_bytes=SIZE)
    kept = tuple((b"topic %d" % number, number) for number in range(1_000))
    prepare(log)
    log.roll(Checkpoint(1_000, (), (), kept), 1, all_wanted)
    prepare(log)
    assert not log.full


def test_a_segment_that_ends_has_no_zeros_any_more(disk: MemoryDisk) -> None:
    log = rolled(disk)
    log.roll(CHECKPOINT, 24, all_wanted)
    *_, (_, end) = records_of(disk.files[LAST])
    assert len(disk.files[LAST]) == end


def test_a_log_that_is_closed_has_no_zeros_and_nothing_prepared(disk: MemoryDisk) -> None:
    log = rolled(disk)
    log.prepare()
    log.close()
    *_, (_, end) = records_of(disk.files[LAST])
    assert len(disk.files[LAST]) == end
    assert sorted(disk.files) == [FIRST, LAST]
    assert disk.open_files == 0


def test_a_start_after_a_crash_cuts_the_zeros_and_removes_what_was_prepared(
    disk: MemoryDisk,
) -> None:
    log = rolled(disk)
    prepare(log)
    crashed = disk.after_kill()
    found = read(crashed)
    assert found.torn_bytes == 0
    *_, (_, end) = records_of(crashed.files[LAST])
    assert len(crashed.files[LAST]) == end
    assert sorted(crashed.files) == [FIRST, LAST]


def test_a_segment_grows_beyond_its_zeros(disk: MemoryDisk) -> None:
    log = rolled(disk)
    append(log, run(24, body=bytes(2 * SIZE)), run(25))
    assert log.full
    assert read(disk.after_kill()).numbers == [21, 22, 23, 24, 25]


def test_a_crash_between_any_two_operations_of_a_roll_loses_nothing(disk: MemoryDisk) -> None:
    log = begin(disk, segment_bytes=SIZE)
    append(log, run(21))
    prepare(log)
    before = read(disk.after_kill())
    since = len(disk.operations)
    log.roll(CHECKPOINT, 22, none_wanted)
    after = read(disk.after_kill())
    states = [(b.facts, b.runs) for b in (before, after)]
    for crashed in crashes(disk.operations, since):
        one = read(crashed)
        assert (one.facts, one.runs) in states
        assert one.next_number >= 22


def test_a_last_record_of_which_only_a_part_was_written_is_torn(disk: MemoryDisk) -> None:
    rolled(disk)
    whole = read(disk.after_kill())
    *_, (start, end) = filled(disk.files[LAST])
    for cut in range(start + 1, end):
        torn = disk.after_kill()
        torn.files[LAST][cut:end] = bytes(end - cut)
        kept = len(bytes(torn.files[LAST][start:]).rstrip(b"\0"))
        assert read(torn) == attrs.evolve(whole, runs=whole.runs[:-1], torn_bytes=kept)


def test_without_room_nothing_is_appended_and_the_zeros_are_given_back(disk: MemoryDisk) -> None:
    log = rolled(disk)
    disk.fail("append", errno.ENOSPC, written=30)
    with pytest.raises(NoRoom):
        append(log, run(24))
    *_, (_, end) = records_of(disk.files[LAST])
    assert len(disk.files[LAST]) == end
    append(log, run(25))
    assert read(disk.after_kill()).numbers == [21, 22, 23, 25]


@pytest.mark.parametrize("call", ["create", "append", "sync", "close"])
def test_where_it_cannot_be_prepared_segments_begin_as_ever(
    disk: MemoryDisk, log: Log, call: Call
) -> None:
    disk.fail(call, errno.EIO)
    wanted = [log.wants_next]
    prepare(log)
    wanted.append(log.wants_next)
    assert NEXT_NAME not in disk.files
    log.roll(CHECKPOINT, 1, all_wanted)
    wanted.append(log.wants_next)
    assert wanted == [True, False, True]
    append(log, run(21))
    assert read(disk.after_kill()).numbers == [21]


@pytest.mark.parametrize("call", ["open", "rename"])
def test_a_file_that_cannot_be_taken_leaves_the_segment_as_it_is(
    disk: MemoryDisk, log: Log, call: Call
) -> None:
    prepare(log)
    disk.fail(call, errno.EMFILE)
    with pytest.raises(NoRoom):
        log.roll(CHECKPOINT, 1, all_wanted)
    append(log, run(21))
    log.roll(CHECKPOINT, 22, all_wanted)
    assert len(disk.files[LAST]) == SIZE
    assert read(disk.after_kill()).numbers == [21]


def test_on_a_disk_with_little_room_nothing_is_prepared() -> None:
    disk = MemoryDisk(capacity=4 * SIZE)
    prepare(begin(disk, segment_bytes=SIZE))
    assert NEXT_NAME not in disk.files


# The tools


@pytest.fixture
def live(tmp_path: Path) -> Path:
    """A log as a daemon has it that is using it, or was killed."""
    log = rolled(QuickDisk(tmp_path / "in use"))
    prepare(log)
    return Path(shutil.copytree(tmp_path / "in use", tmp_path / "log"))


def filled(content: bytes | bytearray) -> list[tuple[int, int]]:
    """Where the records in front of the zeros begin and end."""
    return list(records_of(bytes(content).rstrip(b"\0")))


def test_a_log_in_use_is_read(live: Path) -> None:
    assert survey(LogScan.of(QuickDisk(live)), Restoration()).damages == []


def test_a_backup_has_no_zeros(live: Path, tmp_path: Path) -> None:
    copied = backup(live, tmp_path / "backup")
    assert copied.bytes < SIZE
    assert found(tmp_path / "backup").numbers == [21, 22, 23]


def test_a_saved_copy_has_no_prepared_file(live: Path, tmp_path: Path) -> None:
    save_copy(live, tmp_path / "copy")
    assert not (tmp_path / "copy" / NEXT_NAME).exists()
    assert starts(tmp_path / "copy")


@pytest.mark.parametrize("index", [1, -1])
def test_damage_in_front_of_zeros_is_as_long_as_what_is_damaged(live: Path, index: int) -> None:
    content = bytearray((live / LAST).read_bytes())
    start, end = filled(content)[index]
    content[start + 20] ^= 1
    (live / LAST).write_bytes(content)
    (damage,) = survey(LogScan.of(QuickDisk(live)), Restoration()).damages
    assert (damage.start, damage.end) == (start, end)
    repaired(live)
    assert starts(live)


def test_a_torn_tail_in_front_of_zeros_is_cut_out_by_a_repair_too(live: Path) -> None:
    content = bytearray((live / LAST).read_bytes())
    places = filled(content)
    content[places[1][0] + 20] ^= 1
    content[places[-1][1] - 3 : places[-1][1]] = bytes(3)
    (live / LAST).write_bytes(content)
    assert repaired(live).scan.torn_bytes > 0
    assert found(live).numbers == [21]
