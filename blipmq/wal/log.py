"""The log: a directory of segments, of which the last one is appended to.

One thread at a time may call it, but that `sync` may run beside `append`; every method blocks.
What is appended is only as durable as the last `sync`, but outlives the process as soon as `append`
returns.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import attrs

from blipmq.errors import CorruptLog, LogError
from blipmq.wal.disk import DirectoryLocked, Disk, File
from blipmq.wal.encoding import encode
from blipmq.wal.facts import Bytes, Checkpoint, Continued, Fact, RunRecord, run_in
from blipmq.wal.index import LOG_ENTRIES_MAX
from blipmq.wal.next_segment import NextSegment
from blipmq.wal.reading import LogReader
from blipmq.wal.record import SEGMENT_HEADER_BYTES, segment_header
from blipmq.wal.record_batch import RecordBatch
from blipmq.wal.recovery import Recovery
from blipmq.wal.reserve import Reserve
from blipmq.wal.room import NoRoom, NoSpace, write_error
from blipmq.wal.segment import Segment, SegmentReader, segment_name
from blipmq.wal.tail import Tail

T = TypeVar("T")


class UnusablePath(LogError):
    """The directory of the log cannot be opened or made."""


@attrs.define(eq=False)
class Log:
    """An open log. Use: `Log.open`, `recover`, `runs`, `roll`, then `append`, `sync`, `roll`.

    `salt` gives the random number that a new segment's checksums start from. With a `reserve`
    settlements and checkpoints are written when the disk is full, too.
    """

    disk: Disk
    segment_bytes: int
    salt: Callable[[], int]
    appended_records: int = 0
    appended_bytes: int = 0
    torn_bytes: int = 0
    """Bytes of an unfinished last record that recovery cut off."""
    scanned_bytes: int = 0
    """How much of the log `runs` has read, of `total_bytes`."""
    total_bytes: int = 0
    reserve: Reserve | None = None
    _next: NextSegment = attrs.field(init=False)
    _segments: list[Segment] = attrs.Factory(list)
    _tail: Tail | None = None
    _head_bytes: int = 0
    """Where the checkpoint of the last segment ends."""

    def __attrs_post_init__(self) -> None:
        self._next = NextSegment(self.disk, self.segment_bytes)

    @classmethod
    def open(
        cls,
        disk: Disk,
        segment_bytes: int,
        salt: Callable[[], int],
        reserve_bytes: int | None = None,
    ) -> Log:
        """Take the directory, making it if need be.

        `reserve_bytes` is how much space is kept for a full disk, 0: none; None: what is kept is
        left as it is. Raises LogError when another process has the directory, UnusablePath when it
        cannot be opened or made.
        """
        try:
            disk.lock()
        except DirectoryLocked as error:
            text = f"{disk.directory}: in use by another process, pid {error.holder or 'unknown'}"
            raise LogError(text) from None
        except FileExistsError:
            raise UnusablePath(
                f"{disk.directory}: a file, and a log is a directory; a log of the older "
                "single-file format is imported into a new one by `blipmq wal import`"
            ) from None
        except OSError as error:
            raise UnusablePath(f"{disk.directory}: {error.strerror}") from None
        log = cls(disk, segment_bytes, salt)
        if reserve_bytes is not None:
            log.reserve = Reserve(disk, reserve_bytes)
        return log

    def recover(self) -> tuple[list[tuple[int, Fact]], int]:
        """The facts but for the runs, from the last checkpoint on, and a number above every id.

        Each fact comes with its record's id; one that moved messages comes without their frames.
        Cuts a torn tail off and removes what the last checkpoint did not want any more. Raises
        CorruptLog for everything that no crash leaves behind.
        """
        try:
            if self.reserve is not None:
                self.reserve.begin()
            self._next.forget()
            recovery = Recovery.of(self.disk)
        except OSError as error:
            raise LogError(f"{error.filename or self.disk.directory}: {error.strerror}") from None
        self._segments = [Segment(s, salt=recovery.salts[s]) for s in recovery.segments]
        self.torn_bytes, self.total_bytes = recovery.torn_bytes, recovery.bytes
        return recovery.facts, recovery.number

    def _path(self, sequence: int) -> Path:
        return self.disk.directory / segment_name(sequence)

    def runs(self) -> Iterator[RunRecord]:
        """Every run in the log, in order; its data is valid until the next one is asked for.

        Raises CorruptLog where a segment does not check, LogError when one cannot be read.
        """
        for segment in self._segments:
            reader = SegmentReader(self.disk, segment.sequence, last=False)
            before = self.scanned_bytes
            try:
                for _, fact in reader:
                    self.scanned_bytes = before + reader.end
                    run = run_in(fact)
                    if run is not None:
                        segment.note(run, reader.end)
                        yield run
            except OSError as error:
                raise LogError(f"{self._path(segment.sequence)}: {error.strerror}") from None
            if reader.end == SEGMENT_HEADER_BYTES:
                where = f"{self._path(segment.sequence)}: offset {reader.end}"
                raise CorruptLog(f"{where}: there is no checkpoint")
            segment.size = reader.end
            self.scanned_bytes = before + reader.end
            self._bound_indexes()

    def _bound_indexes(self) -> None:
        """Make the largest coarser until all together are small enough, if they can be."""
        while sum(segment.index.entries for segment in self._segments) > LOG_ENTRIES_MAX:
            those = [segment for segment in self._segments if segment.index.can_be_coarser]
            if not those:
                return
            largest = max(those, key=lambda segment: segment.index.entries)
            largest.index = largest.index.coarser(largest.index.entries // 2)

    @property
    def full(self) -> bool:
        """Whether it is time to `roll`: the segment has its size, or a quicker file is ready."""
        if not self._segments:
            return False
        if self._next.ready and not (self._tail is not None and self._tail.prepared):
            return True
        # A checkpoint may be long; a segment holds that much besides.
        return self._segments[-1].size - self._head_bytes >= self.segment_bytes

    @property
    def segments(self) -> int:
        return len(self._segments)

    @property
    def topics(self) -> set[bytes]:
        """The topics that have messages in the log."""
        return {topic for segment in self._segments for topic in segment.topics}

    def roll(
        self,
        checkpoint: Checkpoint,
        next_number: int,
        wanted_from: Callable[[bytes], int | None],
        retained_from_ms: int | None = None,
    ) -> None:
        """Begin a new segment with this checkpoint, and remove the segments that nobody wants.

        `wanted_from(topic)` is the lowest number of the topic that is still wanted, or None. With
        `retained_from_ms` segments with runs of that time or later stay as well. Raises NoRoom,
        with nothing changed, or LogError.
        """
        if self._tail is not None:
            if self._tail.failed:
                # What it has may be lost, and the next segment is not to be there without it.
                raise LogError("an fsync failed before")
            self._tail.undo_failed_write()
            self.sync()
        kept = [s for s in self._segments if s.stays(wanted_from, retained_from_ms)]
        checkpoint = attrs.evolve(
            checkpoint,
            segments=tuple(s.sequence for s in kept),
            salts=tuple(s.salt for s in kept),
        )
        sequence = self._segments[-1].sequence + 1 if self._segments else 1
        salt = self.salt()
        head = [segment_header(sequence, salt), *encode(checkpoint, next_number, salt)]
        prepared = self._next.ready
        name = segment_name(sequence)
        file = self._in_reserve(head, lambda: self._begin(name, head))
        if self._segments and self._segments[-1] in kept:
            try:
                self._continue(Continued(sequence, salt), next_number)
            except LogError:
                file.close()
                raise
        if self._tail is not None:
            self._tail.close()
        segment = Segment(sequence, file.size, salt)
        self._tail = Tail(self._path(sequence), segment, file, prepared)
        self._head_bytes, self._next.wanted = file.size, not self._next.ready
        removed = [segment for segment in self._segments if segment not in kept]
        self._segments = [*kept, segment]
        self._bound_indexes()
        self._count(1, file.size)
        for segment in removed:
            try:
                self.disk.remove(segment.name)
            except OSError as error:
                raise LogError(f"{self._path(segment.sequence)}: {error.strerror}") from None
        if self.reserve is not None:
            self.reserve.fill()

    def _continue(self, fact: Continued, next_number: int) -> None:
        """Have the last segment name the next one, which is on the disk; without room it does not.

        Raises LogError.
        """
        tail = self._tail or self._reopened(self._segments[-1])
        try:
            with suppress(NoRoom):
                batch = RecordBatch.of([fact], next_number, 0, tail.segment.salt)
                size = tail.write(batch)
                tail.sync()
                self._count(batch.records, size)
        finally:
            if tail is not self._tail:
                tail.close()

    def _reopened(self, segment: Segment) -> Tail:
        path = self._path(segment.sequence)
        try:
            return Tail(path, segment, self.disk.open(segment.name))
        except OSError as error:
            raise LogError(f"{path}: {error.strerror}") from None

    def worth_rolling(
        self, wanted_from: Callable[[bytes], int | None], retained_from_ms: int | None = None
    ) -> bool:
        """Whether `roll` would give back clearly more space than it takes."""
        if self._next.ready:
            return True
        freed = sum(
            segment.size
            for segment in self._segments
            if not segment.stays(wanted_from, retained_from_ms)
        )
        return freed > 2 * self._head_bytes

    def settled_bytes(
        self, wanted_from: Callable[[bytes], int | None], retained_from_ms: int | None = None
    ) -> int:
        """What `roll` would remove of the segments before the last one."""
        return sum(
            segment.size
            for segment in self._segments[:-1]
            if not segment.stays(wanted_from, retained_from_ms)
        )

    def _in_reserve(self, buffers: Sequence[Bytes], write: Callable[[], T]) -> T:
        """What `write` returns, which writes these; on a full disk in the space of the reserve."""
        while True:
            try:
                return write()
            except NoSpace:
                if self.reserve is None or not self.reserve.give(sum(map(len, buffers))):
                    raise

    def _begin(self, name: str, head: Sequence[Bytes]) -> File:
        file = None
        try:
            file = self._next.take(name) or self.disk.create(name)
            file.append(head)
            file.sync()
            self.disk.sync_directory()
            return file
        except OSError as error:
            if file is not None:
                self._take_back(file, name)
            raise write_error(error) from None

    def _take_back(self, file: File, name: str) -> None:
        """Remove a segment that could not be begun: its checkpoint must not outlive this moment."""
        try:
            file.close()
            self.disk.remove(name)
        except OSError as error:
            raise LogError(f"{self.disk.directory / name}: {error.strerror}") from None

    def append(self, facts: Sequence[Fact], next_number: int, time_ms: int) -> None:
        """Write the facts with one call, in order.

        `time_ms` is the time of day, kept with the runs. Raises NoRoom, with nothing appended, or
        LogError, after which the log must not be used any more. Facts without messages are
        written on a full disk, too, as long as there is a reserve; with messages there is no room
        before the reserve is whole again.
        """
        tail = self._tail
        assert tail is not None
        batch = tail.batch(facts, next_number, time_ms)
        if not batch.runs:
            size = self._in_reserve(batch.buffers, lambda: tail.write(batch))
        elif self.reserve is None or self.reserve.fill():
            size = tail.write(batch)
        else:
            tail.undo_failed_write()
            raise NoSpace(os.strerror(errno.ENOSPC))
        self._count(batch.records, size)

    def append_at_once(self, facts: Sequence[Fact], next_number: int, time_ms: int) -> bool:
        """As `append`, but it makes one kind of call alone: to write at the end of the file.

        False, with nothing appended, when there is more to do: then call `append` with the same
        facts before anything else, which does it or raises.
        """
        tail = self._tail
        assert tail is not None
        if self.reserve is not None and not self.reserve.whole:
            return False
        batch = tail.batch(facts, next_number, time_ms)
        size = tail.write_at_once(batch)
        if size is None:
            return False
        self._count(batch.records, size)
        return True

    def _count(self, records: int, size: int) -> None:
        self.appended_records += records
        self.appended_bytes += size

    @property
    def wants_next(self) -> bool:
        """Whether there is something for `prepare` to do."""
        return self._next.wanted

    def prepare(self) -> bool:
        """Write a piece of the file that the next segment begins in; whether there is more to do.

        May run beside all other methods but `close`. A disk on which it fails, or which has little
        room, goes without it.
        """
        return self._next.prepare()

    def reader(self) -> LogReader:
        """A reader of messages; each thread that reads needs one of its own."""
        return LogReader(self.disk, lambda: self._segments)

    def sync(self) -> None:
        """Return when all that was appended before would outlive a power cut.

        Raises LogError: what was not synced may be lost, and a second try would hide that.
        """
        if self._tail is not None:
            self._tail.sync()

    def close(self) -> None:
        """Sync and give the directory back. Closing twice is fine."""
        try:
            if self._tail is not None:
                self._tail.undo_failed_write()
            self.sync()
        finally:
            tail, self._tail = self._tail, None
            try:
                if tail is not None:
                    tail.close()
                self._next.forget()
            except OSError as error:
                raise LogError(f"{error.filename}: {error.strerror}") from None
            finally:
                self.disk.unlock()
