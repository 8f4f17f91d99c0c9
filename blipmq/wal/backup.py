"""A consistent copy of a log, of a running daemon's too, without the daemon's help.

A segment is only ever appended to, until the next one begins; then it stays as it is until it is
removed, because a newer checkpoint does not want it. So a segment with its checkpoint, and the
segments that the checkpoint wants, are all that the log held when the segment was copied. When
one of them is gone there is a newer checkpoint to copy by, and the copies made so far stay good.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import attrs

from blipmq.errors import CorruptLog, LogError
from blipmq.wal.continuation import Successor
from blipmq.wal.disk import Disk
from blipmq.wal.facts import Checkpoint, run_in
from blipmq.wal.salvage import MISSING, Damage, LiveDisk, SalvageReader
from blipmq.wal.scan import NO_CHECKPOINT, NoLog, Progress, silent
from blipmq.wal.segment import segment_name, sequences

CHUNK_BYTES: Final = 1 << 20
_TRIES: Final = 100


@attrs.frozen
class BackupSummary:
    """What was copied. `messages` are those in the log, settled ones included."""

    segments: tuple[int, ...]
    bytes: int
    messages: int


def backup(source: Path, destination: Path, progress: Progress = silent) -> BackupSummary:
    """Copy the log to `destination`, which must be empty or not exist.

    The copy is checked and synced, and holds everything that was committed before. Raises NoLog,
    CorruptLog when the log is damaged, and LogError; then nothing is left at the destination.
    """
    _make_empty(destination)
    copying = _Backup(LiveDisk(source), LiveDisk(destination), progress)
    try:
        return copying.run()
    except BaseException as error:
        for name in copying.copy.names():
            copying.copy.remove(name)
        if isinstance(error, OSError):
            raise LogError(f"{error.filename or destination}: {error.strerror}") from None
        raise


def _make_empty(destination: Path) -> None:
    try:
        destination.mkdir(parents=True, exist_ok=True)
        if any(destination.iterdir()):
            raise LogError(f"{destination}: the directory is not empty; choose another one")
    except OSError as error:
        raise LogError(f"{destination}: {error.strerror}; choose another place") from None


@attrs.define(eq=False)
class _Backup:
    log: Disk
    copy: Disk
    progress: Progress
    newest: int = 0
    messages: int = 0

    def run(self) -> BackupSummary:
        doubt = ""
        for _ in range(_TRIES):
            try:
                return self._copy()
            except FileNotFoundError as error:
                if sequences(self.log.names())[-1:] == [self.newest]:
                    raise CorruptLog(f"{error.filename}: {MISSING}") from None
                # There is a newer checkpoint, which did not want it.
            except CorruptLog as error:
                # A write that found no room is cut off again, perhaps while it was copied.
                if str(error) == doubt:
                    raise
                doubt = str(error)
        text = "the log changes faster than it can be copied; try again"
        raise LogError(f"{self.log.directory}: {text}")

    def _copy(self) -> BackupSummary:
        """Raises FileNotFoundError when a segment has gone meanwhile."""
        self.messages = 0
        last, checkpoint = self._copy_last()
        for sequence in checkpoint.segments:
            name = segment_name(sequence)
            source, target = self.log.directory / name, self.copy.directory / name
            if not target.exists() or target.stat().st_size != source.stat().st_size:
                copy_file(source, target, self.progress)
            successor = Successor.of(self.copy, last) if sequence == last - 1 else None
            self._check(sequence, last=False, successor=successor)
        segments = (*checkpoint.segments, last)
        names = [segment_name(sequence) for sequence in segments]
        for name in self.copy.names():
            if name not in names:
                self.copy.remove(name)
        self.copy.sync_directory()
        sync_directory(self.copy.directory.parent)
        size = sum((self.copy.directory / name).stat().st_size for name in names)
        return BackupSummary(segments, size, self.messages)

    def _copy_last(self) -> tuple[int, Checkpoint]:
        """Copy the newest segment that has its checkpoint."""
        try:
            found = sequences(self.log.names())
        except OSError as error:
            raise NoLog(f"{self.log.directory}: {error.strerror}") from None
        if not found:
            raise NoLog(f"{self.log.directory}: there is no log in this directory")
        self.newest = found[-1]
        # The newest may be just begun, without its checkpoint yet: the one before is still used.
        for sequence in (self.newest, self.newest - 1):
            if not sequence:
                break
            name = segment_name(sequence)
            copy_file(self.log.directory / name, self.copy.directory / name, self.progress)
            checkpoint = self._check(sequence, last=True)
            if checkpoint is not None:
                return sequence, checkpoint
        raise CorruptLog(f"{self.log.directory / segment_name(self.newest)}: {NO_CHECKPOINT}")

    def _check(
        self, sequence: int, *, last: bool, successor: Successor | None = None
    ) -> Checkpoint | None:
        """Count the messages of a copied segment; its checkpoint, if any.

        Cuts off a torn tail, and the zeros that a daemon has not written over yet. When the daemon
        went on to another segment meanwhile, the last one of the copy does not say so.

        Raises CorruptLog when it is damaged.
        """
        path = self.log.directory / segment_name(sequence)
        reader = SalvageReader(self.copy, sequence, last, successor)
        first = None
        for item in reader:
            if isinstance(item, Damage):
                raise CorruptLog(f"{path}: offset {item.start}: {item.reason}")
            _, fact = item
            first = first or fact
            run = run_in(fact)
            self.messages += 0 if run is None else run.count
        end = reader.kept_end
        if last and reader.continued_at is not None:
            end = reader.continued_at
        if end < reader.size:
            with (self.copy.directory / path.name).open("rb+") as file:
                file.truncate(end)
                os.fsync(file.fileno())
        if first is not None and not isinstance(first, Checkpoint):
            raise CorruptLog(f"{path}: offset 0: {NO_CHECKPOINT}")
        return first


def copy_file(source: Path, target: Path, progress: Progress = silent) -> None:
    """Copy what a file holds, over what was at the target, and sync it."""
    with source.open("rb") as reader, target.open("wb") as writer:
        while data := reader.read(CHUNK_BYTES):
            writer.write(data)
            progress(len(data))
        writer.flush()
        os.fsync(writer.fileno())


def sync_directory(directory: Path) -> None:
    """Return when the names in it would outlive a power cut."""
    Disk(directory).sync_directory()
