"""The older log: a single file. It is read, to be imported, and never written.

The file begins with 32 bytes: the magic "BLIPWAL" NUL, a little-endian u32 version, 1, and bytes
without meaning. Records follow, end to end: little-endian u64 id, u32 length of the payload and
u32 CRC32 of the payload, then the payload: u8 QoS, big-endian u16 length of the topic, topic, body.
It says nothing of subscriptions, so every message in it counts.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import attrs

from blipmq.errors import CorruptLog
from blipmq.protocol.frames import U16
from blipmq.wal.disk import Disk
from blipmq.wal.record import MAGIC
from blipmq.wal.scan import Progress, silent

HEADER_BYTES: Final = 32
VERSION: Final = 1

_VERSION = struct.Struct("<I")
_RECORD = struct.Struct("<QII")
_TOPIC_AT: Final = 3
_PLACE = re.compile(rb"(?s)(?=.{%d}[\x00\x01])" % _RECORD.size)
"""Where a record may begin, going by its QoS."""


@attrs.frozen
class LegacyMessage:
    """One message; `offset` is where its record begins."""

    offset: int
    id: int
    qos: int
    topic: bytes
    body: bytes


def is_legacy(path: Path) -> bool:
    """Whether the file is a log of the older format, going by its first bytes. Raises OSError."""
    with path.open("rb") as file:
        head = file.read(len(MAGIC) + _VERSION.size)
    return head == MAGIC + _VERSION.pack(VERSION)


@attrs.define(eq=False)
class LegacyReader:
    """The messages of an older log in order; then `torn`, how many bytes of a last one are there.

    A last record that is incomplete was never answered for. Everything else that does not check
    raises CorruptLog. Raises OSError.
    """

    path: Path
    progress: Progress = silent
    torn: int = 0

    def __iter__(self) -> Iterator[LegacyMessage]:
        data = memoryview(Disk(self.path.parent).read(self.path.name))
        try:
            at = HEADER_BYTES
            while (end := _end(data, at)) is not None:
                yield self._message(at, data[at:end].tobytes())
                self.progress(end - at)
                at = end
            if not _is_torn(data, at):
                raise self._corrupt(at, "the record's checksum does not match")
            self.torn = max(0, len(data) - at)
        finally:
            data.release()

    def _message(self, at: int, record: bytes) -> LegacyMessage:
        id_ = _RECORD.unpack_from(record)[0]
        payload = record[_RECORD.size :]
        if len(payload) < _TOPIC_AT:
            raise self._corrupt(at, "the record is too short for a message")
        body_at = _TOPIC_AT + U16.unpack_from(payload, 1)[0]
        if body_at > len(payload):
            raise self._corrupt(at, "the topic is longer than its record")
        return LegacyMessage(at, id_, payload[0], payload[_TOPIC_AT:body_at], payload[body_at:])

    def _corrupt(self, at: int, reason: str) -> CorruptLog:
        return CorruptLog(f"{self.path}: offset {at}: {reason}")


def _end(data: memoryview, at: int) -> int | None:
    """Where the record at `at` ends, if it is one that is whole and right."""
    body = at + _RECORD.size
    if body > len(data):
        return None
    _, length, crc = _RECORD.unpack_from(data, at)
    end: int = body + length
    if not length or end > len(data) or zlib.crc32(data[body:end]) != crc:
        return None
    return end


def _is_torn(data: memoryview, at: int) -> bool:
    """Whether what stands at `at`, where no whole record is, is the beginning of the last one.

    It goes beyond the end of the file then, and nothing that checks comes after.
    """
    body = at + _RECORD.size
    if body <= len(data) and any(data[at:body]):
        length = _RECORD.unpack_from(data, at)[1]
        if body + length <= len(data):
            return False
    places = (match.start() for match in _PLACE.finditer(data, at + 1))
    return not any(_end(data, place) for place in places)
