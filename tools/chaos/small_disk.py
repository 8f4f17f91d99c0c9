"""A place for a log that is easily filled, and can be given room again.

A file system of a few MiB in memory, where mounting is allowed. Where not, the kernel's limit on
the size of a file, set for the running daemon: to the daemon it is a full disk as well.
"""

from __future__ import annotations

import resource
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from errno import ENOSPC
from pathlib import Path
from typing import Final, Protocol

import attrs

from tools.chaos.daemon import Daemon

SIZE_BYTES: Final = 8 << 20


class SmallDisk(Protocol):
    """`directory` is where the log is to be."""

    @property
    def directory(self) -> Path: ...
    @property
    def how(self) -> str:
        """For people."""

    @property
    def outlives_restarts(self) -> bool:
        """Whether it is full for the next daemon, too."""

    def fill(self, daemon: Daemon) -> None:
        """Leave no room."""

    def make_room(self, daemon: Daemon) -> None:
        """Give all of the room back."""


@attrs.frozen
class MountedDisk:
    """A file system of its own, filled by a file beside the log."""

    mount_point: Path
    how: str = f"the log is on a file system of {SIZE_BYTES >> 20} MiB"
    outlives_restarts: bool = True

    @property
    def directory(self) -> Path:
        return self.mount_point / "log"

    @property
    def _ballast(self) -> Path:
        return self.mount_point / "ballast"

    def fill(self, daemon: Daemon) -> None:
        with self._ballast.open("ab", buffering=0) as file:
            try:
                while file.write(bytes(4096)) == 4096:
                    pass
            except OSError as error:
                if error.errno != ENOSPC:
                    raise

    def make_room(self, daemon: Daemon) -> None:
        self._ballast.unlink()


@attrs.frozen
class LimitedFiles:
    """Files of the daemon may not grow any more. Its next life knows no limit."""

    directory: Path
    how: str = "nothing can be mounted here; files of the daemon are limited in size"
    outlives_restarts: bool = False

    def fill(self, daemon: Daemon) -> None:
        self._limit(daemon, max(path.stat().st_size for path in self.directory.glob("*.wal")))

    def make_room(self, daemon: Daemon) -> None:
        self._limit(daemon, resource.RLIM_INFINITY)

    def _limit(self, daemon: Daemon, size: int) -> None:
        pid = daemon.process.pid
        _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, hard))


@contextmanager
def small_disk(directory: Path) -> Iterator[SmallDisk]:
    """The best that works here."""
    mount_point = directory / "small"
    mount_point.mkdir()
    if not _mount(mount_point):
        yield LimitedFiles(mount_point / "log")
        return
    try:
        yield MountedDisk(mount_point)
    finally:
        subprocess.run(["umount", "--lazy", mount_point], check=True)


def _mount(mount_point: Path) -> bool:
    if shutil.which("mount") is None:
        return False
    options = f"size={SIZE_BYTES},mode=700"
    command = ["mount", "-t", "tmpfs", "-o", options, "blipmq-chaos", str(mount_point)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0
