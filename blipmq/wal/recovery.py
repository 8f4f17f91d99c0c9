"""What the process before left of a log: the facts of its last segment, and which others count."""

from __future__ import annotations

from pathlib import Path

import attrs

from blipmq.errors import CorruptLog
from blipmq.wal.disk import Disk
from blipmq.wal.record import Checkpoint, Fact, RunRecord, run_in, without_data
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
    bytes: int = 0
    torn_bytes: int = 0

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
            self.disk.remove(segment_name(torn))
        if self.facts:
            self._select(found, self.facts[0][1])

    def _path(self, sequence: int) -> Path:
        return self.disk.directory / segment_name(sequence)

    def _read_last(self, sequence: int) -> None:
        """Take the facts of the last segment, and cut it where they end."""
        reader = SegmentReader(self.disk, sequence, last=True)
        for id_, fact in reader:
            if not self.facts and not isinstance(fact, Checkpoint):
                where = f"{self._path(sequence)}: offset {reader.end}"
                raise CorruptLog(f"{where}: the first record is not a checkpoint")
            run = run_in(fact)
            self.number = max(self.number, id_ + (0 if run is None else run.count))
            if not isinstance(fact, RunRecord):
                self.facts.append((id_, without_data(fact)))
        if reader.end < self.disk.size(segment_name(sequence)):
            self._cut(reader)

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
        self.segments = sorted(wanted)
        self.bytes = sum(self.disk.size(segment_name(sequence)) for sequence in wanted)
