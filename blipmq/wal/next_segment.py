"""The file that the next segment begins in, written with zeros beforehand.

An fsync of what was written into such a file need not write down where the file has its blocks and
how long it is. Allocating the blocks alone does not help: they are marked as unwritten.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Final

import attrs

from blipmq.wal.disk import Disk, File

NEXT_NAME: Final = "next"
PIECE_BYTES: Final = 1 << 20
_FREE_SEGMENTS_MIN: Final = 4
"""With less room than so many segments it is left to messages."""


@attrs.define(eq=False)
class NextSegment:
    """`ready` says that the file is there, and that its zeros are on the disk.

    `wanted` says that it is not, and was not found to be impossible since the last segment began.
    """

    disk: Disk
    size: int
    ready: bool = False
    wanted: bool = True
    _file: File | None = None

    def prepare(self) -> bool:
        """Write a piece and sync it; whether there is more to do."""
        if self.wanted:
            try:
                self.wanted = self._write_piece()
            except OSError:
                # It is only to be quicker.
                self.wanted = False
                with suppress(OSError):
                    self.forget()
        return self.wanted

    def _write_piece(self) -> bool:
        if self._file is None:
            if self.disk.free() < _FREE_SEGMENTS_MIN * self.size:
                return False
            self._file = self.disk.create(NEXT_NAME)
        file = self._file
        file.append([bytes(min(PIECE_BYTES, self.size - file.size))])
        file.sync()
        if file.size < self.size:
            return True
        self._file = None
        file.close()
        self.ready = True
        return False

    def take(self, name: str) -> File | None:
        """The file under its final name, if it is ready. Raises OSError, with nothing changed."""
        if not self.ready:
            return None
        file = self.disk.open_zeros(NEXT_NAME)
        try:
            self.disk.rename(NEXT_NAME, name)
        except OSError:
            file.close()
            raise
        self.ready = False
        return file

    def forget(self) -> None:
        """Remove what is there of it, of an earlier process too. Raises OSError."""
        file, self._file, self.ready = self._file, None, False
        if file is not None:
            file.close()
        if NEXT_NAME in self.disk.names():
            self.disk.remove(NEXT_NAME)
