"""What the bytes after the last good record mean: the end, a torn tail, or damage."""

from __future__ import annotations

import re
from collections.abc import Callable

import attrs
import pytest

from blipmq.errors import CorruptLog
from blipmq.wal.encoding import encode
from blipmq.wal.facts import Checkpoint, RunRecord
from blipmq.wal.record import SEGMENT_HEADER_BYTES, segment_header
from blipmq.wal.segment import segment_name, sequences
from tests.wal.logs import (
    CHECKPOINT,
    FIRST,
    LAST,
    Found,
    append,
    begin,
    read,
    record_with_payload,
    records_of,
    run,
    small_log,
)
from tests.wal.memory_disk import MemoryDisk

SECTOR = 512
PAGE = 4096


def damaged_at(disk: MemoryDisk, name: str, offset: int) -> None:
    """Reading the log must fail and name the file and the offset."""
    place = re.escape(f"{disk.directory / name}: offset {offset}: ")
    with pytest.raises(CorruptLog, match=place):
        read(disk)


def ending_in(body: bytes) -> tuple[MemoryDisk, int]:
    """A log whose last record is a run with this body, and where that record begins."""
    disk = MemoryDisk()
    log = begin(disk)
    append(log, run(20))
    start = len(disk.files[FIRST])
    append(log, run(21, body=body))
    log.close()
    return disk.after_kill(), start


def patched(disk: MemoryDisk, name: str, change: Callable[[bytearray], object]) -> MemoryDisk:
    copy = disk.after_kill()
    change(copy.files[name])
    return copy


def flipped(disk: MemoryDisk, name: str, offset: int, bit: int) -> MemoryDisk:
    def flip(content: bytearray) -> None:
        content[offset] ^= 1 << bit

    return patched(disk, name, flip)


def cut_off(disk: MemoryDisk, name: str, at: int) -> MemoryDisk:
    def cut(content: bytearray) -> None:
        del content[at:]

    return patched(disk, name, cut)


def without_byte(disk: MemoryDisk, name: str, offset: int) -> MemoryDisk:
    def lose(content: bytearray) -> None:
        del content[offset]

    return patched(disk, name, lose)


def zeroed(disk: MemoryDisk, start: int, end: int, name: str = FIRST) -> MemoryDisk:
    def zero(content: bytearray) -> None:
        content[start:end] = bytes(end - start)

    return patched(disk, name, zero)


def without_last_record(found: Found, torn_bytes: int) -> Found:
    """What is found when the last record, a run, is torn."""
    return attrs.evolve(found, runs=found.runs[:-1], torn_bytes=torn_bytes)


def test_an_intact_log_is_read_whole() -> None:
    found = read(small_log())
    assert found.numbers == [21, 23, 24]
    assert found.next_number == 25
    assert found.torn_bytes == 0


def test_zeros_after_the_last_record_are_its_end() -> None:
    disk = small_log()
    longer = patched(disk, LAST, lambda content: content.extend(bytes(70_000)))
    assert read(longer) == read(disk)


def test_a_last_record_that_is_cut_off_anywhere_is_torn() -> None:
    disk = small_log()
    whole = read(disk)
    *_, (start, end) = records_of(disk.files[LAST])
    for cut in range(start + 1, end):
        torn = cut_off(disk, LAST, cut)
        kept = len(bytes(torn.files[LAST][start:]).rstrip(b"\0"))
        assert read(torn) == without_last_record(whole, kept)
        assert len(torn.files[LAST]) == start


def test_a_last_record_of_which_only_zeros_were_left_from_anywhere_on_is_torn() -> None:
    disk = small_log()
    whole = read(disk)
    *_, (start, end) = records_of(disk.files[LAST])
    for cut in range(start + 1, end):
        torn = zeroed(disk, cut, end, LAST)
        kept = len(bytes(torn.files[LAST][start:]).rstrip(b"\0"))
        assert read(torn) == without_last_record(whole, kept)


def test_a_torn_tail_is_cut_off_once() -> None:
    disk, start = ending_in(b"x" * 100)
    del disk.files[FIRST][-1:]
    assert read(disk).torn_bytes == 16 + 1 + 8 + 2 + 4 + 4 + 16 + 4 + 100
    assert disk.count("sync") == 1
    assert len(disk.files[FIRST]) == start
    assert read(disk).torn_bytes == 0


def test_a_whole_sector_of_the_last_record_that_was_not_written_is_torn() -> None:
    disk, start = ending_in(b"x" * 4 * SECTOR)
    first = -(-start // SECTOR) * SECTOR
    for sector in range(first, len(disk.files[FIRST]), SECTOR):
        end = min(sector + SECTOR, len(disk.files[FIRST]))
        assert read(zeroed(disk, sector, end)).numbers == [20]


def test_a_last_record_whose_beginning_was_not_written_is_torn() -> None:
    disk, start = ending_in(b"x" * 4 * SECTOR)
    assert read(zeroed(disk, start, SECTOR)).numbers == [20]


def filled_up_to(size: int, *records: RunRecord, first: int = 20) -> MemoryDisk:
    """A log of which the first run, of that number, ends at this offset, and these come then."""
    disk = MemoryDisk()
    log = begin(disk)
    padding = size - len(disk.files[FIRST]) - len(b"".join(encode(run(20, body=b""), 1, 1)))
    append(log, run(first, body=b"x" * padding))
    append(log, *records)
    log.close()
    return disk.after_kill()


def test_a_last_record_that_begins_with_a_sector_that_was_not_written_is_torn() -> None:
    disk = filled_up_to(SECTOR, run(21, body=b"x" * 4 * SECTOR))
    assert read(zeroed(disk, SECTOR, 2 * SECTOR)).numbers == [20]


def test_a_record_that_ends_in_a_sector_that_was_not_written_is_torn() -> None:
    disk = filled_up_to(SECTOR - 24, run(21), run(22, body=b"x" * 2 * SECTOR))
    torn = zeroed(disk, SECTOR, 2 * SECTOR)
    del torn.files[FIRST][-1:]
    assert read(torn).numbers == [20]


def test_a_few_bytes_of_a_beginning_that_were_not_written_are_told_by_the_number_before() -> None:
    disk = filled_up_to(SECTOR - 4, run((1 << 32) + 300), first=(1 << 32) + 299)
    assert read(zeroed(disk, SECTOR - 4, SECTOR)).torn_bytes


def test_the_zeros_of_a_number_are_not_taken_for_a_sector_that_was_not_written() -> None:
    disk = filled_up_to(SECTOR - 4, run(1 << 32))
    damaged_at(flipped(disk, FIRST, SECTOR + 40, 0), FIRST, SECTOR - 4)


@pytest.mark.parametrize("name", [FIRST, LAST])
def test_any_flipped_bit_is_damage_and_its_record_is_named(name: str) -> None:
    disk = small_log()
    content = disk.files[name]
    for start, end in [(0, 32), *records_of(content)]:
        for offset in range(start, end):
            for bit in range(8):
                damaged_at(flipped(disk, name, offset, bit), name, start)


@pytest.mark.parametrize("name", [FIRST, LAST])
def test_any_lost_byte_before_the_last_record_is_damage(name: str) -> None:
    disk = small_log()
    *before, _ = records_of(disk.files[name])
    for start, end in [(0, 32), *before]:
        for offset in range(start, end):
            with pytest.raises(CorruptLog, match=re.escape(f"{disk.directory / name}: offset ")):
                read(without_byte(disk, name, offset))


def test_a_flipped_bit_in_a_large_last_record_is_damage() -> None:
    disk, start = ending_in(b"x" * 4 * SECTOR)
    for offset in range(start, len(disk.files[FIRST]), 37):
        damaged_at(flipped(disk, FIRST, offset, offset % 8), FIRST, start)


@pytest.mark.parametrize("length", [0, 1, 2, 60, 4_000, 0xFFFF_FFFF])
def test_a_wrong_length_of_the_last_record_is_damage(length: int) -> None:
    disk, start = ending_in(b"x" * 100)
    new = length.to_bytes(4, "little")

    def change(content: bytearray) -> None:
        content[start + 8 : start + 12] = new

    damaged_at(patched(disk, FIRST, change), FIRST, start)


def test_an_empty_sector_in_the_middle_of_what_was_synced_is_damage() -> None:
    disk = MemoryDisk()
    log = begin(disk)
    append(log, run(20, body=b"x" * 4 * SECTOR))
    log.sync()
    append(log, run(21))
    log.close()
    _, (start, _), *_ = records_of(disk.files[FIRST])
    damaged_at(zeroed(disk.after_kill(), SECTOR, 2 * SECTOR), FIRST, start)


@pytest.mark.parametrize(
    ("first", "last"), [(1, 2), (0, 1)], ids=["a whole one", "the one that it begins in"]
)
def test_a_sector_that_is_missing_from_what_was_written_at_once_is_torn_off(
    first: int, last: int
) -> None:
    disk = MemoryDisk()
    log = begin(disk)
    append(log, run(20, body=b"x" * 4 * SECTOR), run(21))
    log.close()
    _, (start, _), _ = records_of(disk.files[FIRST])
    begin_at = max(start, first * SECTOR)
    found = read(zeroed(disk.after_kill(), begin_at, last * SECTOR))
    assert (found.numbers, found.torn_bytes) == ([], len(disk.files[FIRST]) - start)


def test_an_unfinished_record_in_an_older_segment_is_damage() -> None:
    disk = small_log()
    *_, (start, end), _ = records_of(disk.files[FIRST])
    del disk.files[FIRST][end:]
    damaged_at(without_byte(disk, FIRST, -1), FIRST, start)


def test_a_message_that_looks_like_a_record_does_not_end_a_torn_tail() -> None:
    inner = b"".join(encode(run(22), 100, 0))
    disk, _ = ending_in(inner + b"x" * 30)
    del disk.files[FIRST][-1:]
    assert read(disk).numbers == [20]


def test_a_message_cannot_make_the_search_for_a_record_behind_it_endless(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    disk, start = ending_in(b"\x02\xff\x00\x00" * 20_000)
    del disk.files[FIRST][-1:]
    assert read(disk.after_kill()).numbers == [20]
    monkeypatch.setattr("blipmq.wal.search.SEARCH_BYTES_MAX", 1 << 20)
    damaged_at(disk, FIRST, start)


def test_a_record_that_checks_behind_a_bad_one_makes_that_one_damage() -> None:
    disk = small_log()
    salt = int.from_bytes(disk.files[LAST][12:16], "little")
    *_, (start, end) = records_of(disk.files[LAST])
    inner = b"".join(encode(run(25), 100, salt))
    disk.files[LAST][end - 1 :] = bytes(600) + inner
    damaged_at(disk, LAST, start)


def missing_page(*, synced: bool) -> tuple[MemoryDisk, int]:
    """A log in which a whole page of a record is missing, with one behind it, and where it begins.

    Everything before that record was synced when the next was written; so was it, if `synced`.
    """
    disk = MemoryDisk()
    log = begin(disk)
    append(log, run(20))
    log.sync()
    append(log, run(21))
    start = len(disk.files[FIRST])
    append(log, run(22, body=b"x" * 2 * PAGE))
    if synced:
        log.sync()
    append(log, run(23))
    log.close()
    page = (start // PAGE + 1) * PAGE
    return zeroed(disk.after_kill(), page, page + PAGE), start


def test_a_page_that_was_never_synced_is_torn_off_with_all_that_is_behind_it() -> None:
    disk, start = missing_page(synced=False)
    size = len(disk.files[FIRST])
    found = read(disk)
    assert found.numbers == [20, 21]
    assert found.torn_bytes == size - start


def test_a_page_that_is_missing_from_what_was_synced_is_damage() -> None:
    disk, start = missing_page(synced=True)
    damaged_at(disk, FIRST, start)


def test_a_page_that_is_missing_from_the_checkpoint_is_damage() -> None:
    disk = MemoryDisk()
    kept = tuple((b"topic %d" % number, number) for number in range(1_000))
    log = begin(disk, Checkpoint(1_000, (), (), kept))
    append(log, run(20))
    log.close()
    damaged_at(zeroed(disk.after_kill(), PAGE, 2 * PAGE), FIRST, SEGMENT_HEADER_BYTES)


def test_a_record_of_an_unknown_kind_is_damage() -> None:
    disk = small_log()
    salt = int.from_bytes(disk.files[LAST][12:16], "little")
    end = len(disk.files[LAST])
    disk.files[LAST] += record_with_payload(b"\x2a", salt=salt)
    damaged_at(disk, LAST, end)


def test_a_segment_under_the_name_of_another_is_damage() -> None:
    disk = small_log()
    disk.files[LAST] = disk.files[FIRST]
    damaged_at(disk, LAST, 0)


def test_a_file_that_is_no_segment_under_the_name_of_one_is_damage() -> None:
    disk = small_log()
    disk.files[LAST] = bytearray(b"not a segment, but some text that is long enough for its header")
    damaged_at(disk, LAST, 0)


def test_a_segment_that_begins_with_no_checkpoint_is_damage() -> None:
    disk = MemoryDisk()
    head = segment_header(1, 5) + b"".join(bytes(part) for part in encode(run(1), 1, 5))
    disk.files[FIRST] = bytearray(head + b"".join(encode(CHECKPOINT, 2, 5)))
    with pytest.raises(CorruptLog, match="not a checkpoint"):
        read(disk)


def test_only_file_names_of_segments_are_taken_for_segments() -> None:
    names = [
        "lock",
        "1.wal",
        "0000000000000002.wal.bak",
        "x0000000000000002.wal",
        "0000000000000002.wal\n",
        "\u0661000000000000002.wal",
        segment_name(12),
        segment_name(3),
    ]
    assert sequences(names) == [3, 12]
