"""Whatever the segments hold, a log is recovered, with or without a torn tail, or is corrupt.

An input says what is done to the segments of a log that is whole: bytes are changed, put in, taken
out, cleared, cut off; segments are lost, copied and exchanged; the payload of a record is changed
and its checksum made to fit. A torn tail is recovered; what recovers recovers again, and has no
torn tail any more. What is corrupt can be surveyed and repaired, or that is refused by an error of
the log too.
"""

from __future__ import annotations

import struct
import tempfile
import zlib
from pathlib import Path
from typing import Final

import attrs

from blipmq.errors import CorruptLog, LogError
from blipmq.wal.repair import carry_out
from tests.fuzz.choices import Choices
from tests.wal.directories import QuickDisk, found, planned, put
from tests.wal.logs import FIRST, LAST, read, records_of, small_log
from tests.wal.memory_disk import MemoryDisk

_CHANGES_MAX: Final = 8
_NAMES: Final = (FIRST, LAST, "0000000000000003.wal", "reserve")
_WHOLE: Final = {name: bytes(content) for name, content in small_log().files.items()}


def check(data: bytes) -> None:
    """Raises for a log that is neither recovered nor corrupt."""
    disk = changed(Choices(data))
    try:
        first = read(disk.after_kill())
    except CorruptLog:
        if _is_cut(disk):
            raise AssertionError("a torn tail is no damage") from None
        _repair(disk)
        return
    started = disk.after_kill()
    assert read(started) == first
    assert read(started) == attrs.evolve(first, torn_bytes=0)


def _is_cut(disk: MemoryDisk) -> bool:
    """Whether the last segment lacks its end, and nothing else is wrong."""
    segments = {name: content for name, content in disk.files.items() if name.endswith(".wal")}
    if segments.keys() != {FIRST, LAST} or segments[FIRST] != _WHOLE[FIRST]:
        return False
    (_, checkpoint_end), *_ = records_of(_WHOLE[LAST])
    cut = bytes(segments[LAST])
    return _WHOLE[LAST].startswith(cut) and len(cut) >= checkpoint_end


def _repair(disk: MemoryDisk) -> None:
    """What is corrupt can be looked at and cut, unless that is refused."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name)
        put(path, {name: bytes(content) for name, content in disk.files.items()})
        try:
            carry_out(planned(path), QuickDisk(path), salt=77)
            found(path)
        except LogError:
            return


def changed(choices: Choices) -> MemoryDisk:
    """The log that was whole, after these changes."""
    disk = MemoryDisk()
    disk.files = {name: bytearray(content) for name, content in _WHOLE.items()}
    for _ in range(_CHANGES_MAX):
        if not choices:
            break
        name = _NAMES[choices.number() % len(_NAMES)]
        _change(disk.files, name, choices)
    return disk


def _change(files: dict[str, bytearray], name: str, choices: Choices) -> None:
    content = files.setdefault(name, bytearray())
    kind, at = choices.number() % 10, choices.number(2) % (len(content) + 1)
    size = choices.number()
    match kind:
        case 0:
            new = choices.take(size)
            content[at : at + len(new)] = new
        case 1:
            content[at:at] = choices.take(size)
        case 2:
            del content[at : at + size]
        case 3:
            del content[at:]
        case 4:
            content[at : at + size] = bytes(len(content[at : at + size]))
        case 5:
            del files[name]
        case 6:
            other = _NAMES[size % len(_NAMES)]
            files[name] = bytearray(files.get(other, b""))
        case 7:
            content += bytes(size * 64)
        case _:
            _forge(content, at, choices.take(size), whole=kind == 9)


def _forge(content: bytearray, place: int, new: bytes, *, whole: bool) -> None:
    """The payload of a record, or a part of it, is this, and its checksum fits."""
    found = [(start, end) for start, end in records_of(content) if end <= len(content)]
    if not found or len(content) < 32:
        return
    start, end = found[place % len(found)]
    payload = bytearray(content[start + 16 : end])
    if whole:
        payload[:-1] = new
    else:
        at = place // len(found) % (len(payload) or 1)
        payload[at : at + len(new)] = new
    (salt,) = struct.unpack_from("<I", content, 12)
    head = bytes(content[start : start + 8]) + struct.pack("<I", len(payload))
    checksum = zlib.crc32(head + payload, salt)
    content[start:end] = head + struct.pack("<I", checksum) + payload
