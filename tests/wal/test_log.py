"""Appending, syncing and rolling, and what happens when the disk does not do its part."""

from __future__ import annotations

import errno
import os

import pytest

from blipmq.errors import LogError
from blipmq.wal.facts import Checkpoint, Closed, Moved, Settled
from blipmq.wal.log import Log
from blipmq.wal.room import NoRoom
from tests.wal.logs import (
    CHECKPOINT,
    FIRST,
    LAST,
    TIME_MS,
    all_wanted,
    append,
    begin,
    none_wanted,
    read,
    records_of,
    run,
    salts,
)
from tests.wal.memory_disk import Call, MemoryDisk

FULL = [errno.ENOSPC, errno.EDQUOT, errno.EFBIG]


@pytest.fixture
def disk() -> MemoryDisk:
    return MemoryDisk()


@pytest.fixture
def log(disk: MemoryDisk) -> Log:
    return begin(disk)


# Appending


def test_facts_go_out_with_one_write(disk: MemoryDisk, log: Log) -> None:
    writes = disk.count("append")
    append(log, run(21), Settled(7, 11, 11), run(22), Closed(7, 23))
    assert disk.count("append") == writes + 1


def test_settlements_next_to_each_other_are_one_record(disk: MemoryDisk, log: Log) -> None:
    append(log, Settled(7, 1, 1), Settled(8, 1, 4), run(21), Settled(7, 2, 2), Settled(7, 3, 3))
    # the checkpoint and these three
    assert len(list(records_of(disk.files[FIRST]))) == 1 + 3
    assert read(disk.after_kill()).facts == [
        CHECKPOINT,
        Settled(7, 1, 1),
        Settled(8, 1, 4),
        Settled(7, 2, 2),
        Settled(7, 3, 3),
    ]


def test_what_was_appended_is_counted_in_records_and_bytes(disk: MemoryDisk, log: Log) -> None:
    append(log, Settled(7, 1, 1), Settled(8, 1, 4), run(21))
    assert log.appended_records == 1 + 2
    assert log.appended_bytes == len(disk.files[FIRST])


def test_a_segment_is_full_when_it_has_its_size(disk: MemoryDisk) -> None:
    log = begin(disk, segment_bytes=400)
    full = [log.full]
    append(log, run(21, 1, body=b"x" * 400))
    full.append(log.full)
    log.roll(CHECKPOINT, 22, all_wanted)
    full.append(log.full)
    assert full == [False, True, False]


def test_the_topics_with_messages_are_known(disk: MemoryDisk, log: Log) -> None:
    append(log, run(21), run(22, topic=b"news"), Settled(7, 1, 1))
    assert log.topics == {b"demo", b"news"}
    reopened = begin(disk.after_kill())
    assert reopened.topics == {b"demo", b"news"}


# A disk that is full


@pytest.mark.parametrize("code", FULL)
@pytest.mark.parametrize("written", [0, 1, 60])
def test_without_room_nothing_is_appended(
    disk: MemoryDisk, log: Log, code: int, written: int
) -> None:
    append(log, run(21))
    before = disk.files[FIRST][:]
    disk.fail("append", code, written=written)
    with pytest.raises(NoRoom, match=os.strerror(code)):
        append(log, run(22))
    assert disk.files[FIRST] == before


def test_when_there_is_room_again_appending_goes_on(disk: MemoryDisk, log: Log) -> None:
    disk.fail("append", errno.ENOSPC, written=30, times=3)
    for _ in range(3):
        with pytest.raises(NoRoom):
            append(log, run(21))
    append(log, run(22))
    assert read(disk.after_kill()).numbers == [22]


def test_what_there_was_no_room_for_is_not_counted(disk: MemoryDisk, log: Log) -> None:
    records, size = log.appended_records, log.appended_bytes
    disk.fail("append", errno.ENOSPC, written=30)
    with pytest.raises(NoRoom):
        append(log, run(21, topic=b"news"))
    assert (log.appended_records, log.appended_bytes, log.topics) == (records, size, set())


@pytest.mark.parametrize("call", ["create", "append", "sync", "sync_directory"])
@pytest.mark.parametrize("code", [*FULL, errno.EMFILE, errno.ENFILE])
def test_without_room_for_a_segment_the_old_one_grows_on(
    disk: MemoryDisk, log: Log, call: Call, code: int
) -> None:
    append(log, run(21))
    log.sync()
    disk.fail(call, code, written=40)
    with pytest.raises(NoRoom, match=os.strerror(code)):
        log.roll(CHECKPOINT, 22, none_wanted)
    assert list(disk.files) == [FIRST]
    append(log, run(22))
    assert read(disk.after_kill()).numbers == [21, 22]
    assert disk.open_files == 1


def test_a_segment_is_begun_when_there_is_room_again(disk: MemoryDisk, log: Log) -> None:
    disk.fail("create", errno.ENOSPC)
    with pytest.raises(NoRoom):
        log.roll(CHECKPOINT, 22, none_wanted)
    log.roll(CHECKPOINT, 22, none_wanted)
    assert list(disk.files) == [LAST]


# A disk that fails


def test_a_write_error_stops_the_log_with_nothing_appended(disk: MemoryDisk, log: Log) -> None:
    append(log, run(21))
    before = disk.files[FIRST][:]
    disk.fail("append", errno.EIO, written=30)
    with pytest.raises(LogError, match="Input/output error") as raised:
        append(log, run(22))
    assert not isinstance(raised.value, NoRoom)
    assert disk.files[FIRST] == before


def test_a_partial_record_that_cannot_be_cut_off_stops_the_log(disk: MemoryDisk, log: Log) -> None:
    append(log, run(21))
    disk.fail("append", errno.ENOSPC, written=30)
    disk.fail("truncate", errno.EIO)
    with pytest.raises(LogError, match=f"{FIRST}.*Input/output error") as raised:
        append(log, run(22))
    assert not isinstance(raised.value, NoRoom)
    assert read(disk.after_kill()).numbers == [21]


def test_a_sync_that_fails_is_an_error(disk: MemoryDisk, log: Log) -> None:
    append(log, run(21))
    disk.fail("sync", errno.EIO)
    with pytest.raises(LogError, match="fsync failed: Input/output error"):
        log.sync()


def test_a_sync_that_failed_is_not_tried_again_after_more_was_appended(
    disk: MemoryDisk, log: Log
) -> None:
    append(log, run(1))
    disk.fail("sync", errno.EIO)
    with pytest.raises(LogError):
        log.sync()
    append(log, run(2))
    calls = len([operation for operation in disk.operations if operation.call == "sync"])
    log.close()
    assert len([o for o in disk.operations if o.call == "sync"]) == calls


def test_a_checkpoint_that_is_longer_than_a_segment_does_not_fill_it() -> None:
    kept = tuple((b"topic %d" % number, number) for number in range(1_000))
    log = begin(MemoryDisk(), Checkpoint(1_000, (), (), kept), segment_bytes=4_096)
    assert not log.full
    append(log, run(1, body=bytes(4_096)))
    assert log.full


def test_a_sync_that_failed_is_not_tried_again(disk: MemoryDisk, log: Log) -> None:
    append(log, run(21))
    disk.fail("sync", errno.EIO)
    with pytest.raises(LogError):
        log.sync()
    syncs = disk.count("sync")
    log.sync()
    log.close()
    assert disk.count("sync") == syncs


def test_after_a_sync_that_failed_no_segment_begins(disk: MemoryDisk, log: Log) -> None:
    append(log, run(21))
    disk.fail("sync", errno.EIO)
    with pytest.raises(LogError):
        log.sync()
    names = disk.names()
    with pytest.raises(LogError, match="an fsync failed before"):
        log.roll(CHECKPOINT, 22, all_wanted)
    assert disk.names() == names


def test_a_roll_fails_when_what_came_before_cannot_be_synced(disk: MemoryDisk, log: Log) -> None:
    append(log, run(21))
    disk.fail("sync", errno.ENOSPC)
    with pytest.raises(LogError, match="fsync failed") as raised:
        log.roll(CHECKPOINT, 22, all_wanted)
    assert not isinstance(raised.value, NoRoom)
    assert list(disk.files) == [FIRST]


@pytest.mark.parametrize("call", ["create", "append", "sync", "sync_directory"])
def test_a_segment_that_cannot_be_begun_is_an_error_and_leaves_nothing(
    disk: MemoryDisk, log: Log, call: Call
) -> None:
    disk.fail(call, errno.EIO, written=40)
    with pytest.raises(LogError, match="Input/output error") as raised:
        log.roll(CHECKPOINT, 22, none_wanted)
    assert not isinstance(raised.value, NoRoom)
    assert list(disk.files) == [FIRST]
    assert disk.open_files == 1


@pytest.mark.parametrize("call", ["close", "remove"])
def test_a_segment_that_can_neither_be_begun_nor_removed_stops_the_log(
    disk: MemoryDisk, log: Log, call: Call
) -> None:
    disk.fail("sync_directory", errno.ENOSPC)
    disk.fail(call, errno.EIO)
    with pytest.raises(LogError, match=f"{LAST}: Input/output error") as raised:
        log.roll(CHECKPOINT, 22, none_wanted)
    assert not isinstance(raised.value, NoRoom)


def test_a_segment_that_cannot_be_removed_is_an_error_that_names_it(
    disk: MemoryDisk, log: Log
) -> None:
    disk.fail("remove", errno.EACCES)
    with pytest.raises(LogError, match=f"/log/{FIRST}: Permission denied"):
        log.roll(CHECKPOINT, 22, none_wanted)
    assert read(disk.after_kill()).facts == [CHECKPOINT]


# Appending at once


def test_what_is_appended_at_once_is_there_as_if_it_was_appended(
    disk: MemoryDisk, log: Log
) -> None:
    assert log.append_at_once([run(21), Settled(7, 11, 11)], 22, TIME_MS)
    append(log, run(22))
    found = read(disk.after_kill())
    assert found.facts == [CHECKPOINT, Settled(7, 11, 11)]
    assert [record.first for record in found.runs] == [21, 22]


@pytest.mark.parametrize("written", [0, 40])
def test_a_write_at_once_that_fails_is_left_to_append_which_says_why(
    disk: MemoryDisk, log: Log, written: int
) -> None:
    before = bytes(disk.files[FIRST])
    disk.fail("append", errno.ENOSPC, written=written)
    assert not log.append_at_once([run(21)], 22, TIME_MS)
    with pytest.raises(NoRoom):
        append(log, run(21))
    assert disk.files[FIRST] == before
    assert log.append_at_once([run(22)], 23, TIME_MS)
    assert [record.first for record in read(disk.after_kill()).runs] == [22]


def test_a_write_at_once_makes_no_other_call_than_the_write(disk: MemoryDisk, log: Log) -> None:
    disk.fail("append", errno.EIO, written=40)
    calls = len(disk.operations)
    assert not log.append_at_once([run(21)], 22, TIME_MS)
    assert [operation.call for operation in disk.operations[calls:]] == ["append"]


def test_what_a_failed_write_at_once_left_is_cut_off_when_the_log_is_closed(
    disk: MemoryDisk, log: Log
) -> None:
    before = bytes(disk.files[FIRST])
    disk.fail("append", errno.ENOSPC, written=40)
    assert not log.append_at_once([run(21)], 22, TIME_MS)
    log.close()
    assert disk.files[FIRST] == before


# Rolling


def test_a_segment_begins_with_the_checkpoint_and_what_it_wants(disk: MemoryDisk, log: Log) -> None:
    append(log, run(21))
    log.roll(Checkpoint(5_000), 22, all_wanted)
    assert read(disk.after_kill()).facts == [Checkpoint(5_000, segments=(1,), salts=(0x5EED_0001,))]


def test_a_checkpoint_is_synced_before_anything_is_removed(disk: MemoryDisk, log: Log) -> None:
    since = len(disk.operations)
    log.roll(CHECKPOINT, 22, none_wanted)
    calls = [(operation.call, operation.name) for operation in disk.operations[since:]]
    assert calls[-1] == ("remove", FIRST)
    assert calls.index(("sync", LAST)) < calls.index(("sync_directory", ""))


def test_every_segment_has_a_salt_of_its_own(disk: MemoryDisk, log: Log) -> None:
    log.roll(CHECKPOINT, 22, all_wanted)
    append(log, run(21))
    log.roll(CHECKPOINT, 22, all_wanted)
    assert len({bytes(content[12:16]) for content in disk.files.values()}) == len(disk.files) == 2


@pytest.mark.parametrize(
    ("wanted_from", "kept"),
    [(None, False), (20, True), (21, True), (22, True), (23, False)],
)
def test_a_segment_goes_when_no_message_in_it_is_wanted(
    disk: MemoryDisk, log: Log, wanted_from: int | None, kept: bool
) -> None:
    append(log, run(21, 2), run(23, topic=b"news"))
    log.roll(CHECKPOINT, 24, {b"demo": wanted_from, b"news": None}.get)
    assert list(disk.files) == ([FIRST, LAST] if kept else [LAST])
    assert log.segments == len(disk.files)


@pytest.mark.parametrize(
    ("retained_from_ms", "kept"), [(None, []), (1_001, []), (1_000, [FIRST]), (999, [FIRST])]
)
def test_a_segment_with_messages_that_are_retained_stays(
    disk: MemoryDisk, log: Log, retained_from_ms: int | None, kept: list[str]
) -> None:
    for number, time_ms in ((21, 900), (22, 1_000), (23, 990)):
        log.append([run(number)], 24, time_ms)
    log.roll(CHECKPOINT, 24, none_wanted, retained_from_ms)
    assert list(disk.files) == [*kept, LAST]


def test_a_segment_is_retained_after_a_restart_too(disk: MemoryDisk, log: Log) -> None:
    log.append([run(21)], 22, 1_000)
    log.roll(CHECKPOINT, 22, all_wanted)
    restarted = begin(disk := disk.after_kill())
    restarted.roll(CHECKPOINT, 22, none_wanted, 1_000)
    assert FIRST in disk.files
    restarted.roll(CHECKPOINT, 22, none_wanted, 1_001)
    assert FIRST not in disk.files


def test_a_segment_is_wanted_for_a_message_that_was_moved(disk: MemoryDisk, log: Log) -> None:
    append(log, Moved(7, 11, 11, run(21)))
    log.roll(CHECKPOINT, 22, {b"demo": 21}.get)
    assert FIRST in disk.files
    log.roll(CHECKPOINT, 22, {b"demo": 22}.get)
    assert FIRST not in disk.files


def test_a_segment_goes_after_a_restart_too(disk: MemoryDisk, log: Log) -> None:
    append(log, run(21, 2))
    log.roll(CHECKPOINT, 23, all_wanted)
    restarted = begin(disk := disk.after_kill())
    assert restarted.segments == 2
    restarted.roll(CHECKPOINT, 23, none_wanted)
    assert list(disk.files) == ["0000000000000004.wal"]


def test_a_segment_in_the_middle_may_go_before_an_older_one(disk: MemoryDisk, log: Log) -> None:
    append(log, run(21, topic=b"slow"))
    log.roll(CHECKPOINT, 22, all_wanted)
    append(log, run(22, topic=b"fast"))
    log.roll(CHECKPOINT, 23, {b"slow": 21}.get)
    assert list(disk.files) == [FIRST, "0000000000000003.wal"]
    assert read(disk.after_kill()).numbers == [21]


# Syncing and closing


def test_only_what_was_not_synced_yet_is_synced(disk: MemoryDisk, log: Log) -> None:
    syncs = disk.count("sync")
    log.sync()
    assert disk.count("sync") == syncs
    append(log, run(21))
    log.sync()
    log.sync()
    assert disk.count("sync") == syncs + 1


def test_closing_syncs_what_was_not_synced(disk: MemoryDisk, log: Log) -> None:
    append(log, run(21))
    syncs = disk.count("sync")
    log.close()
    assert disk.count("sync") == syncs + 1
    assert disk.open_files == 0


def test_closing_twice_is_fine(disk: MemoryDisk, log: Log) -> None:
    log.close()
    operations = len(disk.operations)
    log.close()
    assert len(disk.operations) == operations


def test_a_log_that_cannot_be_synced_at_the_end_is_closed_and_says_so(
    disk: MemoryDisk, log: Log
) -> None:
    append(log, run(21))
    disk.fail("sync", errno.EIO)
    with pytest.raises(LogError, match="fsync failed"):
        log.close()
    assert disk.open_files == 0
    assert not disk.locked


def test_a_closed_log_can_be_opened_again(disk: MemoryDisk, log: Log) -> None:
    append(log, run(21))
    log.close()
    again = Log.open(disk, 1 << 20, salts())
    again.recover()
    assert [record.first for record in again.runs()] == [21]


# The directory


def test_a_directory_that_is_in_use_names_the_process(disk: MemoryDisk) -> None:
    begin(disk)
    with pytest.raises(LogError, match="/log: in use by another process, pid 4711"):
        Log.open(disk, 1 << 20, salts())


def test_a_directory_that_cannot_be_taken_says_why(disk: MemoryDisk) -> None:
    disk.fail("lock", errno.EACCES)
    with pytest.raises(LogError, match="/log: Permission denied"):
        Log.open(disk, 1 << 20, salts())
