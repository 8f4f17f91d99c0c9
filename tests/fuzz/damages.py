"""What can happen to the segments of a log, as a row of choices says."""

from __future__ import annotations

from typing import Final

from blipmq.wal.segment import SECTOR, segment_name, sequences
from tests.fuzz.choices import Choices
from tests.wal.memory_disk import MemoryDisk

_DAMAGES_MAX: Final = 6


def damaged(good: MemoryDisk, choices: Choices) -> MemoryDisk:
    """The log after what is done to it; there is at least one damage."""
    disk = good.after_kill()
    for _ in range(1 + choices.number() % _DAMAGES_MAX):
        names = [segment_name(s) for s in sequences(disk.names())]
        if names:
            _damage(disk.files, names, choices)
    return disk


def mixed_with(disk: MemoryDisk, other: MemoryDisk, which: int) -> MemoryDisk:
    """Some segments are those of another log."""
    mixed = disk.after_kill()
    for place, name in enumerate(other.names()):
        if which >> place % 8 & 1:
            mixed.files[name] = bytearray(other.files[name])
    return mixed


def _damage(files: dict[str, bytearray], names: list[str], choices: Choices) -> None:
    kind, which = choices.number(), choices.number()
    name, other = names[which % len(names)], names[which // len(names) % len(names)]
    content = files[name]
    at = choices.number(2) * (len(content) + 1) >> 16
    size = choices.number() << (2 if kind & 0x80 else 0)
    match kind % 12:
        case 0 | 1 | 2:
            if at < len(content):
                content[at] ^= 1 << size % 8
        case 3:
            del content[at:]
        case 4:
            content[at : at + size] = bytes(len(content[at : at + size]))
        case 5:
            start = at // SECTOR * SECTOR
            end = min(start + SECTOR * (1 + size % 3), len(content))
            content[start:end] = bytes(end - start)
        case 6:
            content[at : at + size] = _garbage(len(content[at : at + size]))
        case 7:
            content[at:at] = _garbage(size)
        case 8:
            content += _garbage(size)
        case 9:
            del files[name]
        case 10:
            files[name], files[other] = files[other], content
        case _:
            files[other] = bytearray(content)


def _garbage(size: int) -> bytes:
    return bytes(place * 37 + size & 0xFF for place in range(size))
