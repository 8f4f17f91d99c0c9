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

import attrs

from blipmq.errors import LogError
from blipmq.wal.disk import DirectoryLocked, Disk, File
from blipmq.wal.index import LOG_ENTRIES_MAX
from blipmq.wal.next_segment import NextSegment
from blipmq.wal.reading import LogReader
from blipmq.wal.record import (
    Bytes,
    Checkpoint,
    Continued,
    Fact,
    Moved,
    RunRecord,
    Settled,
    Synced,
    encode,
    encode_settled,
    run_in,
    segment_header,
)
from blipmq.wal.recovery import Recovery
from blipmq.wal.reserve import NO_SPACE, Reserve
from blipmq.wal.segment import Segment, SegmentReader, segment_name

_NO_ROOM = frozenset({errno.EFBIG, errno.EMFILE, errno.ENFILE})


class NoRoom(LogError):
    """The disk, the quota or a limit on files is full. Nothing was appended; try again later."""


class NoSpace(NoRoom):
    """It is the disk or a quota that is full, so that giving up the reserve makes room."""


class UnusablePath(LogError):
    """The directory of the log cannot be opened or made."""


@attrs.frozen(eq=False)
class _Appending:
    """What is to be written at `offset`, and the runs in it with where their records begin.

    `synced` is said along with the rest.
    """

    offset: int
    synced: Synced | None
    buffers: list[Bytes]
    records: int
    runs: list[tuple[RunRecord, int]]


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
    _file: File | None = None
    _current_salt: int = 0
    _prepared: bool = False
    """Whether the last segment began in a file of zeros."""
    _dirty: bool = False
    _failed: bool = False
    """Whether an fsync failed: then it is not tried again."""
    _head_bytes: int = 0
    """Where the checkpoint of the last segment ends."""
    _synced: Synced | None = None
    """How much of the last segment is known to be on the disk, and is not said in the log yet."""
    _failed_write: tuple[int, OSError] | None = None
    """The size before a write of `append_at_once` that failed, and how it did."""

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
        if self._next.ready and not self._prepared:
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
        if self._file is not None:
            if self._failed:
                # What it has may be lost, and the next segment is not to be there without it.
                raise LogError("an fsync failed before")
            self._undo_failed_write(self._file)
            self.sync()
        kept = [s for s in self._segments if _stays(s, wanted_from, retained_from_ms)]
        checkpoint = attrs.evolve(
            checkpoint,
            segments=tuple(s.sequence for s in kept),
            salts=tuple(s.salt for s in kept),
        )
        sequence = self._segments[-1].sequence + 1 if self._segments else 1
        salt = self.salt()
        head = [segment_header(sequence, salt), *encode(checkpoint, next_number, salt)]
        prepared = self._next.ready
        file = self._begin_somehow(segment_name(sequence), head)
        if self._segments and self._segments[-1] in kept:
            try:
                self._continue(Continued(sequence, salt), next_number)
            except LogError:
                file.close()
                raise
        if self._file is not None:
            self._close(self._file)
        self._file, self._current_salt, self._dirty = file, salt, False
        self._synced, self._head_bytes = None, file.size
        self._prepared, self._next.wanted = prepared, not self._next.ready
        removed = [segment for segment in self._segments if segment not in kept]
        self._segments = [*kept, Segment(sequence, file.size, salt)]
        self._bound_indexes()
        self._count(1, file.size)
        for segment in removed:
            try:
                self.disk.remove(segment.name)
            except OSError as error:
                raise LogError(f"{self.disk.directory / segment.name}: {error.strerror}") from None
        if self.reserve is not None:
            self.reserve.fill()

    def _continue(self, fact: Continued, next_number: int) -> None:
        """Have the last segment name the next one, which is on the disk; without room it does not.

        Raises LogError.
        """
        segment = self._segments[-1]
        record = encode(fact, next_number, segment.salt)
        try:
            file = self._file or self.disk.open(segment.name)
        except OSError as error:
            raise LogError(f"{self.disk.directory / segment.name}: {error.strerror}") from None
        try:
            size = file.size
            with suppress(NoRoom):
                self._write(file, record)
                self._sync(file)
                segment.size = file.size
                self._count(1, file.size - size)
        finally:
            if self._file is None:
                self._close(file)

    def worth_rolling(
        self, wanted_from: Callable[[bytes], int | None], retained_from_ms: int | None = None
    ) -> bool:
        """Whether `roll` would give back clearly more space than it takes."""
        if self._next.ready:
            return True
        freed = sum(
            segment.size
            for segment in self._segments
            if not _stays(segment, wanted_from, retained_from_ms)
        )
        return freed > 2 * self._head_bytes

    def settled_bytes(
        self, wanted_from: Callable[[bytes], int | None], retained_from_ms: int | None = None
    ) -> int:
        """What `roll` would remove of the segments before the last one."""
        return sum(
            segment.size
            for segment in self._segments[:-1]
            if not _stays(segment, wanted_from, retained_from_ms)
        )

    def _begin_somehow(self, name: str, head: Sequence[Bytes]) -> File:
        """As `_begin`; on a full disk in the space of the reserve."""
        while True:
            try:
                return self._begin(name, head)
            except NoSpace:
                if not self._give(sum(map(len, head))):
                    raise

    def _give(self, needed: int) -> bool:
        """Whether something of the reserve was given up, so that a write may be tried again."""
        return self.reserve is not None and self.reserve.give(needed)

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
            raise self._error(error) from None

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
        file = self._file
        assert file is not None
        appending = self._begin_append(file, facts, next_number, time_ms)
        if appending.runs:
            if self.reserve is not None and not self.reserve.fill():
                self._undo_failed_write(file)
                raise NoSpace(os.strerror(errno.ENOSPC))
            self._write(file, appending.buffers)
        else:
            self._write_somehow(file, appending.buffers)
        self._end_append(file, appending)

    def append_at_once(self, facts: Sequence[Fact], next_number: int, time_ms: int) -> bool:
        """As `append`, but it makes one kind of call alone: to write at the end of the file.

        False, with nothing appended, when there is more to do: then call `append` with the same
        facts before anything else, which does it or raises.
        """
        file = self._file
        assert file is not None
        if self.reserve is not None and not self.reserve.whole:
            return False
        appending = self._begin_append(file, facts, next_number, time_ms)
        try:
            file.append(appending.buffers)
        except OSError as error:
            self._failed_write = (appending.offset, error)
            return False
        self._end_append(file, appending)
        return True

    def _begin_append(
        self, file: File, facts: Sequence[Fact], next_number: int, time_ms: int
    ) -> _Appending:
        synced = self._synced
        if synced is not None:
            facts = [synced, *facts]
        offset = file.size if self._failed_write is None else self._failed_write[0]
        return _Appending(offset, synced, *self._encode(facts, next_number, time_ms))

    def _end_append(self, file: File, appending: _Appending) -> None:
        segment, size = self._segments[-1], appending.offset
        self._dirty = True
        if self._synced is appending.synced:
            self._synced = None
        # What a reader may see by the size it must find by the index.
        for run, offset in appending.runs:
            segment.note(run, size + offset)
        segment.size = file.size
        self._count(appending.records, file.size - size)

    def _write(self, file: File, buffers: Sequence[Bytes]) -> None:
        """Write all or nothing."""
        failed, self._failed_write = self._failed_write, None
        size = file.size
        try:
            if failed is not None:
                size, error = failed
                raise error
            file.append(buffers)
        except OSError as error:
            self._cut(file, size)
            raise self._error(error) from None

    def _undo_failed_write(self, file: File) -> None:
        failed, self._failed_write = self._failed_write, None
        if failed is not None:
            self._cut(file, failed[0])

    def _cut(self, file: File, size: int) -> None:
        try:
            file.truncate(size)
        except OSError as error:
            name = self._segments[-1].name
            raise LogError(f"{self.disk.directory / name}: {error}") from None

    def _write_somehow(self, file: File, buffers: Sequence[Bytes]) -> None:
        """As `_write`; on a full disk in the space of the reserve."""
        while True:
            try:
                return self._write(file, buffers)
            except NoSpace:
                if not self._give(sum(map(len, buffers))):
                    raise

    def _encode(
        self, facts: Sequence[Fact], next_number: int, time_ms: int
    ) -> tuple[list[Bytes], int, list[tuple[RunRecord, int]]]:
        """The buffers, the number of records, and the runs with where their records begin."""
        buffers: list[Bytes] = []
        runs: list[tuple[RunRecord, int]] = []
        settled: list[Settled] = []
        records = size = 0
        salt = self._current_salt
        for fact in facts:
            if isinstance(fact, Settled):
                settled.append(fact)
                continue
            if settled:
                record = encode_settled(settled, next_number, salt)
                buffers += record
                settled, records, size = [], records + 1, size + sum(map(len, record))
            fact = _at(fact, time_ms)
            run = run_in(fact)
            if run is not None:
                runs.append((run, size))
            record = encode(fact, next_number, salt)
            buffers += record
            records, size = records + 1, size + sum(map(len, record))
        if settled:
            buffers += encode_settled(settled, next_number, salt)
            records += 1
        return buffers, records, runs

    def _count(self, records: int, size: int) -> None:
        self.appended_records += records
        self.appended_bytes += size

    def _error(self, error: OSError) -> LogError:
        text = error.strerror or str(error)
        if error.errno in NO_SPACE:
            return NoSpace(text)
        return NoRoom(text) if error.errno in _NO_ROOM else LogError(text)

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
        if self._dirty and self._file is not None and not self._failed:
            self._dirty = False
            # What a write beside this one has put at the end may be cut off again.
            size = self._segments[-1].size
            self._sync(self._file)
            self._synced = Synced(self._segments[-1].sequence, size)

    def _sync(self, file: File) -> None:
        try:
            file.sync()
        except OSError as error:
            self._failed = True
            raise LogError(f"fsync failed: {error.strerror}") from None

    def close(self) -> None:
        """Sync and give the directory back. Closing twice is fine."""
        try:
            if self._file is not None:
                self._undo_failed_write(self._file)
            self.sync()
        finally:
            file, self._file = self._file, None
            try:
                if file is not None:
                    self._close(file)
                self._next.forget()
            except OSError as error:
                raise LogError(f"{error.filename}: {error.strerror}") from None
            finally:
                self.disk.unlock()

    def _close(self, file: File) -> None:
        try:
            if file.allocated > file.size:
                file.truncate(file.size)
            file.close()
        except OSError as error:
            raise LogError(f"close failed: {error.strerror}") from None


def _at(fact: Fact, time_ms: int) -> Fact:
    """The fact with the time at which its messages are written."""
    run = run_in(fact)
    if run is None:
        return fact
    run = RunRecord(run.topic, run.first, run.count, run.data, time_ms)
    return attrs.evolve(fact, run=run) if isinstance(fact, Moved) else run


def _stays(
    segment: Segment, wanted_from: Callable[[bytes], int | None], retained_from_ms: int | None
) -> bool:
    if retained_from_ms is not None and segment.newest_ms >= retained_from_ms:
        return True
    return _wanted(segment, wanted_from)


def _wanted(segment: Segment, wanted_from: Callable[[bytes], int | None]) -> bool:
    for topic, last in segment.topics.items():
        first = wanted_from(topic)
        if first is not None and first <= last:
            return True
    return False
