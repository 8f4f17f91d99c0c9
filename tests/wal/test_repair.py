from __future__ import annotations

import zlib
from pathlib import Path

import pytest

from blipmq.errors import LogError
from blipmq.wal.facts import (
    Checkpoint,
    Closed,
    Continued,
    Opened,
    Settled,
    SubscriptionState,
    UnsettledRange,
)
from blipmq.wal.log import Log
from blipmq.wal.record import segment_header
from blipmq.wal.repair import carry_out, save_copy
from tests.wal.directories import (
    RESERVE,
    QuickDisk,
    change,
    contents,
    found,
    planned,
    put,
    records,
    repaired,
    scanned,
    starts,
    state,
    two_segments,
)
from tests.wal.logs import (
    CHECKPOINT,
    FIRST,
    LAST,
    all_wanted,
    append,
    begin,
    none_wanted,
    records_of,
    run,
)

THIRD = "0000000000000003.wal"
FOURTH = "0000000000000004.wal"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return two_segments(tmp_path / "log")


def subscriptions(path: Path) -> dict[int, tuple[int, list[tuple[int, int, int]]]]:
    """Cursor and unsettled ranges of every subscription."""
    return {s.id: (s.cursor, list(s.unsettled)) for s in state(path).subscriptions.values()}


@pytest.mark.parametrize("name", [FIRST, LAST])
def test_after_any_damage_the_daemon_starts_with_all_other_records(path: Path, name: str) -> None:
    good = contents(path)
    whole = found(path).numbers
    spans = records(path, name)
    runs = {FIRST: {2: 21}, LAST: {1: 23, 3: 24}}[name]
    for at in range(len(good[name])):
        put(path, good)
        change(path, name, at)
        repaired(path)
        hit = next((i for i, (start, end) in enumerate(spans) if start <= at < end), -1)
        assert found(path).numbers == [n for n in whole if n != runs.get(hit)], f"byte {at}"


def test_a_good_log_needs_no_repair(path: Path) -> None:
    repair = planned(path)
    assert not repair.needed
    assert (repair.cut, repair.removed, repair.checkpoint) == ((), (), None)


def test_a_torn_tail_needs_no_repair(path: Path) -> None:
    (path / LAST).write_bytes((path / LAST).read_bytes()[:-3])
    assert not planned(path).needed


def test_planning_changes_nothing(path: Path) -> None:
    change(path, LAST, 40)
    before = contents(path)
    assert planned(path).needed
    assert contents(path) == before


def test_records_that_check_stay_byte_for_byte(path: Path) -> None:
    start, end = records(path, FIRST)[2]
    good = (path / FIRST).read_bytes()
    change(path, FIRST, end - 2)
    repaired(path)
    assert (path / FIRST).read_bytes() == good[:start] + good[end:]


def test_a_damaged_header_is_written_anew_and_nothing_is_lost(path: Path) -> None:
    good = contents(path)
    change(path, LAST, 13)
    repair = repaired(path)
    assert contents(path) == good
    assert (repair.losses, repair.settlements_lost) == ([], False)


def test_a_lost_settlement_is_said_to_be_lost(path: Path) -> None:
    change(path, LAST, records(path, LAST)[2][0] + 20)
    repair = repaired(path)
    assert repair.settlements_lost
    assert (21, 22) not in [(first, last) for first, last, _ in subscriptions(path)[7][1]]
    assert subscriptions(path)[7][0] == 20


def test_a_lost_settlement_in_an_older_segment_is_of_no_account(path: Path) -> None:
    before = subscriptions(path)
    change(path, FIRST, records(path, FIRST)[3][0] + 20)
    repair = repaired(path)
    assert repair.needed
    assert not repair.settlements_lost
    assert subscriptions(path) == before


def test_a_lost_run_costs_no_settlement(path: Path) -> None:
    change(path, LAST, records(path, LAST)[1][1] - 2)
    repair = repaired(path)
    assert not repair.settlements_lost
    (loss,) = repair.losses
    assert (loss.topic, loss.first, loss.last) == (b"demo", 23, 23)


def test_it_says_who_wanted_what_is_lost(path: Path) -> None:
    settled, wanted, kept = (FIRST, 2), (LAST, 1), (LAST, 3)
    for name, index in (settled, wanted, kept):
        change(path, name, records(path, name)[index][1] - 2)
    repair = planned(path)
    whose = {loss.first: repair.wanted_by[loss] for loss in repair.losses}
    assert {first: (by.subscriptions, by.kept) for first, by in whose.items()} == {
        21: ((), False),
        23: ((7,), False),
        24: ((), True),
    }


# The last checkpoint


def three_segments(path: Path) -> Path:
    """A log in whose second segment a subscription begins, one ends and much is settled."""
    old = SubscriptionState(3, "key-1", b"old", 4)
    log = begin(QuickDisk(path), Checkpoint(1_000, (), (old,)))
    append(log, run(4, 2, b"old"), run(6, 1, b"news"), next_number=7)
    log.roll(Checkpoint(2_000, (), (old,), ((b"news", 6),)), 7, all_wanted)
    append(log, Opened(SubscriptionState(7, "key-2", b"demo", 8)), next_number=8)
    append(log, run(8, 5), Settled(7, 8, 9), Settled(3, 4, 4), next_number=13)
    append(log, Closed(3, 5), next_number=13)
    new = SubscriptionState(7, "key-2", b"demo", 11, (UnsettledRange(10, 10, 1),))
    log.roll(Checkpoint(3_000, (), (new,), ((b"news", 6), (b"old", 5))), 13, all_wanted)
    append(log, Settled(7, 11, 11), run(13, 1, b"news"), next_number=14)
    log.close()
    return path


def test_a_lost_checkpoint_is_made_of_the_one_before_and_all_since(tmp_path: Path) -> None:
    path = three_segments(tmp_path)
    change(path, THIRD, 60)
    repair = repaired(path)
    assert repair.checkpoint is not None
    assert repair.scan.state_from == 2
    assert not repair.settlements_lost
    # That 10 was delivered once stood only in the checkpoint.
    assert subscriptions(path) == {7: (12, [(10, 10, 0)])}
    assert found(path).numbers == [4, 6, 8, 13]


def test_what_was_kept_is_kept_by_the_new_checkpoint(tmp_path: Path) -> None:
    path = three_segments(tmp_path)
    change(path, THIRD, 60)
    repaired(path)
    restored = state(path)
    assert (restored.kept_from(b"news"), restored.kept_from(b"old")) == (6, 5)
    assert restored.kept(run(13, 1, b"news"))
    assert not restored.kept(run(4, 1, b"old"))


def test_numbers_that_a_lost_checkpoint_reserved_are_not_given_out(tmp_path: Path) -> None:
    path = three_segments(tmp_path)
    change(path, THIRD, 60)
    repaired(path)
    assert state(path).reserved >= 2_000 + RESERVE


def test_settlements_of_segments_that_are_gone_are_lost_with_the_checkpoint(
    tmp_path: Path,
) -> None:
    path = three_segments(tmp_path)
    change(path, THIRD, 60)
    (path / "0000000000000002.wal").unlink()
    repair = repaired(path)
    assert repair.scan.state_from == 1
    assert repair.settlements_lost
    assert subscriptions(path) == {3: (4, [])}


def test_without_any_checkpoint_all_messages_are_kept(path: Path) -> None:
    change(path, FIRST, 60)
    change(path, LAST, 60)
    repair = repaired(path)
    assert repair.settlements_lost
    assert found(path).numbers == [21, 23, 24]
    restored = state(path)
    # Its own record is left of this one.
    assert list(restored.subscriptions) == [7]
    assert restored.kept_from(b"news") == 24
    assert restored.reserved >= 3 * RESERVE


# Segments of no use


def test_a_segment_of_no_use_is_removed_and_the_others_stay(path: Path) -> None:
    before = subscriptions(path)
    (path / FIRST).write_bytes(bytes(500))
    repair = repaired(path)
    assert repair.removed == (1,)
    assert found(path).numbers == [23, 24]
    assert subscriptions(path) == before


def test_a_missing_segment_is_wanted_no_more(path: Path) -> None:
    (path / FIRST).unlink()
    repaired(path)
    assert found(path).numbers == [23, 24]


def test_without_its_last_segment_the_log_goes_on_from_the_one_before(path: Path) -> None:
    (path / LAST).write_bytes(b"not a segment" * 10)
    repair = repaired(path)
    assert (repair.last, repair.removed) == (1, (2,))
    assert repair.settlements_lost
    assert found(path).numbers == [21]
    assert state(path).reserved >= 1_000 + RESERVE


def test_a_log_of_which_nothing_is_left_goes_on_with_new_numbers(path: Path) -> None:
    for name in (FIRST, LAST):
        (path / name).write_bytes(b"not a segment" * 10)
    repair = repaired(path)
    assert (repair.last, repair.removed) == (3, (1, 2))
    assert found(path).numbers == []
    assert state(path).reserved >= 3 * RESERVE


def test_a_segment_that_was_only_begun_goes_when_the_one_before_is_missing(path: Path) -> None:
    (path / "0000000000000004.wal").write_bytes(b"BLIP")
    repaired(path)
    assert starts(path)
    assert found(path).numbers == [21, 23, 24]


def test_a_segment_that_nobody_wants_is_not_looked_at(path: Path) -> None:
    old = contents(path)[FIRST]
    log = begin(QuickDisk(path))
    log.roll(Checkpoint(1_000), 25, none_wanted)
    log.close()
    (path / FIRST).write_bytes(old[:40])
    assert not planned(path).needed


# Doing it


def test_the_copy_is_the_log_as_it_was(path: Path, tmp_path: Path) -> None:
    change(path, FIRST, 60)
    before = contents(path)
    save_copy(path, tmp_path / "copy")
    repaired(path)
    assert contents(path) != before
    assert contents(tmp_path / "copy") == before


def test_a_copy_does_not_replace_another(path: Path, tmp_path: Path) -> None:
    save_copy(path, tmp_path / "copy")
    with pytest.raises(LogError, match="File exists; nothing was changed"):
        save_copy(path, tmp_path / "copy")


def test_a_copy_that_fails_leaves_nothing_behind(path: Path, tmp_path: Path) -> None:
    original = Path.open

    def fails(self: Path, mode: str = "r") -> object:
        if mode == "wb":
            raise OSError(28, "No space left on device", str(self))
        return original(self, mode)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "open", fails)
        with pytest.raises(LogError, match="No space left on device; nothing was changed"):
            save_copy(path, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


class Failing(QuickDisk):
    """Fails at the nth call that changes the directory's names."""

    def __init__(self, path: Path, calls: int) -> None:
        super().__init__(path)
        self.calls = calls

    def sync_directory(self) -> None:
        self.calls -= 1
        if self.calls < 0:
            raise OSError(5, "Input/output error")


@pytest.mark.parametrize("calls", range(4))
def test_a_repair_that_was_interrupted_can_be_repeated(path: Path, calls: int) -> None:
    change(path, FIRST, 60)
    change(path, LAST, 60)
    change(path, LAST, records(path, LAST)[1][1] - 2)
    try:
        carry_out(planned(path), Failing(path, calls), salt=77)
    except LogError:
        assert calls < 3
    repaired(path)
    assert not scanned(path).damages
    assert found(path).numbers == [21, 24]


@pytest.mark.parametrize("content", [None, b"", bytes(4_096)])
def test_a_log_whose_named_last_segment_is_lost_starts_again(
    path: Path, content: bytes | None
) -> None:
    begin(QuickDisk(path)).close()
    (path / THIRD).unlink()
    if content is not None:
        (path / THIRD).write_bytes(content)
    assert not starts(path)
    assert [damage.name for damage in repaired(path).damages] == [THIRD]
    assert found(path).numbers == [21, 23, 24]
    assert not planned(path).needed


@pytest.mark.parametrize("name", [FIRST, LAST])
def test_a_segment_of_another_log_is_removed(path: Path, name: str) -> None:
    begin(QuickDisk(path)).close()
    (path / name).write_bytes(segment_header(int(name[:16]), 5))
    assert not starts(path)
    repaired(path)
    assert starts(path)
    assert name not in contents(path)


# Several damages


def four_segments(path: Path) -> Path:
    """A log whose segments all have messages that are wanted, numbers 1, 2, 3, 4."""
    log = begin(QuickDisk(path))
    for number in range(1, 5):
        append(log, run(number), Settled(7, 11, 11), next_number=number + 1)
        if number < 4:
            log.roll(CHECKPOINT, number + 1, all_wanted)
    log.close()
    return path


def missing(path: Path) -> list[tuple[int, int | None]]:
    """Between which numbers messages are said to be lost."""
    return [(loss.first, loss.last) for loss in planned(path).losses]


def test_garbage_behind_the_name_of_a_lost_segment_does_not_hide_it(path: Path) -> None:
    begin(QuickDisk(path)).close()
    (path / THIRD).write_bytes(bytes(400))
    (path / LAST).write_bytes((path / LAST).read_bytes() + bytes(range(1, 100)))
    repaired(path)
    assert starts(path)
    assert not planned(path).needed


def test_a_segment_of_which_no_record_is_left_is_removed(tmp_path: Path) -> None:
    begin(QuickDisk(tmp_path)).close()
    change(tmp_path, FIRST, 60)
    assert repaired(tmp_path).removed == (1,)
    assert starts(tmp_path)
    assert not planned(tmp_path).needed


def test_a_checkpoint_is_not_missed_when_the_segments_before_it_are_lost(tmp_path: Path) -> None:
    path = four_segments(tmp_path)
    for name in (LAST, THIRD):
        (path / name).unlink()
    change(path, FOURTH, 60)
    assert missing(path) == [(2, 3)]
    repaired(path)
    assert found(path).numbers == [1, 4]


def test_settlements_are_lost_with_a_last_segment_that_does_not_follow_on(tmp_path: Path) -> None:
    path = four_segments(tmp_path)
    for name in (LAST, THIRD):
        (path / name).unlink()
    (path / FOURTH).write_bytes(b"not a segment" * 10)
    assert planned(path).settlements_lost


def test_what_was_cut_off_is_not_counted_by_the_bytes_that_are_left(tmp_path: Path) -> None:
    path = four_segments(tmp_path)
    (path / LAST).write_bytes((path / LAST).read_bytes()[:5])
    (loss,) = planned(path).losses
    assert (loss.first, loss.last, loss.messages_max) == (2, 2, 1)


def test_a_zeroed_stretch_of_many_records_is_not_taken_for_the_first_of_them(
    tmp_path: Path,
) -> None:
    log = begin(QuickDisk(tmp_path))
    append(log, run(1, body=b"\0" * 600), run(2), run(3), next_number=4)
    log.close()
    spans = records(tmp_path, FIRST)
    change(tmp_path, FIRST, spans[1][1] - 500, bytes(500 + spans[2][1] - spans[2][0]))
    assert missing(tmp_path) == [(1, 2)]


def test_a_name_that_was_torn_is_cut_when_the_checkpoint_that_it_is_of_changes(
    tmp_path: Path,
) -> None:
    path = four_segments(tmp_path)
    (path / THIRD).write_bytes((path / THIRD).read_bytes()[:-3])
    assert not planned(path).needed
    change(path, FOURTH, 60)
    repaired(path)
    assert found(path).numbers == [1, 2, 3, 4]
    assert not planned(path).needed


def test_what_is_left_of_two_logs_is_of_one_of_them(tmp_path: Path) -> None:
    path, other = four_segments(tmp_path / "log"), tmp_path / "other"
    log = begin(QuickDisk(other))
    for number in (8, 9):
        append(log, run(number, 1, b"other"), next_number=number + 1)
        log.roll(CHECKPOINT, number + 1, all_wanted)
    log.close()
    foreign = contents(other)
    for name in (FIRST, THIRD):
        (path / name).write_bytes(_salted(foreign[name]))
    (path / FOURTH).unlink()
    repaired(path)
    assert starts(path)
    topics = {run.topic for run in found(path).runs}
    assert len(topics) < 2


def _salted(segment: bytes) -> bytes:
    """The segment with a salt of its own."""
    sequence = int.from_bytes(segment[16:24], "little")
    content = segment_header(sequence, 99)
    for start, end in records_of(segment):
        head, payload = segment[start : start + 12], segment[start + 16 : end]
        crc = zlib.crc32(payload, zlib.crc32(head, 99))
        content += head + crc.to_bytes(4, "little") + payload
    return content


@pytest.mark.parametrize("at", [0, 12, 16, 28])
def test_a_copy_of_another_segment_is_not_taken_for_the_one_it_replaced(
    tmp_path: Path, at: int
) -> None:
    path = four_segments(tmp_path)
    (path / LAST).write_bytes((path / THIRD).read_bytes())
    change(path, LAST, at)
    change(path, FOURTH, 60)
    repaired(path)
    assert found(path).numbers == [1, 3, 4]


def test_a_segment_that_names_an_older_one_has_lost_the_next(tmp_path: Path) -> None:
    path = four_segments(tmp_path)
    log = Log.open(QuickDisk(path), 1 << 20, lambda: 9)
    log.recover()
    list(log.runs())
    log.roll(CHECKPOINT, 5, all_wanted)
    append(log, Continued(2, 9))
    log.close()
    assert not starts(path)
    assert [damage.reason for damage in repaired(path).damages] == ["the segment is missing"]
    assert found(path).numbers == [1, 2, 3, 4]


def test_a_segment_whose_first_sector_is_lost_is_read_when_the_next_one_is_empty(
    tmp_path: Path,
) -> None:
    path = four_segments(tmp_path)
    log = Log.open(QuickDisk(path), 1 << 20, lambda: 9)
    log.recover()
    list(log.runs())
    log.roll(CHECKPOINT, 5, all_wanted)
    append(log, run(5, 9, body=b"x" * 200), run(14), next_number=15)
    log.roll(CHECKPOINT, 15, all_wanted)
    log.close()
    (path / "0000000000000006.wal").write_bytes(b"")
    change(path, "0000000000000005.wal", 0, bytes(512))
    repaired(path)
    assert found(path).numbers == [1, 2, 3, 4, 14]
    assert not planned(path).needed


@pytest.mark.parametrize("size", [32, 33])
def test_an_older_segment_without_records_is_damage_to_the_daemon_too(
    path: Path, size: int
) -> None:
    begin(QuickDisk(path)).close()
    head = (path / FIRST).read_bytes()[:32]
    (path / FIRST).write_bytes((head + bytes((23,)))[:size])
    assert planned(path).needed
    assert not starts(path)
    repaired(path)
    assert found(path).numbers == [23, 24]
