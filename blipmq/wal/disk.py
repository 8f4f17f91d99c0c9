"""The few calls that touch the disk. Tests replace this object to make disks fail.

Every method blocks and raises OSError as the operating system does.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
from collections.abc import Sequence
from pathlib import Path

_IOV_MAX = 1024
_PIECE_BYTES = 1 << 16


class DirectoryLocked(Exception):
    """Another process holds the log. `holder` is its process id, if it could be read."""

    def __init__(self, holder: str) -> None:
        super().__init__(holder)
        self.holder = holder


class File:
    """A segment that is open for appending: `size` is what is in it, behind which there are zeros.

    The file has `allocated` bytes; into zeros that were written before a sync is quicker.
    """

    def __init__(self, fd: int, size: int, allocated: int = 0) -> None:
        self._fd = fd
        self.size = size
        self.allocated = max(size, allocated)

    def append(self, buffers: Sequence[bytes | bytearray | memoryview]) -> None:
        """Write all buffers at the end. After an error some of the bytes may be there."""
        pending = [buffer for buffer in buffers if len(buffer)]
        while pending:
            batch = pending[:_IOV_MAX]
            written = self._write(batch)
            self.size += written
            self.allocated = max(self.size, self.allocated)
            done = 0
            while done < len(batch) and written >= len(batch[done]):
                written -= len(batch[done])
                done += 1
            if written:
                pending[done] = memoryview(pending[done])[written:]
            del pending[:done]

    def _write(self, buffers: Sequence[bytes | bytearray | memoryview]) -> int:
        """Write at the end as much as the system takes; how many bytes that were, at least one."""
        return os.writev(self._fd, buffers)

    def truncate(self, size: int) -> None:
        os.ftruncate(self._fd, size)
        os.lseek(self._fd, size, os.SEEK_SET)
        self.size = self.allocated = size

    def sync(self) -> None:
        """Return when the data, and the size, would outlive a power cut."""
        os.fdatasync(self._fd)

    def close(self) -> None:
        os.close(self._fd)


class ReadFile:
    """A segment that is open to be read; it stays readable when it is removed."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def read_into(self, buffer: memoryview, offset: int) -> int:
        """Fill the buffer with what stands at `offset`; how many bytes there were for it."""
        filled = 0
        while filled < len(buffer):
            size = self._read(buffer[filled:], offset + filled)
            if not size:
                break
            filled += size
        return filled

    def _read(self, buffer: memoryview, offset: int) -> int:
        """Read as much as the system gives; how many bytes that were, 0 at the end."""
        return os.preadv(self._fd, [buffer], offset)

    def close(self) -> None:
        os.close(self._fd)


class Disk:
    """One directory. Names are file names in it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._lock: int | None = None

    def lock(self) -> None:
        """Make the directory if need be and take it for this process, until it ends or `unlock`.

        Raises DirectoryLocked when another process has it.
        """
        if not self.directory.is_dir():
            self.directory.mkdir(parents=True)
            _sync_directory(self.directory.parent)
        fd = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(fd, 32, 0).decode("ascii", "replace").strip()
            os.close(fd)
            raise DirectoryLocked(holder) from None
        os.ftruncate(fd, 0)
        os.pwrite(fd, b"%d\n" % os.getpid(), 0)
        self._lock = fd

    def unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def names(self) -> list[str]:
        return sorted(path.name for path in self.directory.iterdir())

    def create(self, name: str) -> File:
        """A new, empty file that nobody else has made."""
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        return File(os.open(self.directory / name, flags, 0o644), 0)

    def open(self, name: str) -> File:
        """An existing file, to append to."""
        fd = os.open(self.directory / name, os.O_RDWR | os.O_CLOEXEC)
        return File(fd, os.lseek(fd, 0, os.SEEK_END))

    def open_zeros(self, name: str) -> File:
        """An existing file that holds nothing but zeros, to be written from its beginning."""
        fd = os.open(self.directory / name, os.O_RDWR | os.O_CLOEXEC)
        return File(fd, 0, os.fstat(fd).st_size)

    def read(self, name: str) -> bytes | mmap.mmap:
        """The whole file, without having it in memory."""
        fd = os.open(self.directory / name, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if os.fstat(fd).st_size == 0:
                return b""
            return mmap.mmap(fd, 0, prot=mmap.PROT_READ)
        finally:
            os.close(fd)

    def open_to_read(self, name: str) -> ReadFile:
        """An existing file, to be read in part."""
        return ReadFile(os.open(self.directory / name, os.O_RDONLY | os.O_CLOEXEC))

    def size(self, name: str) -> int:
        """Bytes of the file."""
        return (self.directory / name).stat().st_size

    def free(self) -> int:
        """Bytes that this process may still write to the disk, about."""
        found = os.statvfs(self.directory)
        return found.f_bavail * found.f_frsize

    def allocate(self, name: str, size: int) -> None:
        """Make a file this long, with blocks of its own; what it has already stays as it is.

        After an error it may be longer than it was.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        fd = os.open(self.directory / name, flags, 0o644)
        try:
            start = os.fstat(fd).st_size
            try:
                os.posix_fallocate(fd, start, size - start)
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                    raise
                for at in range(start, size, _PIECE_BYTES):
                    os.pwrite(fd, bytes(min(_PIECE_BYTES, size - at)), at)
        finally:
            os.close(fd)

    def cut(self, name: str, size: int) -> None:
        """Make a file this short, and give its blocks back."""
        os.truncate(self.directory / name, size)

    def rename(self, name: str, new: str) -> None:
        """Give a file another name, at once; it takes the place of a file that had it."""
        (self.directory / name).rename(self.directory / new)

    def remove(self, name: str) -> None:
        (self.directory / name).unlink()

    def sync_directory(self) -> None:
        """Return when created and removed names would outlive a power cut."""
        _sync_directory(self.directory)


def _sync_directory(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
