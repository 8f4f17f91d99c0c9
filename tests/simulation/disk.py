"""A disk in memory behind a page cache: what was written is seen at once, and kept once synced.

It stands in for `blipmq.wal.disk.Disk`. Faults come from a `Weather`, which outlives the disk; so
does what a crash leaves, on another `SimulatedDisk`.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Final

import attrs
import trio

from blipmq.wal.disk import DirectoryLocked, Disk, File, ReadFile
from tests.simulation.inode import Entry, Inode, surviving

DIRECTORY: Final = Path("/log")
_SHORT: Final = 0.1
"""How often a write takes only a part."""
_BODY: Final = re.compile(rb"m[0-9]{5}\|")


class Crashed(BaseException):
    """The process ended in the middle of a call."""


@attrs.define(eq=False)
class Weather:
    """What is wrong with the disk just now.

    `capacity` bounds the bytes of all files. `fail_write` and `fail_sync` are how many calls
    succeed before one fails with EIO, and all later writes with it; None: none does. `crash_in` is
    how many calls are carried out before the process ends in the middle of one.
    """

    capacity: int | None = None
    fail_write: int | None = None
    fail_sync: int | None = None
    crash_in: int | None = None
    on_crash: Callable[[], None] = lambda: None
    on_error: Callable[[], None] = lambda: None

    def heal(self) -> None:
        self.capacity = self.fail_write = self.fail_sync = None


def _counts_down(left: int | None) -> tuple[bool, int | None]:
    """Whether it is this call's turn, and how many are left before it."""
    if left is None:
        return False, None
    return left <= 0, left - 1


class SimulatedDisk(Disk):
    """One directory, as one process sees it."""

    def __init__(
        self, weather: Weather, rng: Random, names: dict[str, Inode] | None = None
    ) -> None:
        super().__init__(DIRECTORY)
        self.weather = weather
        self.rng = rng
        self.inodes = names or {}
        self.durable_names = dict(self.inodes)
        self.changes: list[Entry] = []
        self.calls = 0
        self.dead = False
        self.locked = False
        self.written: dict[bytes, list[tuple[Inode, int]]] = {}
        """Messages that stand in some file, with all places."""
        self.ever_written: set[bytes] = set()
        """Those that stood in one, and were not taken back, nor by a power cut."""
        self.synced: set[bytes] = set()
        """Of those the ones that a power cut would have left; nobody may want them any more."""
        self.synced_at = 0.0
        """When a sync succeeded last."""

    # What a crash leaves

    def after_kill(self) -> SimulatedDisk:
        """All that was written is there."""
        copies = {id(inode): inode.copy() for inode in self._every_inode()}
        disk = SimulatedDisk(self.weather, self.rng)
        disk.inodes = {name: copies[id(inode)] for name, inode in self.inodes.items()}
        disk.durable_names = {n: copies[id(inode)] for n, inode in self.durable_names.items()}
        disk.changes = [
            attrs.evolve(c, inode=None if c.inode is None else copies[id(c.inode)])
            for c in self.changes
        ]
        for inode in disk.inodes.values():
            disk.note(inode, 0, bytes(inode.content))
        disk.ever_written |= self.ever_written
        disk.synced = set(self.synced)
        disk.synced_at = self.synced_at
        return disk

    def after_power_cut(self) -> SimulatedDisk:
        """Only what was synced is there for certain."""
        names = surviving(self.durable_names, self.changes, self.rng)
        kept = {name: inode.after_power_cut(self.rng) for name, inode in sorted(names.items())}
        disk = SimulatedDisk(self.weather, self.rng, kept)
        for inode in kept.values():
            disk.note(inode, 0, bytes(inode.content))
        disk.synced = self.synced | disk.written.keys()
        disk.ever_written = set(disk.synced)
        return disk

    def _every_inode(self) -> list[Inode]:
        found = [*self.inodes.values(), *self.durable_names.values()]
        return found + [change.inode for change in self.changes if change.inode is not None]

    # What every call goes through

    def call(self, partly: Callable[[], None] = lambda: None) -> None:
        """May end the process, with part of the call carried out."""
        if self.dead:
            return
        self.calls += 1
        weather = self.weather
        now, weather.crash_in = _counts_down(weather.crash_in)
        if now:
            weather.crash_in = None
            partly()
            weather.on_crash()
            raise Crashed

    def error(self, code: int, name: str) -> OSError:
        return OSError(code, os.strerror(code), str(self.directory / name))

    def write(self, inode: Inode, name: str, at: int, data: bytes) -> int:
        """Write at one place; how many bytes there was room for. Raises OSError."""
        self.call(lambda: inode.write(at, data[: self.rng.randrange(len(data) + 1)]))
        weather = self.weather
        if self.dead:
            inode.write(at, data)
            return len(data)
        now, weather.fail_write = _counts_down(weather.fail_write)
        if now:
            weather.fail_write = 0
            weather.on_error()
            inode.write(at, data[: self.rng.randrange(len(data) + 1)])
            raise self.error(errno.EIO, name)
        count = len(data)
        if weather.capacity is not None:
            inside = max(0, len(inode.content) - at)
            count = min(count, inside + max(0, weather.capacity - self.used))
        if not count:
            raise self.error(errno.ENOSPC, name)
        inode.write(at, data[:count])
        return count

    def note(self, inode: Inode, at: int, data: bytes) -> None:
        """Remember which messages this has."""
        for match in _BODY.finditer(data):
            body = match[0][:-1]
            self.written.setdefault(body, []).append((inode, at + match.start()))
            self.ever_written.add(body)

    def truncate(self, inode: Inode, size: int) -> None:
        self.call()
        inode.truncate(size)
        for body, places in list(self.written.items()):
            places[:] = [(i, at) for i, at in places if i is not inode or at < size]
            if not places:
                del self.written[body]
                self.synced.discard(body)
                self.ever_written.discard(body)

    def sync(self, inode: Inode, name: str) -> None:
        self.call()
        weather = self.weather
        if not self.dead:
            now, weather.fail_sync = _counts_down(weather.fail_sync)
            if now:
                weather.fail_sync = None
                weather.on_error()
                raise self.error(errno.EIO, name)
        inode.sync()
        self.synced_at = trio.current_time()
        for body, places in self.written.items():
            if any(i is inode for i, _ in places):
                self.synced.add(body)

    def change(self, entry: Entry) -> None:
        self.call()
        entry.apply(self.inodes)
        self.changes.append(entry)

    @property
    def used(self) -> int:
        return sum(len(inode.content) for inode in self.inodes.values())

    def find(self, name: str) -> Inode:
        try:
            return self.inodes[name]
        except KeyError:
            raise self.error(errno.ENOENT, name) from None

    # As Disk

    def lock(self) -> None:
        if self.locked:
            raise DirectoryLocked("4711")
        self.locked = True

    def unlock(self) -> None:
        self.locked = False

    def names(self) -> list[str]:
        return sorted(self.inodes)

    def create(self, name: str) -> File:
        if name in self.inodes:
            raise self.error(errno.EEXIST, name)
        self.change(Entry(name, Inode()))
        return self.open(name)

    def open(self, name: str) -> File:
        inode = self.find(name)
        return SimulatedFile(self, inode, name, len(inode.content))

    def open_zeros(self, name: str) -> File:
        inode = self.find(name)
        assert not any(inode.content)
        return SimulatedFile(self, inode, name, 0)

    def read(self, name: str) -> bytes:
        return bytes(self.find(name).content)

    def open_to_read(self, name: str) -> ReadFile:
        return SimulatedReadFile(self.find(name))

    def size(self, name: str) -> int:
        return len(self.find(name).content)

    def free(self) -> int:
        capacity = self.weather.capacity
        return 1 << 22 if capacity is None else max(0, capacity - self.used)

    def allocate(self, name: str, size: int) -> None:
        if name not in self.inodes:
            self.change(Entry(name, Inode()))
        inode = self.find(name)
        while (at := len(inode.content)) < size:
            self.write(inode, name, at, bytes(size - at))

    def cut(self, name: str, size: int) -> None:
        self.truncate(self.find(name), size)

    def rename(self, name: str, new: str) -> None:
        self.find(name)
        self.change(Entry(name, new=new))

    def remove(self, name: str) -> None:
        self.find(name)
        self.change(Entry(name))

    def sync_directory(self) -> None:
        self.call()
        self.durable_names = dict(self.inodes)
        self.changes.clear()


class SimulatedFile(File):
    """A file that is open for appending; a write takes as much as it likes."""

    def __init__(self, disk: SimulatedDisk, inode: Inode, name: str, size: int) -> None:
        super().__init__(-1, size, len(inode.content))
        self._disk = disk
        self._inode = inode
        self._name = name

    def append(self, buffers: Sequence[bytes | bytearray | memoryview]) -> None:
        begin = self.size
        super().append(buffers)
        self._disk.note(self._inode, begin, b"".join(map(bytes, buffers)))

    def _write(self, buffers: Sequence[bytes | bytearray | memoryview]) -> int:
        disk, data = self._disk, b"".join(map(bytes, buffers))
        if disk.rng.random() < _SHORT:
            data = data[: disk.rng.randint(1, len(data))]
        return disk.write(self._inode, self._name, self.size, data)

    def truncate(self, size: int) -> None:
        self._disk.truncate(self._inode, size)
        self.size = self.allocated = size

    def sync(self) -> None:
        self._disk.sync(self._inode, self._name)

    def close(self) -> None:
        pass


class SimulatedReadFile(ReadFile):
    """A file that is open to be read, and stays so when it is removed."""

    def __init__(self, inode: Inode) -> None:
        super().__init__(-1)
        self._inode = inode

    def _read(self, buffer: memoryview, offset: int) -> int:
        found = self._inode.content[offset : offset + len(buffer)]
        buffer[: len(found)] = found
        return len(found)

    def close(self) -> None:
        pass
