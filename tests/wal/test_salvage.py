from __future__ import annotations

import zlib
from pathlib import Path

import pytest

from blipmq.errors import LogError
from blipmq.wal import encoding
from blipmq.wal.facts import Fact, RunRecord, Settled
from blipmq.wal.salvage import Damage, SalvageReader
from tests.wal.directories import QuickDisk, change, records, two_segments
from tests.wal.logs import FIRST, LAST, append, begin, record_with_payload, run

SALT = 0x5EED_0001


def salvage(
    path: Path, sequence: int = 1, *, last: bool = False
) -> tuple[SalvageReader, list[Fact]]:
    """A reader that has read its segment, and the facts; runs are without their frames."""
    reader = SalvageReader(QuickDisk(path), sequence, last)
    facts: list[Fact] = []
    for item in reader:
        if not isinstance(item, Damage):
            _, fact = item
            facts.append(fact)
    return reader, facts


def numbers(facts: list[Fact]) -> list[int]:
    """The first number of every run."""
    return [fact.first for fact in facts if isinstance(fact, RunRecord)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A log of one segment, with ten runs of one message; the first is number 1."""
    log = begin(QuickDisk(tmp_path))
    for number in range(1, 11):
        append(log, run(number, body=b"body %d " % number * 20), next_number=number + 1)
    log.close()
    return tmp_path


def test_a_segment_without_damage_is_read_whole(path: Path) -> None:
    reader, facts = salvage(path)
    assert numbers(facts) == list(range(1, 11))
    assert (reader.records, reader.damages, reader.torn) == (11, [], 0)


def test_only_the_record_with_the_damage_is_passed_over(path: Path) -> None:
    start, end = records(path, FIRST)[5]
    change(path, FIRST, start + 100)
    reader, facts = salvage(path)
    assert numbers(facts) == [1, 2, 3, 4, 6, 7, 8, 9, 10]
    (damage,) = reader.damages
    assert (damage.start, damage.end) == (start, end)


def test_a_damaged_body_leaves_known_which_run_it_was(path: Path) -> None:
    change(path, FIRST, records(path, FIRST)[5][1] - 10)
    (damage,) = salvage(path)[0].damages
    assert damage.run is not None
    assert (damage.run.topic, damage.run.first, damage.run.count) == (b"demo", 5, 1)


def test_a_damaged_topic_leaves_unknown_which_run_it_was(path: Path) -> None:
    start, end = records(path, FIRST)[5]
    topic = (path / FIRST).read_bytes().index(b"demo", start, end)
    change(path, FIRST, topic)
    (damage,) = salvage(path)[0].damages
    assert damage.run is None


def test_a_damaged_length_does_not_hide_the_next_record(path: Path) -> None:
    start, end = records(path, FIRST)[5]
    change(path, FIRST, start + 8, (1).to_bytes(4, "little"))
    reader, facts = salvage(path)
    assert numbers(facts) == [1, 2, 3, 4, 6, 7, 8, 9, 10]
    (damage,) = reader.damages
    assert (damage.start, damage.end, damage.single) == (start, end, False)


def test_several_damages_are_told_apart(path: Path) -> None:
    for index in (3, 7):
        change(path, FIRST, records(path, FIRST)[index][0])
    reader, facts = salvage(path)
    assert numbers(facts) == [1, 2, 4, 5, 6, 8, 9, 10]
    assert len(reader.damages) == 2


def test_a_record_of_a_kind_that_is_unknown_is_passed_over(path: Path) -> None:
    start, _ = records(path, FIRST)[5]
    change(path, FIRST, start, record_with_payload(bytes((200,)) + bytes(30), 5, SALT))
    reader, facts = salvage(path)
    assert numbers(facts) == [1, 2, 3, 4, 6, 7, 8, 9, 10]
    assert "unknown kind of record 200" in reader.damages[0].reason


@pytest.mark.parametrize("at", range(32))
def test_a_flipped_bit_in_the_header_costs_no_record(path: Path, at: int) -> None:
    change(path, FIRST, at)
    reader, facts = salvage(path)
    assert numbers(facts) == list(range(1, 11))
    assert reader.salt == SALT
    assert [(damage.start, damage.end) for damage in reader.damages] == [(0, 32)]


def test_a_header_that_is_gone_costs_only_what_is_gone_with_it(path: Path) -> None:
    gone = records(path, FIRST)[2][0] + 10
    change(path, FIRST, 0, bytes(gone))
    reader, facts = salvage(path)
    assert numbers(facts) == list(range(3, 11))
    assert reader.salt == SALT


def test_a_header_that_is_gone_is_made_up_for_in_a_long_segment_with_other_damage(
    tmp_path: Path,
) -> None:
    log = begin(QuickDisk(tmp_path), segment_bytes=1 << 30)
    append(log, *(run(number, body=b"x" * (1 << 20)) for number in range(1, 20)))
    log.close()
    change(tmp_path, FIRST, records(tmp_path, FIRST)[19][0])
    change(tmp_path, FIRST, 0, bytes(40))
    _, facts = salvage(tmp_path)
    assert numbers(facts) == list(range(1, 19))


def test_a_segment_of_zeros_is_of_no_use(path: Path) -> None:
    change(path, FIRST, 0, bytes((path / FIRST).stat().st_size))
    reader, facts = salvage(path)
    assert not facts
    assert [damage.useless for damage in reader.damages] == [True]


def test_a_segment_under_another_name_is_of_no_use(path: Path) -> None:
    (path / FIRST).rename(path / LAST)
    reader, facts = salvage(path, 2)
    assert not facts
    (damage,) = reader.damages
    assert (damage.useless, damage.reason) == (True, "this is segment 1 under another name")


def test_a_segment_of_another_format_is_refused_as_it_is_not_damaged(path: Path) -> None:
    head = bytearray((path / FIRST).read_bytes()[:28])
    head[8] = 3
    change(path, FIRST, 0, bytes(head) + zlib.crc32(head).to_bytes(4, "little"))
    with pytest.raises(LogError, match="format version 3; this program reads 2"):
        salvage(path)


@pytest.mark.parametrize("last", [True, False])
def test_an_unfinished_record_is_damage_unless_the_segment_is_the_last(
    path: Path, last: bool
) -> None:
    start, end = records(path, FIRST)[-1]
    (path / FIRST).write_bytes((path / FIRST).read_bytes()[: end - 5])
    reader, facts = salvage(path, last=last)
    assert numbers(facts) == list(range(1, 10))
    assert (reader.torn, len(reader.damages)) == ((end - 5 - start, 0) if last else (0, 1))


@pytest.mark.parametrize("gone", [0, 10, 32, 40])
def test_a_last_segment_that_was_torn_while_it_was_begun_is_blank(path: Path, gone: int) -> None:
    (path / FIRST).write_bytes((path / FIRST).read_bytes()[:gone])
    reader, facts = salvage(path, last=True)
    assert not facts
    assert reader.blank


def test_a_record_inside_a_message_is_not_taken_for_one(tmp_path: Path) -> None:
    forged = b"".join(map(bytes, encoding.encode(Settled(7, 1, 99), 100, salt=0)))
    log = begin(QuickDisk(tmp_path))
    append(log, run(1, body=forged), run(2))
    log.close()
    change(tmp_path, FIRST, records(tmp_path, FIRST)[1][0])
    _, facts = salvage(tmp_path)
    assert numbers(facts) == [2]
    assert not [fact for fact in facts if isinstance(fact, Settled)]


def test_a_record_inside_a_message_does_not_pass_for_the_salt(tmp_path: Path) -> None:
    forged = b"".join(map(bytes, encoding.encode(Settled(7, 1, 99), 100, salt=0)))
    log = begin(QuickDisk(tmp_path))
    append(log, run(1), run(2, body=forged * 3), run(3))
    log.close()
    change(tmp_path, FIRST, 0, bytes(records(tmp_path, FIRST)[2][0] + 1))
    reader, facts = salvage(tmp_path)
    assert reader.salt == SALT or reader.salt is None
    assert not [fact for fact in facts if isinstance(fact, Settled)]


def test_bytes_that_were_settlements_are_known_to_be_no_messages(tmp_path: Path) -> None:
    two_segments(tmp_path)
    change(tmp_path, FIRST, records(tmp_path, FIRST)[3][0] + 12)
    (damage,) = salvage(tmp_path)[0].damages
    assert damage.no_run
    assert not damage.may_hold_runs
    assert damage.may_hold_settlements
