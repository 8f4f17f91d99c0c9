from __future__ import annotations

from collections.abc import Callable
from itertools import count
from pathlib import Path

import attrs
import pytest

from blipmq.errors import CorruptLog, LogError
from blipmq.wal.backup import BackupSummary, backup, copy_file
from blipmq.wal.facts import Checkpoint
from blipmq.wal.scan import NoLog, Progress
from tests.wal.directories import QuickDisk, change, contents, found, records, two_segments
from tests.wal.logs import CHECKPOINT, FIRST, LAST, all_wanted, append, begin, none_wanted, run

THIRD = "0000000000000003.wal"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return two_segments(tmp_path / "log")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return tmp_path / "backups" / "copy"


def test_the_copy_has_the_segments_and_nothing_else(path: Path, copy: Path) -> None:
    summary = backup(path, copy)
    assert {file.name: file.read_bytes() for file in copy.iterdir()} == contents(path)
    size = sum(map(len, contents(path).values()))
    assert summary == BackupSummary((1, 2), size, 4)


def test_the_log_may_be_in_use(tmp_path: Path, copy: Path) -> None:
    log = begin(QuickDisk(tmp_path / "log"))
    append(log, run(1))
    backup(tmp_path / "log", copy)
    assert found(copy).numbers == [1]
    log.close()


def test_what_is_written_later_is_not_in_it(tmp_path: Path, copy: Path) -> None:
    log = begin(QuickDisk(tmp_path / "log"))
    append(log, run(1))
    backup(tmp_path / "log", copy)
    append(log, run(2))
    log.close()
    assert found(copy).numbers == [1]


def test_an_unfinished_write_is_not_in_it(path: Path, copy: Path) -> None:
    start = records(path, LAST)[-1][0]
    (path / LAST).write_bytes((path / LAST).read_bytes()[:-3])
    backup(path, copy)
    assert (copy / LAST).stat().st_size == start


def test_a_segment_that_is_just_being_begun_is_not_in_it(path: Path, copy: Path) -> None:
    (path / THIRD).write_bytes(b"BLIP")
    assert backup(path, copy).segments == (1, 2)
    assert found(copy).numbers == [21, 23, 24]


def test_a_segment_that_nobody_wants_is_not_in_it(path: Path, copy: Path) -> None:
    old = contents(path)[FIRST]
    log = begin(QuickDisk(path))
    log.roll(Checkpoint(1_000), 25, none_wanted)
    log.close()
    (path / FIRST).write_bytes(old)
    assert backup(path, copy).segments == (4,)
    assert list(contents(copy)) == ["0000000000000004.wal"]


@attrs.define
class Meanwhile:
    """What a daemon does before a file is copied, going by its name."""

    does: Callable[[str], None] = lambda name: None
    copied: list[str] = attrs.Factory(list)

    def copy_file(self, source: Path, target: Path, progress: Progress) -> None:
        self.does(source.name)
        copy_file(source, target, progress)
        self.copied.append(source.name)


@pytest.fixture
def meanwhile(monkeypatch: pytest.MonkeyPatch) -> Meanwhile:
    meanwhile = Meanwhile()
    monkeypatch.setattr("blipmq.wal.backup.copy_file", meanwhile.copy_file)
    return meanwhile


def test_when_a_segment_goes_meanwhile_it_copies_by_the_newer_checkpoint(
    path: Path, copy: Path, meanwhile: Meanwhile
) -> None:
    log = begin(QuickDisk(path))

    def go_on(name: str) -> None:
        if name == FIRST:
            log.roll(CHECKPOINT, 30, none_wanted)
            append(log, run(30), next_number=31)

    meanwhile.does = go_on
    assert backup(path, copy).segments == (4,)
    assert list(contents(copy)) == ["0000000000000004.wal"]
    assert found(copy).numbers == [30]
    log.close()


def test_what_was_copied_is_not_copied_again(
    tmp_path: Path, copy: Path, meanwhile: Meanwhile
) -> None:
    log = begin(QuickDisk(tmp_path))
    for number, topic in enumerate((b"a", b"b"), 1):
        append(log, run(number, 1, topic), next_number=number + 1)
        log.roll(CHECKPOINT, number + 1, all_wanted)

    def go_on(name: str) -> None:
        if name == LAST:
            log.roll(CHECKPOINT, 3, {b"a": 1}.get)

    meanwhile.does = go_on
    assert backup(tmp_path, copy).segments == (1, 4)
    assert meanwhile.copied.count(FIRST) == 1
    assert found(copy).numbers == [1]
    log.close()


def test_it_gives_up_when_the_log_changes_too_fast(
    path: Path, copy: Path, meanwhile: Meanwhile
) -> None:
    log = begin(QuickDisk(path))
    numbers = count(30)

    def go_on(name: str) -> None:
        if name != max(contents(path)):
            for wanted in (none_wanted, all_wanted):
                append(log, run(number := next(numbers)), next_number=number + 1)
                log.roll(CHECKPOINT, number + 1, wanted)

    meanwhile.does = go_on
    with pytest.raises(LogError, match="changes faster than it can be copied; try again"):
        backup(path, copy)
    assert list(copy.iterdir()) == []
    log.close()


def test_without_room_it_leaves_nothing(path: Path, copy: Path, meanwhile: Meanwhile) -> None:
    def fill(name: str) -> None:
        if name == FIRST:
            raise OSError(28, "No space left on device", str(copy / name))

    meanwhile.does = fill
    with pytest.raises(LogError, match=f"copy/{FIRST}: No space left on device"):
        backup(path, copy)
    assert list(copy.iterdir()) == []


def test_a_write_that_is_cut_off_while_it_is_copied_is_copied_again(
    path: Path, copy: Path, meanwhile: Meanwhile
) -> None:
    start = records(path, LAST)[1][0]

    def flip(name: str) -> None:
        if name == LAST:
            change(path, LAST, start)  # damaged the first time, right again the second

    meanwhile.does = flip
    assert backup(path, copy).segments == (1, 2)
    assert meanwhile.copied.count(LAST) == 2


def test_a_missing_segment_is_an_error_and_leaves_nothing(path: Path, copy: Path) -> None:
    (path / FIRST).unlink()
    with pytest.raises(CorruptLog, match=f"{FIRST}: the segment is missing"):
        backup(path, copy)
    assert list(copy.iterdir()) == []


@pytest.mark.parametrize("name", [FIRST, LAST])
def test_a_damaged_log_is_an_error_and_leaves_nothing(path: Path, copy: Path, name: str) -> None:
    start = records(path, name)[1][0]
    change(path, name, start)
    with pytest.raises(CorruptLog, match=f"log/{name}: offset {start}: "):
        backup(path, copy)
    assert list(copy.iterdir()) == []


def test_the_destination_must_be_empty(path: Path, copy: Path) -> None:
    copy.mkdir(parents=True)
    (copy / "mine").write_text("precious")
    with pytest.raises(LogError, match="is not empty; choose another one"):
        backup(path, copy)
    assert (copy / "mine").read_text() == "precious"


def test_the_destination_must_not_be_a_file(path: Path, copy: Path) -> None:
    copy.parent.mkdir()
    copy.write_text("precious")
    with pytest.raises(LogError, match="File exists; choose another place"):
        backup(path, copy)


def test_an_empty_destination_will_do(path: Path, copy: Path) -> None:
    copy.mkdir(parents=True)
    backup(path, copy)
    assert found(copy).numbers == [21, 23, 24]


def test_there_must_be_a_log(tmp_path: Path, copy: Path) -> None:
    with pytest.raises(NoLog, match="there is no log in this directory"):
        backup(tmp_path, copy)


def test_a_segment_that_is_ended_while_it_is_copied_names_no_other_in_the_copy(
    path: Path, copy: Path, meanwhile: Meanwhile
) -> None:
    log = begin(QuickDisk(path))

    def go_on(name: str) -> None:
        if name == THIRD and THIRD not in meanwhile.copied:
            log.roll(CHECKPOINT, 30, all_wanted, retained_from_ms=0)

    meanwhile.does = go_on
    assert backup(path, copy).segments == (1, 2, 3)
    assert found(copy).numbers == [21, 23, 24]
    log.close()
