"""What the process before left of a log: the facts of its last segment, and which others count."""

from __future__ import annotations

from pathlib import Path

import attrs

from blipmq.errors import CorruptLog
from blipmq.wal.continuation import Successor, continued, salt_of, stranger
from blipmq.wal.disk import Disk
from blipmq.wal.facts import Checkpoint, Continued, Fact, RunRecord, run_in, without_data
from blipmq.wal.segment import SegmentReader, segment_name, sequences

_Facts = list[tuple[int, Fact]]
"""Each with its record's id."""


@attrs.define(eq=False)
class Recovery:
    """`facts` are those but for the runs from the last checkpoint on, `number` is above every id.

    `segments` are the sequence numbers of those that are wanted, which have `bytes` together.
    `torn_bytes` were cut off.
    """

    disk: Disk
    facts: _Facts = attrs.Factory(list)
    number: int = 0
    segments: list[int] = attrs.Factory(list)
    salts: dict[int, int] = attrs.Factory(dict)
    """Of the segments."""
    bytes: int = 0
    torn_bytes: int = 0
    _continued: Continued | None = None
    _ends: dict[int, int] = attrs.Factory(dict)
    """Where segments are to be cut, and synced."""

    @classmethod
    def of(cls, disk: Disk) -> Recovery:
        """Read the last segment, cut off what is torn, and remove what is not wanted any more.

        Raises CorruptLog for everything that no crash leaves behind, and OSError.
        """
        recovery = cls(disk)
        found = sequences(disk.names())
        if found:
            recovery._recover(found)
        return recovery

    def _recover(self, found: list[int]) -> None:
        self._read_last(found[-1])
        torn = None
        if not self.facts:
            # It was torn before its first checkpoint was written: nothing was ever in it, and the
            # segment before it, if there was one, was still in use.
            torn = found.pop()
            if torn > 1:
                if found[-1:] != [torn - 1]:
                    raise CorruptLog(f"{self._path(torn - 1)}: the segment is missing")
                self._read_last(found[-1])
                if not self.facts:
                    raise CorruptLog(f"{self._path(found[-1])}: offset 0: there is no checkpoint")
        if self._continued is not None:
            what = "the segment is missing" if torn is None else "offset 0: there is no checkpoint"
            raise CorruptLog(f"{self._path(self._continued.segment)}: {what}")
        if self.facts:
            self._select(found, self.facts[0][1])
        for sequence in self.segments[-2:]:
            # The process before may have been killed before it synced the last one, or in the one
            # before the name of that. What is here is confirmed from now on, and the next segment
            # is not to be there without it.
            self._ends.setdefault(sequence, self.disk.size(segment_name(sequence)))
        for sequence, end in self._ends.items():
            self._cut(sequence, end)
        if found or torn is not None:
            # No name is to be gone before those that took its place are there for certain.
            self.disk.sync_directory()
        if torn is not None:
            self.disk.remove(segment_name(torn))
        for sequence in found:
            if sequence not in self.segments:
                self.disk.remove(segment_name(sequence))
        self.bytes = sum(self.disk.size(segment_name(sequence)) for sequence in self.segments)

    def _path(self, sequence: int) -> Path:
        return self.disk.directory / segment_name(sequence)

    def _read_last(self, sequence: int) -> None:
        """Take the facts of the last segment, and note where they end."""
        reader = SegmentReader(self.disk, sequence, last=True)
        for id_, fact in reader:
            if not self.facts and not isinstance(fact, Checkpoint):
                where = f"{self._path(sequence)}: offset {reader.end}"
                raise CorruptLog(f"{where}: the first record is not a checkpoint")
            if isinstance(fact, Continued):
                self._continued = fact
                continue
            run = run_in(fact)
            self.number = max(self.number, id_ + (0 if run is None else run.count))
            if not isinstance(fact, RunRecord):
                self.facts.append((id_, without_data(fact)))
        self.torn_bytes += reader.torn
        if self.facts:
            self.salts[sequence] = reader.salt
            if reader.end < self.disk.size(segment_name(sequence)):
                self._ends[sequence] = reader.end

    def _cut(self, sequence: int, end: int) -> None:
        file = self.disk.open(segment_name(sequence))
        try:
            if end < file.size:
                file.truncate(end)
            file.sync()
        finally:
            file.close()

    def _select(self, found: list[int], checkpoint: Fact) -> None:
        """Hold the segments that are there against those that the checkpoint wants."""
        assert isinstance(checkpoint, Checkpoint)
        last = found[-1]
        wanted = {*checkpoint.segments, last}
        if missing := sorted(wanted - set(found)):
            raise CorruptLog(f"{self._path(missing[0])}: the segment is missing")
        for sequence in checkpoint.segments:
            self.salts[sequence] = self._salt(sequence)
        before = continued(self.disk, last - 1) if last - 1 in found else None
        # A checkpoint of an older log does not have the salts.
        expected = dict(zip(checkpoint.segments, checkpoint.salts, strict=False))
        if other := stranger(expected, self.salts, last, self.salts[last], before):
            raise CorruptLog(f"{self._path(other[0])}: {other[1]}")
        if before is None and last - 1 in wanted:
            self._look_for_torn_name(last)
        self.segments = sorted(wanted)

    def _salt(self, sequence: int) -> int:
        try:
            return salt_of(self.disk, sequence)
        except ValueError as error:
            raise CorruptLog(f"{self._path(sequence)}: offset 0: {error}") from None

    def _look_for_torn_name(self, last: int) -> None:
        """A crash may have kept the segment before from naming the last one."""
        successor = Successor(last, self.salts[last], self.facts[0][0])
        end = successor.unfinished_end(self.disk, last - 1)
        if end is not None:
            self._ends[last - 1] = end
