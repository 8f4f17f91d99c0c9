"""A file as the kernel has it: what processes see of it, and what a power cut leaves of it."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random
from typing import Final

import attrs

SECTOR: Final = 512
_BIT: Final = 0x40


@attrs.define(eq=False)
class Inode:
    """`content` is what is read, `durable` what was there at the last sync that succeeded."""

    content: bytearray = attrs.Factory(bytearray)
    durable: bytes = b""
    damaged: int | None = None
    """Where a bit was flipped."""
    _sizes: list[int] = attrs.Factory(list)
    """Lengths that the file had since the last sync."""

    def write(self, at: int, data: bytes) -> None:
        if self.damaged is not None and at <= self.damaged < at + len(data):
            self.damaged = None
        self.content[at : at + len(data)] = data
        self._sizes.append(len(self.content))

    def truncate(self, size: int) -> None:
        if self.damaged is not None and size <= self.damaged:
            self.damaged = None
        self.content[size:] = bytes(max(0, size - len(self.content)))
        self._sizes.append(size)

    def sync(self) -> None:
        self.durable = bytes(self.content)
        self._sizes.clear()

    def damage(self, at: int) -> None:
        """Flip a bit of what is on the disk, and of what is read."""
        self.damaged = at
        self._flip(at)

    def mend(self) -> None:
        """Undo it, unless something else was written there."""
        at, self.damaged = self.damaged, None
        if at is not None:
            self._flip(at)

    def _flip(self, at: int) -> None:
        durable = bytearray(self.durable)
        for data in (self.content, durable):
            if at < len(data):
                data[at] ^= _BIT
        self.durable = bytes(durable)

    @property
    def dirty(self) -> bool:
        return bool(self._sizes)

    def copy(self) -> Inode:
        return Inode(bytearray(self.content), self.durable, None, list(self._sizes))

    def after_power_cut(self, rng: Random) -> Inode:
        """Of each sector that was written since the last sync, the old or the new content.

        The length is one that the file had since, or one between two of them.
        """
        if not self.dirty:
            return Inode(bytearray(self.durable), self.durable)
        sizes = sorted({len(self.durable), *self._sizes})
        size = rng.choice(sizes) if rng.random() < 0.7 else rng.randint(sizes[0], sizes[-1])
        kept = bytearray(size)
        share = rng.choice((0.0, 0.5, 0.9, 1.0))
        for at in range(0, size, SECTOR):
            end = min(size, at + SECTOR)
            source = self.content if rng.random() < share else self.durable
            part = bytes(source[at:end])
            kept[at : at + len(part)] = part
        return Inode(kept, bytes(kept))


@attrs.frozen
class Entry:
    """A change of a directory: `name` becomes `inode`, or leaves; with `new` it is renamed."""

    name: str
    inode: Inode | None = None
    new: str | None = None

    def apply(self, names: dict[str, Inode]) -> None:
        """What is missing because another change was lost is passed over."""
        if self.inode is not None:
            names[self.name] = self.inode
        elif self.name in names:
            inode = names.pop(self.name)
            if self.new is not None:
                names[self.new] = inode


def surviving(durable: dict[str, Inode], changes: Iterable[Entry], rng: Random) -> dict[str, Inode]:
    """What a power cut leaves of a directory: any of the changes since its last sync."""
    names = dict(durable)
    share = rng.choice((0.0, 0.5, 1.0))
    for change in changes:
        if rng.random() < share:
            change.apply(names)
    return names
