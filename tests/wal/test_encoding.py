from __future__ import annotations

import struct

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blipmq.wal import encoding, record
from blipmq.wal.facts import (
    Attempted,
    Checkpoint,
    Closed,
    Continued,
    Fact,
    Moved,
    Opened,
    RunRecord,
    Seen,
    Settled,
    SubscriptionState,
    UnsettledRange,
)
from blipmq.wal.record import DoesNotFit
from tests.wal.logs import StoredRun, record_with_payload

u16 = st.integers(0, 2**16 - 1)
u32 = st.integers(0, 2**32 - 1)
u64 = st.integers(0, 2**64 - 1)
topics = st.binary(max_size=300) | st.just(b"t" * 65_535)
subscriptions = st.builds(
    SubscriptionState,
    u64,
    st.text(st.characters(codec="ascii"), max_size=255),
    topics,
    u64,
    st.lists(st.builds(UnsettledRange, u64, u64, u16), max_size=4).map(tuple),
    st.booleans(),
    st.booleans(),
    topics,
    u64,
    u64,
    u32,
)
seen = st.builds(Seen, topics, st.lists(st.tuples(u64, topics), max_size=3).map(tuple))
runs = st.builds(RunRecord, topics, u64, u32, st.binary(min_size=1), u64)
facts: st.SearchStrategy[Fact] = (
    st.builds(Settled, u64, u64, u64)
    | st.builds(Attempted, u64, u64, u64, u16)
    | st.builds(Opened, subscriptions)
    | st.builds(Closed, u64, u64)
    | st.builds(Continued, u64, u32)
    | st.builds(
        Checkpoint,
        u64,
        st.just((3, 5)),
        st.lists(subscriptions, max_size=3).map(tuple),
        st.lists(st.tuples(topics, u64), max_size=3).map(tuple),
        st.lists(seen, max_size=3).map(tuple),
        st.tuples(u32, u32),
    )
)


def encoded(fact: Fact, next_number: int = 9, salt: int = 1) -> bytes:
    return b"".join(encoding.encode(fact, next_number, salt))


def decoded(data: bytes, salt: int = 1) -> list[tuple[int, Fact]]:
    found: list[tuple[int, Fact]] = []
    for id_, body, end in record.records(data, 0, salt):
        found += [(id_, fact) for fact in encoding.decode(id_, data[body:end])]
    return found


@given(facts, u64, u32)
def test_every_fact_is_read_as_it_was_written(fact: Fact, next_number: int, salt: int) -> None:
    assert decoded(encoded(fact, next_number, salt), salt) == [(next_number, fact)]


@given(runs, u32)
def test_a_run_is_read_as_written_and_its_first_number_is_the_id(run: RunRecord, salt: int) -> None:
    ((id_, found),) = decoded(encoded(run, 9, salt), salt)
    assert isinstance(found, RunRecord)
    assert id_ == run.first
    assert StoredRun.of(found) == StoredRun.of(run)


@given(u64, u64, u64, runs, u32)
def test_a_moved_run_is_read_as_written_and_its_first_number_is_the_id(
    subscription: int, first: int, last: int, run: RunRecord, salt: int
) -> None:
    ((id_, found),) = decoded(encoded(Moved(subscription, first, last, run), 9, salt), salt)
    assert isinstance(found, Moved)
    assert (id_, found.settled) == (run.first, Settled(subscription, first, last))
    assert StoredRun.of(found.run) == StoredRun.of(run)


@given(st.lists(facts, max_size=6))
def test_records_follow_each_other_without_a_gap(several: list[Fact]) -> None:
    data = b"".join(encoded(fact) for fact in several)
    assert decoded(data) == [(9, fact) for fact in several]


@given(st.lists(st.builds(Settled, u64, u64, u64), min_size=1))
def test_many_settlements_are_one_record(settled: list[Settled]) -> None:
    data = b"".join(encoding.encode_settled(settled, 9, 1))
    assert len(list(record.records(data, 0, 1))) == 1
    assert decoded(data) == [(9, fact) for fact in settled]


def test_the_frames_of_a_run_are_written_from_where_they_are() -> None:
    data = memoryview(b"frames")
    assert any(part is data for part in encoding.encode(RunRecord(b"t", 1, 1, data), 9, 1))


def test_attempts_that_do_not_fit_are_kept_as_the_most_that_fits() -> None:
    state = SubscriptionState(1, "k", b"t", 5, (UnsettledRange(1, 2, 70_000),))
    ((_, fact),) = decoded(encoded(Opened(state)))
    assert fact == Opened(attrs.evolve(state, unsettled=(UnsettledRange(1, 2, 65_535),)))
    most = SubscriptionState(1, "k", b"t", 5, max_attempts=1 << 40)
    ((_, fact),) = decoded(encoded(Opened(most)))
    assert fact == Opened(attrs.evolve(most, max_attempts=0xFFFF_FFFF))
    assert decoded(encoded(Attempted(1, 2, 3, 70_000))) == [(9, Attempted(1, 2, 3, 65_535))]


def test_the_layout_of_a_record_is_the_documented_one() -> None:
    payload = b"\x02" + struct.pack("<QQQ", 7, 11, 12)
    assert encoded(Settled(7, 11, 12), 0x0102, 0xABCD) == record_with_payload(
        payload, 0x0102, 0xABCD
    )


def test_the_layout_of_a_run_is_the_documented_one() -> None:
    payload = b"\x01" + struct.pack("<QH", 1_700, 4) + b"demo" + struct.pack("<I", 2) + b"frames"
    run = RunRecord(b"demo", 21, 2, b"frames", 1_700)
    assert encoded(run, 99, 5) == record_with_payload(payload, 21, 5)


def test_the_layout_of_a_moved_run_is_the_documented_one() -> None:
    payload = b"\x08" + struct.pack("<QQQQH", 7, 11, 12, 1_700, 4) + b"demo"
    payload += struct.pack("<I", 2) + b"frames"
    moved = Moved(7, 11, 12, RunRecord(b"demo", 21, 2, b"frames", 1_700))
    assert encoded(moved, 99, 5) == record_with_payload(payload, 21, 5)


def test_the_layout_of_a_subscription_is_the_documented_one() -> None:
    payload = b"\x0a\x03" + struct.pack("<QQQQIB", 7, 5, 20, 30_000, 3, 3) + b"key"
    payload += struct.pack("<H", 4) + b"demo" + struct.pack("<H", 1) + b"n"
    payload += struct.pack("<IQQH", 1, 11, 12, 2)
    ranges = (UnsettledRange(11, 12, 2),)
    state = SubscriptionState(7, "key", b"demo", 20, ranges, True, True, b"n", 5, 30_000, 3)
    assert encoded(Opened(state), 9, 1) == record_with_payload(payload)


def test_the_layout_of_a_checkpoint_is_the_documented_one() -> None:
    payload = b"\x0b" + struct.pack("<QIQIIIH", 1_000, 1, 3, 77, 0, 1, 4) + b"demo"
    payload += struct.pack("<QIH", 5, 1, 4) + b"news" + struct.pack("<IQH", 1, 1_700, 2) + b"id"
    seen = Seen(b"news", ((1_700, b"id"),))
    checkpoint = Checkpoint(1_000, (3,), (), ((b"demo", 5),), (seen,), (77,))
    assert encoded(checkpoint, 9, 1) == record_with_payload(payload)


OLDER = struct.pack("<QQB", 7, 20, 3) + b"key" + struct.pack("<H", 4) + b"demo"
OLDER += struct.pack("<IQQH", 1, 11, 12, 2)
OF_OLDER = SubscriptionState(7, "key", b"demo", 20, (UnsettledRange(11, 12, 2),))


def test_a_subscription_of_an_older_log_is_read() -> None:
    assert decoded(record_with_payload(b"\x03" + OLDER)) == [(9, Opened(OF_OLDER))]


def test_a_checkpoint_of_an_older_log_is_read() -> None:
    payload = b"\x05" + struct.pack("<QIQI", 1_000, 1, 3, 1) + OLDER
    payload += struct.pack("<IH", 1, 4) + b"demo" + struct.pack("<Q", 5)
    expected = Checkpoint(1_000, (3,), (OF_OLDER,), ((b"demo", 5),))
    assert decoded(record_with_payload(payload)) == [(9, expected)]


@pytest.mark.parametrize(
    "fact",
    [
        RunRecord(b"t" * 65_536, 1, 1, b"frames"),
        Opened(SubscriptionState(1, "k", b"t" * 65_536, 5)),
        Opened(SubscriptionState(1, "k" * 256, b"t", 5)),
        Opened(SubscriptionState(1, "k", b"t", 5, name=b"n" * 65_536)),
        Checkpoint(1, kept=((b"t" * 65_536, 1),)),
        Checkpoint(1, seen=(Seen(b"t", ((1, b"i" * 65_536),)),)),
    ],
)
def test_what_a_record_cannot_hold_is_an_error(fact: Fact) -> None:
    with pytest.raises(DoesNotFit, match="longer than the log takes"):
        encoding.encode(fact, 9, 1)


@pytest.mark.parametrize(
    "payload",
    [
        b"\x00",
        b"\x06" + bytes(25),
        b"\x2a",
        b"\x01" + bytes(9),
        b"\x01" + struct.pack("<QH", 0, 500) + bytes(40),
        b"\x02" + bytes(23),
        b"\x03" + bytes(16),
        b"\x03" + struct.pack("<QQB", 1, 2, 200) + bytes(50),
        b"\x03" + struct.pack("<QQB", 1, 2, 1) + b"\xff" + bytes(6),
        b"\x04" + bytes(15),
        b"\x05" + bytes(8),
        b"\x05" + bytes(8) + struct.pack("<I", 4_000_000_000),
        b"\x05" + bytes(16) + struct.pack("<IH", 1, 9) + b"short",
        b"\x08" + bytes(33),
        b"\x08" + bytes(32) + struct.pack("<H", 500) + bytes(40),
        b"\x09" + bytes(40),
        b"\x0a" + bytes(37),
        b"\x0a\x04" + bytes(60),
        b"\x0a" + bytes(37) + b"\xff" + bytes(8),
        b"\x0b" + bytes(20),
        b"\x0b" + bytes(20) + struct.pack("<IH", 1, 9) + b"short",
    ],
)
def test_a_record_that_does_not_fit_its_kind_is_an_error_that_names_the_kind(
    payload: bytes,
) -> None:
    with pytest.raises(ValueError, match=rf"kind.* {payload[0]}\b"):
        decoded(record_with_payload(payload))


def test_a_record_without_a_kind_is_an_error() -> None:
    with pytest.raises(ValueError, match="the record is empty"):
        encoding.decode(9, b"\xff")
