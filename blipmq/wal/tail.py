"""The end of the log: the file of its last segment, to which records are appended.

One thread at a time may call it, but that `sync` may run beside a write.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import attrs

from blipmq.errors import LogError
from blipmq.wal.disk import File
from blipmq.wal.facts import Fact, Synced
from blipmq.wal.record_batch import RecordBatch
from blipmq.wal.room import write_error
from blipmq.wal.segment import Segment


@attrs.define(eq=False)
class Tail:
    """`segment` is told what is appended; `path` is its file, for errors.

    `prepared`: whether it began in a file of zeros.
    """

    path: Path
    segment: Segment
    _file: File
    prepared: bool = False
    failed: bool = False
    """Whether an fsync failed: then it is not tried again."""
    _dirty: bool = False
    _synced: Synced | None = None
    """How much of the segment is known to be on the disk, and is not said in the log yet."""
    _failed_write: tuple[int, OSError] | None = None
    """The size before a `write_at_once` that failed, and how it did."""

    def batch(self, facts: Sequence[Fact], next_number: int, time_ms: int) -> RecordBatch:
        """The facts as they are to be written here, with how far the segment is synced."""
        return RecordBatch.of(facts, next_number, time_ms, self.segment.salt, self._synced)

    def write(self, batch: RecordBatch) -> int:
        """Append it all or nothing; how many bytes. Raises NoRoom, with nothing appended, or
        LogError.
        """
        failed, self._failed_write = self._failed_write, None
        size = self._file.size
        try:
            if failed is not None:
                size, error = failed
                raise error
            self._file.append(batch.buffers)
        except OSError as error:
            self._cut(size)
            raise write_error(error) from None
        return self._wrote(batch, size)

    def write_at_once(self, batch: RecordBatch) -> int | None:
        """As `write`, but nothing is done besides; None when it failed.

        Then `write`, or `undo_failed_write`, is to come next: it raises what this did not, or cuts
        off what this left.
        """
        size = self._file.size
        try:
            self._file.append(batch.buffers)
        except OSError as error:
            self._failed_write = size, error
            return None
        return self._wrote(batch, size)

    def _wrote(self, batch: RecordBatch, size: int) -> int:
        self._dirty = True
        if self._synced is batch.synced:
            self._synced = None
        # What a reader may see by the size it must find by the index.
        for run, offset in batch.runs:
            self.segment.note(run, size + offset)
        self.segment.size = self._file.size
        return self._file.size - size

    def undo_failed_write(self) -> None:
        """Cut off what a `write_at_once` left that failed, if one did. Raises LogError."""
        failed, self._failed_write = self._failed_write, None
        if failed is not None:
            self._cut(failed[0])

    def _cut(self, size: int) -> None:
        try:
            self._file.truncate(size)
        except OSError as error:
            raise LogError(f"{self.path}: {error}") from None

    def sync(self) -> None:
        """Return when all that was appended before would outlive a power cut.

        Raises LogError: what was not synced may be lost, and a second try would hide that.
        """
        if not self._dirty or self.failed:
            return
        self._dirty = False
        # What a write beside this one has put at the end may be cut off again.
        size = self.segment.size
        try:
            self._file.sync()
        except OSError as error:
            self.failed = True
            raise LogError(f"fsync failed: {error.strerror}") from None
        self._synced = Synced(self.segment.sequence, size)

    def close(self) -> None:
        """Cut off the zeros behind the last record, and close the file. Raises LogError."""
        try:
            if self._file.allocated > self._file.size:
                self._file.truncate(self._file.size)
            self._file.close()
        except OSError as error:
            raise LogError(f"close failed: {error.strerror}") from None
