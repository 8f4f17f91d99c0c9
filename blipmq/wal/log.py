"""The log: a directory of segments, of which the last one is appended to.

One thread at a time may call it, but that `sync` may run beside `append`; every method blocks.
What is appended is only as durable as the last `sync`, but outlives the process as soon as `append`
returns.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import attrs

from blipmq.errors import CorruptLog, LogError
from blipmq.wal.disk import DirectoryLocked, Disk, File
from blipmq.wal.record import (
    Bytes,
    Checkpoint,
    Fact,
    RunRecord,
    Settled,
    Synced,
    encode,
    encode_settled,
    segment_header,
)
from blipmq.wal.segment import Segment, SegmentReader, segment_name, sequences

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EMFILE, errno.ENFILE})


class NoRoom(LogError):
    """The disk, the quota or a limit on files is full. Nothing was appended; try again later."""


class UnusablePath(LogError):
    """The directory of the log cannot be opened or made."""


@attrs.define(eq=False)
class Log:
    """An open log. Use: `Log.open`, `recover`, `runs`, `roll`, then `append`, `sync`, `roll`.

    `salt` gives the random number that a new segment's checksums start from.
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
    _segments: list[Segment] = attrs.Factory(list)
    _file: File | None = None
    _current_salt: int = 0
    _dirty: bool = False
    _failed: bool = False
    """Whether an fsync failed: then it is not tried again."""
    _head_bytes: int = 0
    """Where the checkpoint of the last segment ends."""
    _synced: Synced | None = None
    """How much of the last segment is known to be on the disk, and is not said in the log yet."""

    @classmethod
    def open(cls, disk: Disk, segment_bytes: int, salt: Callable[[], int]) -> Log:
        """Take the directory, making it if need be.

        Raises LogError when another process has it, UnusablePath when it cannot be opened or made.
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
        return cls(disk, segment_bytes, salt)

    def recover(self) -> tuple[list[tuple[int, Fact]], int]:
        """The facts but for the runs, from the last checkpoint on, and a number above every id.

        Each fact comes with its record's id. Cuts a torn tail off and removes what the last
        checkpoint did not want any more. Raises CorruptLog for everything that no crash leaves
        behind.
        """
        try:
            return self._recover()
        except OSError as error:
            raise LogError(f"{error.filename or self.disk.directory}: {error.strerror}") from None

    def _recover(self) -> tuple[list[tuple[int, Fact]], int]:
        found = sequences(self.disk.names())
        if not found:
            return [], 0
        facts, number = self._read_last(found[-1])
        if not facts:
            # It was torn before its first checkpoint was written: nothing was ever in it, and the
            # segment before it, if there was one, was still in use.
            torn = found.pop()
            if torn > 1:
                if found[-1:] != [torn - 1]:
                    raise CorruptLog(f"{self._path(torn - 1)}: the segment is missing")
                facts, number = self._read_last(found[-1])
                if not facts:
                    raise CorruptLog(f"{self._path(found[-1])}: offset 0: there is no checkpoint")
            self.disk.remove(segment_name(torn))
        if facts:
            self._select(found, facts[0][1])
        return facts, number

    def _path(self, sequence: int) -> Path:
        return self.disk.directory / segment_name(sequence)

    def _read_last(self, sequence: int) -> tuple[list[tuple[int, Fact]], int]:
        """The facts of the last segment but for the runs, and a number above every id in it."""
        reader = SegmentReader(self.disk, sequence, last=True)
        facts: list[tuple[int, Fact]] = []
        number = 0
        for id_, fact in reader:
            if not facts and not isinstance(fact, Checkpoint):
                where = f"{self._path(sequence)}: offset {reader.end}"
                raise CorruptLog(f"{where}: the first record is not a checkpoint")
            number = max(number, id_ + (fact.count if isinstance(fact, RunRecord) else 0))
            if not isinstance(fact, RunRecord):
                facts.append((id_, fact))
        if reader.torn:
            self._cut(reader)
        return facts, number

    def _cut(self, reader: SegmentReader) -> None:
        self.torn_bytes += reader.torn
        file = self.disk.open(segment_name(reader.sequence))
        try:
            file.truncate(reader.end)
            file.sync()
        finally:
            file.close()

    def _select(self, found: list[int], checkpoint: Fact) -> None:
        """Hold the segments that are there against those that the checkpoint wants."""
        assert isinstance(checkpoint, Checkpoint)
        wanted = {*checkpoint.segments, found[-1]}
        if missing := sorted(wanted - set(found)):
            raise CorruptLog(f"{self._path(missing[0])}: the segment is missing")
        for sequence in found:
            if sequence not in wanted:
                self.disk.remove(segment_name(sequence))
        self._segments = [Segment(sequence) for sequence in sorted(wanted)]
        self.total_bytes = sum(self.disk.size(segment.name) for segment in self._segments)

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
                    if isinstance(fact, RunRecord):
                        segment.note(fact.topic, fact.first + fact.count - 1)
                        yield fact
            except OSError as error:
                raise LogError(f"{self._path(segment.sequence)}: {error.strerror}") from None
            segment.size = reader.end
            self.scanned_bytes = before + reader.end

    @property
    def full(self) -> bool:
        """Whether the segment has its size, so that it is time to `roll`."""
        if not self._segments:
            return False
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
        self, checkpoint: Checkpoint, next_number: int, wanted_from: Callable[[bytes], int | None]
    ) -> None:
        """Begin a new segment with this checkpoint, and remove the segments that nobody wants.

        `wanted_from(topic)` is the lowest number of the topic that is still wanted, or None.
        Raises NoRoom, with nothing changed, or LogError.
        """
        if self._file is not None:
            self.sync()
        kept = [segment for segment in self._segments if _wanted(segment, wanted_from)]
        checkpoint = attrs.evolve(checkpoint, segments=tuple(s.sequence for s in kept))
        sequence = self._segments[-1].sequence + 1 if self._segments else 1
        salt = self.salt()
        head = [segment_header(sequence, salt), *encode(checkpoint, next_number, salt)]
        file = self._begin(segment_name(sequence), head)
        if self._file is not None:
            self._close(self._file)
        self._file, self._current_salt, self._dirty = file, salt, False
        self._synced, self._head_bytes = None, file.size
        removed = [segment for segment in self._segments if segment not in kept]
        self._segments = [*kept, Segment(sequence, file.size)]
        self._count(1, file.size)
        for segment in removed:
            try:
                self.disk.remove(segment.name)
            except OSError as error:
                raise LogError(f"{self.disk.directory / segment.name}: {error.strerror}") from None

    def _begin(self, name: str, head: Sequence[Bytes]) -> File:
        file = None
        try:
            file = self.disk.create(name)
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
        LogError, after which the log must not be used any more.
        """
        file, segment = self._file, self._segments[-1]
        assert file is not None
        synced = self._synced
        if synced is not None:
            facts = [synced, *facts]
        buffers, records = self._encode(facts, next_number, time_ms)
        size = file.size
        try:
            file.append(buffers)
        except OSError as error:
            try:
                file.truncate(size)
            except OSError as second:
                raise LogError(f"{self.disk.directory / segment.name}: {second}") from None
            raise self._error(error) from None
        self._dirty = True
        if self._synced is synced:
            self._synced = None
        segment.size = file.size
        self._count(records, file.size - size)
        for fact in facts:
            if isinstance(fact, RunRecord):
                segment.note(fact.topic, fact.first + fact.count - 1)

    def _encode(
        self, facts: Sequence[Fact], next_number: int, time_ms: int
    ) -> tuple[list[Bytes], int]:
        buffers: list[Bytes] = []
        settled: list[Settled] = []
        records = 0
        for fact in facts:
            if isinstance(fact, Settled):
                settled.append(fact)
                continue
            if settled:
                buffers += encode_settled(settled, next_number, self._current_salt)
                settled, records = [], records + 1
            if isinstance(fact, RunRecord):
                fact = attrs.evolve(fact, time_ms=time_ms)
            buffers += encode(fact, next_number, self._current_salt)
            records += 1
        if settled:
            buffers += encode_settled(settled, next_number, self._current_salt)
            records += 1
        return buffers, records

    def _count(self, records: int, size: int) -> None:
        self.appended_records += records
        self.appended_bytes += size

    def _error(self, error: OSError) -> LogError:
        text = error.strerror or str(error)
        return NoRoom(text) if error.errno in _NO_ROOM else LogError(text)

    def sync(self) -> None:
        """Return when all that was appended before would outlive a power cut.

        Raises LogError: what was not synced may be lost, and a second try would hide that.
        """
        if self._dirty and self._file is not None and not self._failed:
            self._dirty = False
            size = self._file.size
            try:
                self._file.sync()
            except OSError as error:
                self._failed = True
                raise LogError(f"fsync failed: {error.strerror}") from None
            self._synced = Synced(self._segments[-1].sequence, size)

    def close(self) -> None:
        """Sync and give the directory back. Closing twice is fine."""
        try:
            self.sync()
        finally:
            file, self._file = self._file, None
            try:
                if file is not None:
                    self._close(file)
            finally:
                self.disk.unlock()

    def _close(self, file: File) -> None:
        try:
            file.close()
        except OSError as error:
            raise LogError(f"close failed: {error.strerror}") from None


def _wanted(segment: Segment, wanted_from: Callable[[bytes], int | None]) -> bool:
    for topic, last in segment.topics.items():
        first = wanted_from(topic)
        if first is not None and first <= last:
            return True
    return False
