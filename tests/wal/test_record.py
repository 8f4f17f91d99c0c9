from __future__ import annotations

import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blipmq.wal import record

u32 = st.integers(0, 2**32 - 1)
u64 = st.integers(0, 2**64 - 1)


@given(u64, u32, st.binary(max_size=300), st.binary(max_size=300))
def test_a_record_is_found_with_its_id_and_its_payload(
    id_: int, salt: int, head: bytes, data: bytes
) -> None:
    written = b"".join(record.framed(id_, salt, b"\x02" + head, data))
    assert [
        (found, written[start:end]) for found, start, end in record.records(written, 0, salt)
    ] == [(id_, b"\x02" + head + data + b"\xff")]


def test_a_record_written_with_another_salt_does_not_check() -> None:
    written = b"".join(record.framed(9, 5, b"\x02fact"))
    assert list(record.records(written, 0, 6)) == []


def test_a_record_without_its_last_byte_does_not_check_whatever_its_checksum_is() -> None:
    payload = b"\x02fact\0"
    start = struct.pack("<QI", 9, len(payload))
    crc = zlib.crc32(start + payload, 1)
    assert list(record.records(start + struct.pack("<I", crc) + payload, 0, 1)) == []


@given(u64, u32)
def test_a_segment_header_is_read_as_it_was_written(sequence: int, salt: int) -> None:
    header = record.segment_header(sequence, salt)
    assert len(header) == record.SEGMENT_HEADER_BYTES
    assert record.parse_segment_header(header) == (sequence, salt)


def test_a_segment_header_begins_with_the_magic_and_the_version() -> None:
    assert record.segment_header(1, 2)[:12] == b"BLIPWAL\0\x02\0\0\0"


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (record.segment_header(1, 2)[:31], "31 bytes long"),
        (b"x" + record.segment_header(1, 2)[1:], "not a segment of a BlipMQ log"),
        (b"BLIPWAL\0\x01\0\0\0" + record.segment_header(1, 2)[12:], "version 1; .* reads 2"),
        (record.segment_header(1, 2)[:-1] + b"?", "checksum"),
    ],
)
def test_a_header_that_is_none_is_an_error_that_says_why(header: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        record.parse_segment_header(header)
