"""What the log is, in bytes: segments, the records in them, and the facts in those.

It frames payloads; `blipmq.wal.encoding` knows what is in them.

A segment is a file: a header of 32 bytes, then records end to end, then nothing or zeros.
All integers of the format are little-endian, but for the frames inside a run, which are kept as
they are on the wire.

Segment header:

    8 bytes  magic "BLIPWAL" NUL
    u32      format version, 2
    u32      salt: what the checksums of this segment start from
    u64      sequence number of the segment; the file is named after it
    u32      reserved, 0
    u32      CRC32 of the 28 bytes before

Record:

    u64      id: the number of the first message of a run; of every other kind, the next number
             that the broker was about to give out
    u32      length of the payload
    u32      CRC32, started from the salt, of id, length and payload
    payload: u8 kind, the fact, and a last byte 0xFF

The last byte of a record that was written in part is zero or missing, so an incomplete record
is told from one that was damaged. The salt keeps a message from looking like a record.

Facts, by kind:

    1 run           u64 ms since the epoch, u16 n, n bytes of topic, u32 count, the frames
    2 settled       one or more of: u64 subscription, u64 first number, u64 last number
    3 opened        one older subscription; read, no longer written
    4 closed        u64 subscription, u64 next number
    5 checkpoint    u64 reserved number, u32 n, n times u64 segment, u32 n, n older
                    subscriptions, u32 n, n times kept; read, no longer written
    6 attempted     u64 subscription, u64 first number, u64 last number, u16 attempts
    7 synced        u64 segment, u64 size: so much of that segment outlives a power cut
    8 moved         u64 subscription, u64 first number, u64 last number, then as a run
   10 opened        one subscription
   11 checkpoint    u64 reserved number, u32 n, n times: u64 segment, u32 its salt,
                    u32 n, n subscriptions, u32 n, n times kept, u32 n, n times seen
   12 continued     u64 next segment, u32 its salt; the last record of a segment

    subscription    u8 flags (1 shared, 2 pattern), u64 id, u64 parent, u64 cursor,
                    u64 ack wait in ms, u32 attempts at most, u8 n, n bytes of owner,
                    u16 n, n bytes of topic, u16 n, n bytes of name,
                    u32 n, n times: u64 first, u64 last, u16 attempts
    older           u64 id, u64 cursor, u8 n, n bytes of owner, u16 n, n bytes of topic,
                    u32 n, n times: u64 first, u64 last, u16 attempts
    kept            u16 n, n bytes of topic, u64 first number
    seen            u16 n, n bytes of topic, u32 n, n times: u64 ms since the epoch,
                    u16 n, n bytes of message id

The id of a moved record is the number of its run's first message. A run of the topic "" holds
delayed messages, whose frames name the topics that they are for.

A subscription has settled every number before its cursor but for those listed. A checkpoint is
the first record of every segment and holds all there is to know but for the messages, so what
came before counts only for the runs in it. Facts may be repeated: each says what is so, not what
changes.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import Final

from blipmq.errors import LogError
from blipmq.wal.facts import Bytes

MAGIC: Final = b"BLIPWAL\0"
FORMAT_VERSION: Final = 2
SEGMENT_HEADER: Final = struct.Struct("<8sIIQI")
SEGMENT_HEADER_BYTES: Final = SEGMENT_HEADER.size + 4
RECORD_HEADER: Final = struct.Struct("<QII")
RECORD_HEADER_BYTES: Final = RECORD_HEADER.size
END_MARK: Final = b"\xff"
PAYLOAD_MIN: Final = 2

_ID_AND_LENGTH = struct.Struct("<QI")
_U32 = struct.Struct("<I")


class DoesNotFit(LogError):
    """A fact is larger than a record can be."""


def segment_header(sequence: int, salt: int) -> bytes:
    head = SEGMENT_HEADER.pack(MAGIC, FORMAT_VERSION, salt, sequence, 0)
    return head + _U32.pack(zlib.crc32(head))


def parse_segment_header(data: bytes) -> tuple[int, int]:
    """Sequence number and salt. Raises ValueError saying what is wrong."""
    if len(data) < SEGMENT_HEADER_BYTES:
        raise ValueError(f"the header is {len(data)} bytes long, not {SEGMENT_HEADER_BYTES}")
    magic, version, salt, sequence, _ = SEGMENT_HEADER.unpack_from(data)
    if magic != MAGIC:
        raise ValueError("this is not a segment of a BlipMQ log")
    if version != FORMAT_VERSION:
        raise ValueError(f"format version {version}; this program reads {FORMAT_VERSION}")
    if _U32.unpack_from(data, SEGMENT_HEADER.size)[0] != zlib.crc32(data[: SEGMENT_HEADER.size]):
        raise ValueError("the header's checksum does not match")
    return sequence, salt


def framed(id_: int, salt: int, head: bytes, data: Bytes = b"") -> list[Bytes]:
    """A record: its payload is `head`, `data`, which is not copied, and the last byte.

    Raises DoesNotFit.
    """
    length = len(head) + len(data) + 1
    if length > 0xFFFF_FFFF:
        raise DoesNotFit(f"a record of {length} bytes is longer than the log takes")
    start = _ID_AND_LENGTH.pack(id_, length)
    crc = zlib.crc32(END_MARK, zlib.crc32(data, zlib.crc32(head, zlib.crc32(start, salt))))
    first = start + _U32.pack(crc) + head
    return [first, data, END_MARK] if len(data) else [first + END_MARK]


def checks(header: Bytes, payload: Bytes, salt: int) -> bool:
    """Whether a record's checksum and its last byte are right."""
    (crc,) = _U32.unpack_from(header, _ID_AND_LENGTH.size)
    start = zlib.crc32(header[: _ID_AND_LENGTH.size], salt)
    return bool(payload[-1:] == END_MARK and zlib.crc32(payload, start) == crc)


def records(data: Bytes, start: int, salt: int) -> Iterator[tuple[int, int, int]]:
    """The records that follow each other whole and right in `data` from `start` on.

    Yields (id, start of the payload, end of the record), and ends before the first that is not.
    """
    view = memoryview(data)
    while start + RECORD_HEADER_BYTES + PAYLOAD_MIN <= len(view):
        id_, length, _ = RECORD_HEADER.unpack_from(view, start)
        body = start + RECORD_HEADER_BYTES
        end = body + length
        if length < PAYLOAD_MIN or end > len(view):
            return
        if not checks(view[start:body], view[body:end], salt):
            return
        yield id_, body, end
        start = end
