"""A disk in memory whose operations are recorded, can be replayed in part, and can be made to fail.

What was written is there at once, as it is for a process that is killed; there is no power cut.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import attrs

from blipmq.wal.disk import DirectoryLocked, Disk, File, ReadFile

Call = Literal[
    "lock",
    "names",
    "create",
    "open",
    "read",
    "append",
    "truncate",
    "sync",
    "close",
    "remove",
    "rename",
    "sync_directory",
]


@attrs.frozen
class Operation:
    """A call that changed the disk, or made it hold on to what had changed.

    `data` is what an append wrote, at `at` or at the end, or the new name; `size` what a
    truncation left.
    """

    call: Call
    name: str = ""
    data: bytes = b""
    size: int = 0
    at: int | None = None

    def apply(self, files: dict[str, bytearray]) -> None:
        match self.call:
            case "create":
                files[self.name] = bytearray()
            case "append":
                at = len(files[self.name]) if self.at is None else self.at
                files[self.name][at : at + len(self.data)] = self.data
            case "truncate":
                content = files[self.name]
                content[self.size :] = bytes(max(0, self.size - len(content)))
            case "remove":
                del files[self.name]
            case "rename":
                files[self.data.decode()] = files.pop(self.name)
            case _:
                pass


@attrs.define(eq=False)
class _Fault:
    code: int
    skip: int
    times: int
    written: int


class MemoryDisk(Disk):
    """`files` holds the content by name, `operations` all that changed it, in order.

    With a `capacity` it is full when all files together have so many bytes.
    """

    def __init__(self, directory: Path = Path("/log"), capacity: int | None = None) -> None:
        super().__init__(directory)
        self.capacity = capacity
        self.files: dict[str, bytearray] = {}
        self.operations: list[Operation] = []
        self.locked = False
        self.open_files = 0
        self._opened: list[MemoryFile] = []
        self._faults: dict[Call, list[_Fault]] = {}

    def fail(
        self, call: Call, code: int, *, skip: int = 0, times: int = 1, written: int = 0
    ) -> None:
        """After `skip` more calls let the next `times` raise OSError with this code.

        A failing append writes the first `written` bytes.
        """
        self._faults.setdefault(call, []).append(_Fault(code, skip, times, written))

    def count(self, call: Call) -> int:
        """How often this was done."""
        return sum(operation.call == call for operation in self.operations)

    def after_kill(self) -> MemoryDisk:
        """What the next process finds: the same files, and nobody who holds them."""
        disk = MemoryDisk(self.directory, self.capacity)
        disk.files = {name: bytearray(content) for name, content in self.files.items()}
        return disk

    def check(self, call: Call, name: str) -> _Fault | None:
        """The fault that this call meets, if any."""
        for fault in self._faults.get(call, ()):
            if fault.skip:
                fault.skip -= 1
                return None
            if fault.times:
                fault.times -= 1
                return fault
        return None

    def error(self, fault: _Fault, name: str) -> OSError:
        return OSError(fault.code, os.strerror(fault.code), str(self.directory / name))

    def do(self, operation: Operation) -> None:
        """Carry out, unless a fault comes first."""
        if fault := self.check(operation.call, operation.name):
            if operation.call == "append" and fault.written:
                part = attrs.evolve(operation, data=operation.data[: fault.written])
                part.apply(self.files)
                self.operations.append(part)
            raise self.error(fault, operation.name)
        room = self.free()
        if operation.call == "append" and operation.at is not None:
            room += len(self.files[operation.name]) - operation.at
        if self.capacity is not None and len(operation.data) > room:
            part = attrs.evolve(operation, data=operation.data[:room])
            part.apply(self.files)
            self.operations.append(part)
            raise self.error(_Fault(errno.ENOSPC, 0, 1, room), operation.name)
        operation.apply(self.files)
        self.operations.append(operation)

    def _touch(self, call: Call, name: str) -> None:
        if fault := self.check(call, name):
            raise self.error(fault, name)
        if name and name not in self.files:
            raise FileNotFoundError(2, os.strerror(2), str(self.directory / name))

    # As Disk

    def lock(self) -> None:
        self._touch("lock", "")
        if self.locked:
            raise DirectoryLocked("4711")
        self.locked = True

    def unlock(self) -> None:
        self.locked = False

    def names(self) -> list[str]:
        self._touch("names", "")
        return sorted(self.files)

    def create(self, name: str) -> File:
        if name in self.files:
            raise FileExistsError(17, os.strerror(17), str(self.directory / name))
        self.do(Operation("create", name))
        return MemoryFile(self, name)

    def open(self, name: str) -> File:
        self._touch("open", name)
        return MemoryFile(self, name)

    def open_zeros(self, name: str) -> File:
        self._touch("open", name)
        file = MemoryFile(self, name)
        file.size, file.allocated = 0, len(self.files[name])
        return file

    def rename(self, name: str, new: str) -> None:
        self.do(Operation("rename", name, new.encode()))
        for file in self._opened:
            file.renamed(name, new)

    def read(self, name: str) -> bytes:
        self._touch("read", name)
        return bytes(self.files[name])

    def open_to_read(self, name: str) -> ReadFile:
        self._touch("open", name)
        return MemoryReadFile(self, name)

    def size(self, name: str) -> int:
        return len(self.files[name])

    @property
    def used(self) -> int:
        """Bytes of all files."""
        return sum(map(len, self.files.values()))

    def free(self) -> int:
        """Without a capacity nothing, so that nothing is reserved of it."""
        return 0 if self.capacity is None else max(0, self.capacity - self.used)

    def allocate(self, name: str, size: int) -> None:
        if name not in self.files:
            self.do(Operation("create", name))
        self.do(Operation("append", name, bytes(size - len(self.files[name]))))

    def cut(self, name: str, size: int) -> None:
        self.do(Operation("truncate", name, size=size))

    def remove(self, name: str) -> None:
        if name not in self.files:
            raise FileNotFoundError(2, os.strerror(2), str(self.directory / name))
        self.do(Operation("remove", name))

    def sync_directory(self) -> None:
        self.do(Operation("sync_directory"))


class MemoryFile(File):
    """A file of a `MemoryDisk` that is open for appending."""

    def __init__(self, disk: MemoryDisk, name: str) -> None:
        super().__init__(-1, len(disk.files[name]))
        self._disk = disk
        self._name = name
        disk.open_files += 1
        disk._opened.append(self)

    def renamed(self, name: str, new: str) -> None:
        """The file of that name has another one now."""
        if self._name == name:
            self._name = new

    def append(self, buffers: Sequence[bytes | bytearray | memoryview]) -> None:
        data = b"".join(bytes(buffer) for buffer in buffers)
        if self.allocated > self.size:
            self._disk.do(Operation("append", self._name, data, at=self.size))
            self.size += len(data)
            self.allocated = len(self._disk.files[self._name])
            return
        try:
            self._disk.do(Operation("append", self._name, data))
        finally:
            self.size = self.allocated = len(self._disk.files[self._name])

    def truncate(self, size: int) -> None:
        self._disk.do(Operation("truncate", self._name, size=size))
        self.size = self.allocated = size

    def sync(self) -> None:
        self._disk.do(Operation("sync", self._name))

    def close(self) -> None:
        self._disk.open_files -= 1
        self._disk._opened.remove(self)
        self._disk.do(Operation("close", self._name))


class MemoryReadFile(ReadFile):
    """A file of a `MemoryDisk` that is open to be read, and stays so when it is removed."""

    def __init__(self, disk: MemoryDisk, name: str) -> None:
        super().__init__(-1)
        self._disk = disk
        self._name = name
        self._content = disk.files[name]
        disk.open_files += 1

    def read_into(self, buffer: memoryview, offset: int) -> int:
        if fault := self._disk.check("read", self._name):
            raise self._disk.error(fault, self._name)
        found = self._content[offset : offset + len(buffer)]
        buffer[: len(found)] = found
        return len(found)

    def close(self) -> None:
        self._disk.open_files -= 1


def replay(operations: Iterable[Operation]) -> MemoryDisk:
    """The disk after these operations and no others."""
    disk = MemoryDisk()
    for operation in operations:
        operation.apply(disk.files)
    return disk
