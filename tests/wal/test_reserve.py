"""A full disk: what is still written, in the space kept for it, and how room comes back."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from blipmq.broker.restore import Restoration
from blipmq.wal.backup import backup
from blipmq.wal.disk import Disk
from blipmq.wal.facts import Moved, Settled
from blipmq.wal.log import Log
from blipmq.wal.repair import save_copy
from blipmq.wal.reserve import RESERVE_NAME, Reserve
from blipmq.wal.room import NoRoom
from blipmq.wal.scan import LogScan
from blipmq.wal.survey import survey
from tests.wal.directories import QuickDisk
from tests.wal.logs import (
    CHECKPOINT,
    FIRST,
    LAST,
    all_wanted,
    append,
    none_wanted,
    read,
    run,
    salts,
)
from tests.wal.memory_disk import MemoryDisk

MIB = 1 << 20
RESERVE = 4 * MIB
CAPACITY = 100 * MIB


@pytest.fixture
def disk() -> MemoryDisk:
    return MemoryDisk(capacity=CAPACITY)


@pytest.fixture
def log(disk: MemoryDisk) -> Log:
    return begin(disk)


def begin(disk: Disk, reserve_bytes: int | None = RESERVE) -> Log:
    """As `logs.begin`, with a reserve."""
    log = Log.open(disk, MIB, salts(), reserve_bytes)
    log.recover()
    for _ in log.runs():
        pass
    log.roll(CHECKPOINT, 1, all_wanted)
    return log


def reserved(disk: MemoryDisk) -> int:
    return len(disk.files.get(RESERVE_NAME, b""))


def fill(disk: MemoryDisk) -> None:
    """Somebody else takes all there is."""
    disk.files["ballast"] = bytearray(disk.free())


def numbers(disk: MemoryDisk) -> list[int]:
    """Of the runs that the next process finds."""
    return read(disk.after_kill()).numbers


# How much is kept


def test_space_is_kept_from_the_start(disk: MemoryDisk, log: Log) -> None:
    assert reserved(disk) == RESERVE


def test_it_is_no_more_than_an_eighth_of_what_is_free() -> None:
    disk = MemoryDisk(capacity=8 * MIB)
    begin(disk)
    assert reserved(disk) == MIB


def test_without_the_setting_none_is_kept_and_what_was_kept_is_given_back(
    disk: MemoryDisk, log: Log
) -> None:
    begin(disk := disk.after_kill(), 0)
    assert RESERVE_NAME not in disk.files
    begin(disk.after_kill(), 0)
    assert RESERVE_NAME not in disk.files


def test_a_smaller_setting_gives_back_what_is_more(disk: MemoryDisk, log: Log) -> None:
    begin(disk := disk.after_kill(), MIB)
    assert reserved(disk) == MIB


def test_who_does_not_say_leaves_it_as_it_is(disk: MemoryDisk, log: Log) -> None:
    begin(disk := disk.after_kill(), None)
    assert reserved(disk) == RESERVE


def test_what_an_earlier_process_left_is_kept_on_a_full_disk(disk: MemoryDisk, log: Log) -> None:
    fill(disk)
    log = begin(disk := disk.after_kill())
    assert reserved(disk) > RESERVE // 2
    append(log, Settled(7, 11, 11))
    assert Settled(7, 11, 11) in read(disk.after_kill()).facts


def test_under_a_quota_messages_have_half_of_it() -> None:
    disk = MemoryDisk(capacity=CAPACITY)
    disk.fail("append", errno.EDQUOT, written=MIB)
    log = begin(disk)
    assert reserved(disk) == MIB // 2
    append(log, run(21))
    assert numbers(disk) == [21]


@pytest.mark.parametrize("code", [errno.EPERM, errno.EFBIG, errno.EIO])
def test_where_it_cannot_be_made_there_is_none(code: int) -> None:
    disk = MemoryDisk(capacity=CAPACITY)
    disk.fail("append", code)
    append(begin(disk), run(21))
    assert reserved(disk) == 0
    assert numbers(disk) == [21]


# What is written on a full disk


def test_settlements_are_written_on_a_full_disk(disk: MemoryDisk, log: Log) -> None:
    append(log, run(21))
    fill(disk)
    for number in range(1_000, 1_100):
        append(log, *(Settled(7, n, n) for n in range(number, number + 100)))
    found = read(disk.after_kill())
    assert found.numbers == [21]
    assert len(found.facts) == 1 + 100 * 100


@pytest.mark.parametrize("moved", [False, True])
def test_messages_are_not_written_with_what_is_kept(
    disk: MemoryDisk, log: Log, moved: bool
) -> None:
    fill(disk)
    append(log, Settled(7, 11, 11))
    left = reserved(disk)
    for number in range(21, 31):
        with pytest.raises(NoRoom, match="No space left on device"):
            append(log, Moved(7, 12, 12, run(number)) if moved else run(number))
    assert reserved(disk) >= left
    assert numbers(disk) == []


def test_when_all_that_was_kept_is_used_up_there_is_no_room(disk: MemoryDisk, log: Log) -> None:
    fill(disk)
    facts = [Settled(7, n, n) for n in range(1, 40_000)]
    for _ in range(RESERVE // (24 * len(facts))):
        append(log, *facts)
    with pytest.raises(NoRoom):
        append(log, *facts)
    assert reserved(disk) == 0


def test_a_limit_that_is_no_full_disk_costs_nothing_of_it(disk: MemoryDisk, log: Log) -> None:
    disk.fail("append", errno.EFBIG)
    with pytest.raises(NoRoom):
        append(log, Settled(7, 11, 11))
    assert reserved(disk) == RESERVE


# How room comes back


def test_messages_are_written_again_when_what_is_kept_is_whole_again(
    disk: MemoryDisk, log: Log
) -> None:
    fill(disk)
    append(log, Settled(7, 11, 11))
    del disk.files["ballast"][-10:]
    with pytest.raises(NoRoom):
        append(log, run(21))
    del disk.files["ballast"]
    append(log, run(22))
    assert reserved(disk) == RESERVE
    assert numbers(disk) == [22]


def test_a_segment_is_begun_on_a_full_disk_and_those_that_nobody_wants_are_removed(
    disk: MemoryDisk, log: Log
) -> None:
    append(log, run(21, body=bytes(MIB)))
    fill(disk)
    assert log.worth_rolling(none_wanted)
    log.roll(CHECKPOINT, 22, none_wanted)
    assert FIRST not in disk.files
    assert reserved(disk) == RESERVE
    append(log, run(22))
    assert numbers(disk) == [22]


def test_a_roll_that_would_remove_nothing_is_not_worth_it(disk: MemoryDisk, log: Log) -> None:
    assert not log.worth_rolling(none_wanted)  # there is a checkpoint in it, and no more
    log.append([run(21, body=bytes(MIB))], 22, 1_000)
    assert not log.worth_rolling(all_wanted)
    assert not log.worth_rolling(none_wanted, 1_000)
    assert log.worth_rolling(none_wanted, 1_001)


# Others that meet it


def test_the_tools_do_not_look_at_it(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = begin(QuickDisk(path), 64 << 10)
    append(log, run(21))
    log.close()
    assert (path / RESERVE_NAME).stat().st_size == 64 << 10
    assert survey(LogScan.of(QuickDisk(path)), Restoration()).damages == []
    backup(path, tmp_path / "backup")
    save_copy(path, tmp_path / "copy")
    assert not (tmp_path / "backup" / RESERVE_NAME).exists()
    assert not (tmp_path / "copy" / RESERVE_NAME).exists()


def test_its_blocks_are_real_and_are_given_back(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    reserve = Reserve(disk, MIB)
    reserve.begin()

    def blocks() -> int:
        return (tmp_path / RESERVE_NAME).stat().st_blocks * 512

    assert blocks() >= MIB
    assert reserve.give(1)
    assert MIB // 2 < blocks() < MIB
    assert reserve.fill()
    assert blocks() >= MIB


def test_where_the_system_cannot_allocate_zeros_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(fd: int, offset: int, size: int) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(os, "posix_fallocate", unsupported)
    reserve = Reserve(Disk(tmp_path), 100_000)
    reserve.begin()
    assert (tmp_path / RESERVE_NAME).read_bytes() == bytes(100_000)
    assert (tmp_path / RESERVE_NAME).stat().st_blocks * 512 >= 100_000


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    mount, umount = shutil.which("mount"), shutil.which("umount")
    place = tmp_path / "small"
    place.mkdir()
    if mount is None or umount is None:
        pytest.skip("there is no mount here")
    command = [mount, "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("nothing can be mounted here")
    yield place
    subprocess.run([umount, "--lazy", str(place)], check=True)


def test_on_a_real_full_disk_settlements_are_written_and_room_comes_back(
    small_disk: Path,
) -> None:
    log = begin(QuickDisk(small_disk / "log"))
    number = 21
    while Disk(small_disk).free() > 20_000:
        append(log, run(number, body=bytes(10_000)))
        number += 1
    with pytest.raises(NoRoom, match="No space left on device"):
        append(log, run(number, body=bytes(20_000)))
    settled = [Settled(7, n, n) for n in range(21, 3_000)]
    append(log, *settled)
    assert Settled(7, 2_999, 2_999) in [fact for _, fact in LogScan.of(log.disk).facts]
    with pytest.raises(NoRoom):
        append(log, run(number))
    log.roll(CHECKPOINT, number, none_wanted)
    append(log, run(number))
    log.close()
    found = read(QuickDisk(small_disk / "log"))
    assert found.numbers == [number]
    assert sorted(path.name for path in (small_disk / "log").glob("*.wal")) == [LAST]
