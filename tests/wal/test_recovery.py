"""What the next process finds, whatever the last one was doing when it ended."""

from __future__ import annotations

import errno
import re
from functools import partial
from typing import Literal

import attrs
import pytest

from blipmq.errors import CorruptLog, LogError
from blipmq.wal.encoding import CONTINUED_BYTES
from blipmq.wal.facts import Checkpoint, Closed, Moved, Opened, Settled
from blipmq.wal.log import Log
from blipmq.wal.segment import SECTOR
from tests.wal.logs import (
    CHECKPOINT,
    FIRST,
    LAST,
    SUBSCRIPTION,
    TIME_MS,
    StoredRun,
    all_wanted,
    append,
    begin,
    none_wanted,
    read,
    run,
    salts,
    small_log,
)
from tests.wal.memory_disk import MemoryDisk, Operation, replay

THIRD = "0000000000000003.wal"
LATER = Checkpoint(2_000, (), (attrs.evolve(SUBSCRIPTION, cursor=22),))


def corrupt(disk: MemoryDisk, text: str) -> None:
    with pytest.raises(CorruptLog, match=re.escape(text)):
        read(disk)


def test_an_empty_directory_is_an_empty_log() -> None:
    found = read(MemoryDisk())
    assert (found.facts, found.next_number, found.runs) == ([], 0, [])


def test_everything_appended_is_found_again_in_order() -> None:
    disk = MemoryDisk()
    log = begin(disk)
    first, second = run(21, 3), run(24, 1, b"news")
    append(log, Opened(SUBSCRIPTION), first, Settled(7, 21, 21))
    append(log, second, Closed(7, 25))
    found = read(disk.after_kill())
    assert found.facts == [CHECKPOINT, Opened(SUBSCRIPTION), Settled(7, 21, 21), Closed(7, 25)]
    assert found.runs == [StoredRun.of(first, TIME_MS), StoredRun.of(second, TIME_MS)]


def test_a_moved_run_is_found_among_the_facts_and_among_the_runs() -> None:
    disk = MemoryDisk()
    log = begin(disk)
    append(log, run(21), Moved(7, 11, 12, moved := run(22, 3, b"")), run(25))
    found = read(disk.after_kill())
    assert found.runs[1] == StoredRun.of(moved, TIME_MS)
    assert found.numbers == [21, 22, 25]
    assert found.next_number == 26
    _, fact = found.facts
    assert isinstance(fact, Moved)
    assert fact.settled == Settled(7, 11, 12)
    assert StoredRun.of(fact.run) == attrs.evolve(StoredRun.of(moved, TIME_MS), data=b"")


def test_facts_come_with_the_number_that_was_next() -> None:
    disk = MemoryDisk()
    log = begin(disk)
    append(log, Opened(SUBSCRIPTION), next_number=30)
    append(log, Closed(7, 31), next_number=31)
    log.close()
    facts, _ = Log.open(disk.after_kill(), 1 << 20, salts()).recover()
    assert facts == [(1, CHECKPOINT), (30, Opened(SUBSCRIPTION)), (31, Closed(7, 31))]


def test_the_next_number_is_above_every_message() -> None:
    disk = MemoryDisk()
    log = begin(disk)
    append(log, run(500, 10), next_number=3)
    assert read(disk.after_kill()).next_number == 510


def test_the_next_number_is_not_below_what_was_about_to_be_given_out() -> None:
    disk = MemoryDisk()
    log = begin(disk)
    append(log, run(500), Closed(7, 700), next_number=700)
    assert read(disk.after_kill()).next_number == 700


def test_facts_before_the_last_checkpoint_count_no_more_but_runs_do() -> None:
    disk = MemoryDisk()
    log = begin(disk)
    append(log, Closed(8, 20), run(21))
    log.roll(LATER, 22, all_wanted)
    found = read(disk.after_kill())
    assert found.facts == [attrs.evolve(LATER, segments=(1,), salts=(0x5EED_0001,))]
    assert found.numbers == [21]


def test_a_missing_segment_that_is_wanted_is_corruption() -> None:
    disk = small_log()
    del disk.files[FIRST]
    corrupt(disk, f"/log/{FIRST}: the segment is missing")


def test_segments_that_nobody_wanted_and_a_crash_left_behind_are_removed() -> None:
    disk = MemoryDisk()
    log = begin(disk)
    append(log, run(21))
    left_behind = disk.files[FIRST]
    log.roll(CHECKPOINT, 22, none_wanted)
    crashed = disk.after_kill()
    crashed.files[FIRST] = left_behind
    assert read(crashed).numbers == []
    assert list(crashed.files) == [LAST]


def test_files_of_others_are_left_alone() -> None:
    disk = small_log()
    disk.files["notes.txt"] = bytearray(b"mine")
    assert read(disk) == read(small_log())
    assert "notes.txt" in disk.files


@pytest.mark.parametrize("size", [0, 1, 31, 32, 40])
def test_a_new_segment_that_was_not_finished_is_as_if_it_had_not_been_begun(size: int) -> None:
    disk = small_log()
    whole = read(disk)
    begin(disk)
    crashed = disk.after_kill()
    del crashed.files[THIRD][size:]
    del crashed.files[LAST][-CONTINUED_BYTES:]  # it was to come after
    found = read(crashed)
    assert (found.facts, found.runs) == (whole.facts, whole.runs)
    assert sorted(crashed.files) == [FIRST, LAST]


def test_a_new_segment_that_lacks_its_first_sector_is_as_if_it_had_not_been_begun() -> None:
    disk = small_log()
    whole = read(disk)
    kept = tuple((b"topic %d" % number, number) for number in range(100))
    begin(disk, attrs.evolve(CHECKPOINT, kept=kept))
    crashed = disk.after_kill()
    crashed.files[THIRD][:SECTOR] = bytes(SECTOR)
    named = crashed.after_kill()
    del crashed.files[LAST][-CONTINUED_BYTES:]  # it was to come after
    found = read(crashed)
    assert (found.facts, found.runs) == (whole.facts, whole.runs)
    assert sorted(crashed.files) == [FIRST, LAST]
    corrupt(named, f"/log/{THIRD}: offset 0: there is no checkpoint")


@pytest.mark.parametrize("size", [0, 31, 40])
def test_a_first_segment_that_was_not_finished_is_an_empty_log(size: int) -> None:
    disk = MemoryDisk()
    begin(disk)
    crashed = disk.after_kill()
    del crashed.files[FIRST][size:]
    assert read(crashed).facts == []
    assert crashed.files == {}


@pytest.mark.parametrize("size", [0, 31, 40])
def test_a_truncated_segment_whose_predecessor_is_gone_is_corruption(size: int) -> None:
    disk = MemoryDisk()
    log = begin(disk)
    log.roll(CHECKPOINT, 1, none_wanted)
    append(log, run(21))
    log.close()
    damaged = disk.after_kill()
    del damaged.files[LAST][size:]
    corrupt(damaged, f"/log/{FIRST}: the segment is missing")
    assert LAST in damaged.files


def test_a_zero_filled_segment_whose_predecessor_is_gone_is_corruption() -> None:
    disk = MemoryDisk()
    log = begin(disk)
    log.roll(CHECKPOINT, 1, none_wanted)
    log.close()
    damaged = disk.after_kill()
    damaged.files[LAST] = bytearray(4_096)
    corrupt(damaged, f"/log/{FIRST}: the segment is missing")


def test_two_unfinished_segments_are_corruption() -> None:
    disk = small_log()
    for content in disk.files.values():
        content.clear()
    corrupt(disk, f"/log/{FIRST}: offset 0: there is no checkpoint")
    assert sorted(disk.files) == [FIRST, LAST]


def test_an_older_segment_that_was_truncated_to_nothing_is_corruption() -> None:
    disk = small_log()
    disk.files[FIRST].clear()
    corrupt(disk, f"/log/{FIRST}: offset 0: ")


def test_an_older_segment_of_zeros_is_corruption() -> None:
    disk = small_log()
    disk.files[FIRST][:] = bytes(len(disk.files[FIRST]))
    corrupt(disk, f"/log/{FIRST}: offset 0: ")


def crashes(operations: list[Operation], since: int) -> list[MemoryDisk]:
    """The disk after every prefix of the operations that is longer than `since`.

    Of what an operation appends, every prefix too.
    """
    disks = []
    for end in range(since, len(operations) + 1):
        disks.append(replay(operations[:end]))
        if end < len(operations) and operations[end].call == "append":
            for size in range(1, len(operations[end].data)):
                part = attrs.evolve(operations[end], data=operations[end].data[:size])
                disks.append(replay([*operations[:end], part]))
    return disks


def test_a_crash_between_any_two_operations_of_a_roll_loses_nothing() -> None:
    disk = MemoryDisk()
    log = begin(disk)
    append(log, Opened(SUBSCRIPTION), run(21), Settled(7, 11, 11))
    log.roll(CHECKPOINT, 22, all_wanted)
    append(log, run(22, 2, b"news"), Settled(7, 21, 21), next_number=24)
    before = read(disk.after_kill())
    since = len(disk.operations)
    # Of "demo" nothing is wanted any more, so the first segment goes and the second one stays.
    log.roll(LATER, 24, {b"demo": None, b"news": 22}.get)
    after = read(disk.after_kill())
    assert (before.numbers, after.numbers) == ([21, 22], [22])
    calls = [operation.call for operation in disk.operations[since:]]
    begun = ["sync", "create", "append", "sync", "sync_directory"]
    assert calls == [*begun, "append", "sync", "close", "remove"]
    found = [read(crashed) for crashed in crashes(disk.operations, since)]
    states = [(one.facts, one.runs) for one in found]
    assert (before.facts, before.runs) in states
    assert (after.facts, after.runs) in states
    assert [s for s in states if s not in [(b.facts, b.runs) for b in (before, after)]] == []
    assert all(one.next_number >= 24 for one in found)


def test_a_crash_anywhere_leaves_every_append_that_returned() -> None:
    disk = MemoryDisk()
    log = begin(disk)
    returned: list[tuple[int, int]] = []
    for number in range(21, 27):
        append(log, run(number))
        returned.append((len(disk.operations), number))
        if number % 2:
            log.roll(CHECKPOINT, number + 1, all_wanted)
    for end in range(len(disk.operations) + 1):
        found = read(replay(disk.operations[:end]))
        assert found.numbers == [number for at, number in returned if at <= end]


def test_what_a_killed_process_has_not_synced_is_synced_before_the_next_segment_begins() -> None:
    disk = MemoryDisk()
    log = begin(disk)
    append(log, run(21))
    after = disk.after_kill()
    begin(after)
    calls = [operation.call for operation in after.operations]
    assert calls.index("sync") < calls.index("create")


def test_the_directory_is_synced_before_a_start_removes_anything() -> None:
    disk = MemoryDisk()
    log = begin(disk)
    log.roll(CHECKPOINT, 1, none_wanted)
    after = disk.after_kill()
    after.files[FIRST] = bytearray(disk.files[LAST])  # as if the process had not come so far
    begin(after)
    calls = [operation.call for operation in after.operations]
    assert calls.index("sync_directory") < calls.index("remove")


def test_the_name_of_a_segment_is_synced_before_the_next_one_begins() -> None:
    disk = MemoryDisk()
    log = begin(disk)
    append(log, run(21))
    log.roll(CHECKPOINT, 22, all_wanted)
    after = disk.after_kill()
    begin(after)
    created = next(at for at, o in enumerate(after.operations) if o.call == "create")
    synced = {o.name for o in after.operations[:created] if o.call == "sync"}
    assert synced == {FIRST, LAST}


def test_a_crash_while_the_tail_is_cut_off_leaves_it_to_the_next_start() -> None:
    disk = small_log()
    del disk.files[LAST][-1:]
    torn = disk.after_kill()
    disk.fail("truncate", errno.EIO)
    with pytest.raises(LogError, match="Input/output error"):
        read(disk)
    assert disk.open_files == 0
    assert read(disk) == read(torn)


@pytest.mark.parametrize("call", ["names", "read"])
def test_a_log_that_cannot_be_read_says_why(call: Literal["names", "read"]) -> None:
    disk = small_log()
    disk.fail(call, errno.EIO)
    with pytest.raises(LogError, match=r"/log.*: Input/output error"):
        read(disk)


def test_an_older_segment_that_cannot_be_read_says_which() -> None:
    disk = small_log()
    disk.fail("read", errno.EIO, skip=1)
    with pytest.raises(LogError, match=f"/log/{FIRST}: Input/output error"):
        read(disk)


def rolled() -> MemoryDisk:
    """As `small_log`, with a third segment that wants both."""
    disk = small_log()
    begin(disk).close()
    return disk.after_kill()


@pytest.mark.parametrize("size", [None, 0, 31, 40])
def test_a_last_segment_that_another_one_names_and_that_is_lost_is_corruption(
    size: int | None,
) -> None:
    disk = rolled()
    if size is None:
        del disk.files[THIRD]
    else:
        del disk.files[THIRD][size:]
    before = dict(disk.files)
    corrupt(disk, f"/log/{THIRD}: ")
    assert disk.files == before


@pytest.mark.parametrize("name", [FIRST, LAST, THIRD])
def test_a_segment_of_another_log_is_corruption(name: str) -> None:
    disk = rolled()
    other = MemoryDisk()
    for salt in (5, 6, 7):
        log = Log.open(other, 1 << 20, partial(int, salt))
        log.recover()
        assert list(log.runs()) == []
        log.roll(CHECKPOINT, 1, all_wanted, retained_from_ms=0)
        log.close()
    disk.files[name] = other.files[name]
    corrupt(disk, f"/log/{name}: this segment is of another log")
