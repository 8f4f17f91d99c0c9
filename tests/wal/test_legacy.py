from __future__ import annotations

import struct
import zlib
from pathlib import Path

import pytest

from blipmq.errors import CorruptLog
from blipmq.wal.legacy import LegacyMessage, LegacyReader, is_legacy
from tests.wal.directories import two_segments
from tests.wal.logs import FIRST

HEADER = b"BLIPWAL\0" + (1).to_bytes(4, "little") + bytes(20)


def record(id_: int, topic: bytes, body: bytes, qos: int = 1) -> bytes:
    payload = bytes((qos,)) + struct.pack(">H", len(topic)) + topic + body
    return struct.pack("<QII", id_, len(payload), zlib.crc32(payload)) + payload


RECORDS = [record(1, b"demo", b"one"), record(2, b"news", b""), record(5, b"demo", b"\xff\0", 0)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "blipmq.wal"
    path.write_bytes(HEADER + b"".join(RECORDS))
    return path


def bodies(reader: LegacyReader) -> list[bytes]:
    return [message.body for message in reader]


def test_the_messages_come_in_order(path: Path) -> None:
    assert list(LegacyReader(path)) == [
        LegacyMessage(32, 1, 1, b"demo", b"one"),
        LegacyMessage(58, 2, 1, b"news", b""),
        LegacyMessage(81, 5, 0, b"demo", b"\xff\0"),
    ]


def test_progress_adds_up_to_the_records(path: Path) -> None:
    done: list[int] = []
    bodies(LegacyReader(path, done.append))
    assert sum(done) == sum(map(len, RECORDS))


def test_a_file_without_records_has_no_messages(path: Path) -> None:
    path.write_bytes(HEADER)
    reader = LegacyReader(path)
    assert bodies(reader) == []
    assert reader.torn == 0


@pytest.mark.parametrize("cut", range(1, len(RECORDS[2])))
def test_a_last_record_that_is_incomplete_is_left_out(path: Path, cut: int) -> None:
    path.write_bytes(path.read_bytes()[:-cut])
    reader = LegacyReader(path)
    assert bodies(reader) == [b"one", b""]
    assert reader.torn == len(RECORDS[2]) - cut


def test_zeros_at_the_end_are_no_record(path: Path) -> None:
    path.write_bytes(path.read_bytes() + bytes(100))
    reader = LegacyReader(path)
    assert len(bodies(reader)) == 3
    assert reader.torn == 100


@pytest.mark.parametrize("at", [12, 14, 20])
def test_a_damaged_record_is_named_by_its_offset(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[58 + at] ^= 1
    path.write_bytes(content)
    with pytest.raises(CorruptLog, match="offset 58: the record's checksum"):
        bodies(LegacyReader(path))


def test_a_damaged_length_does_not_pass_for_the_end(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[58 + 10] = 1
    path.write_bytes(content)
    with pytest.raises(CorruptLog, match="offset 58"):
        bodies(LegacyReader(path))


@pytest.mark.parametrize(
    ("payload", "reason"),
    [(b"\1\0", "too short for a message"), (b"\1\0\5demo", "topic is longer than its record")],
)
def test_a_record_that_is_no_message_is_corruption(path: Path, payload: bytes, reason: str) -> None:
    head = struct.pack("<QII", 9, len(payload), zlib.crc32(payload))
    path.write_bytes(HEADER + head + payload)
    with pytest.raises(CorruptLog, match=f"offset 32: the {reason}|record is {reason}"):
        bodies(LegacyReader(path))


def test_an_older_log_is_known_by_its_first_bytes(path: Path) -> None:
    assert is_legacy(path)


def test_a_segment_is_no_older_log(tmp_path: Path) -> None:
    assert not is_legacy(two_segments(tmp_path / "log") / FIRST)


def test_json_is_no_older_log(path: Path) -> None:
    path.write_text("{}")
    assert not is_legacy(path)
