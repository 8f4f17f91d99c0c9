"""Reading a whole log as far as it can be read, whoever has it; nothing is changed.

As recovery does: the facts of the last segment first, then the runs of all segments that its
checkpoint wants. Where recovery would refuse, this goes on and says what was passed over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import attrs

from blipmq.errors import LogError
from blipmq.wal.continuation import Successor, continued, salt_of, stranger
from blipmq.wal.disk import Disk
from blipmq.wal.facts import Checkpoint, Continued, Fact, RunRecord, run_in, without_data
from blipmq.wal.record import SEGMENT_HEADER_BYTES
from blipmq.wal.salvage import MISSING, Damage, SalvageReader
from blipmq.wal.segment import segment_name, sequences

Progress = Callable[[int], None]
"""Told how many bytes more were done."""

NO_CHECKPOINT: Final = "it does not begin with a checkpoint"

_TRIES: Final = 100
_FRAME_MIN: Final = 17
"""Bytes of the shortest frame of a message: a topic of one byte and no body."""


class NoLog(LogError):
    """The directory cannot be read, or holds no log."""


def silent(done: int) -> None:
    """Progress that nobody looks at."""


@attrs.define(eq=False)
class Loss:
    """Messages that a damage took: at most those with the numbers first to last.

    `topic` is None and the numbers are bounds when the damaged record does not say. `last` is None
    when nothing that follows says how far they went.
    """

    damage: Damage
    first: int
    last: int | None
    topic: bytes | None = None

    @property
    def messages_max(self) -> int | None:
        """How many messages it can be at most, if that is known."""
        bounds = []
        if self.last is not None:
            bounds.append(self.last - self.first + 1)
        if self.topic is None and self.damage.complete:
            bounds.append(self.damage.size // _FRAME_MIN)
        return min(bounds, default=None)


@attrs.define(eq=False)
class LogScan:
    """What there is of a log. After `runs` was taken to its end, also what is damaged.

    `last` is the newest segment that can be used, 0 if there is none, and `checkpoint` the one that
    it begins with. `facts` are those but for the runs from the last readable checkpoint on, which
    is that of segment `state_from`; 0: there is none. `begun` is a newer segment that
    was torn before it held anything. `lost` is the newest one, if another says that it was there
    and it is not. `strangers` are segments of another log, with the reason to think so.
    """

    disk: Disk
    found: list[int]
    last: int = 0
    begun: int | None = None
    begun_bytes: int = 0
    lost: int | None = None
    strangers: dict[int, str] = attrs.Factory(dict)
    checkpoint: Checkpoint | None = None
    state_from: int = 0
    facts: list[tuple[int, Fact]] = attrs.Factory(list)
    next_number: int = 0
    """Above every number that is in the last segment."""
    readers: dict[int, SalvageReader] = attrs.Factory(dict)
    damages: list[Damage] = attrs.Factory(list)
    losses: list[Loss] = attrs.Factory(list)
    _open_losses: list[Loss] = attrs.Factory(list)
    _given_out: int = 1
    _successor: Successor | None = None
    """The last segment, as the one before names it; a daemon may have removed it since."""

    @classmethod
    def of(cls, disk: Disk) -> LogScan:
        """Begin to read the log in this directory. Raises NoLog, or LogError for another format."""
        try:
            return cls._of(disk)
        except OSError as error:
            raise NoLog(f"{error.filename or disk.directory}: {error.strerror}") from None

    @classmethod
    def _of(cls, disk: Disk) -> LogScan:
        for _ in range(_TRIES):
            scan = cls(disk, sequences(disk.names()))
            if not scan.found:
                raise NoLog(f"{disk.directory}: there is no log in this directory")
            try:
                scan._read_facts()
            except FileNotFoundError:
                continue  # the daemon began another segment, and removed this one
            if not scan._outdated():
                return scan
        raise LogError(f"{disk.directory}: the log changes faster than it can be read; try again")

    def _outdated(self) -> bool:
        """Whether something is missing because the daemon has begun another segment since."""
        if self.lost in self.found:
            # It was being begun when it was read, and was named before the one before was.
            return any(not isinstance(item, Damage) for item in self._reader(self.newest))
        if not set(self.wanted) - set(self.found):
            return False
        return sequences(self.disk.names()) != self.found

    @property
    def newest(self) -> int:
        return max(self.found[-1], self.lost or 0)

    @property
    def wanted(self) -> list[int]:
        """The segments that recovery needs; those that are there, if no checkpoint says it."""
        newer = [s for s in self.found if s > self.last and s != self.begun]
        if self.lost is not None:
            newer.append(self.lost)
        if self.begun is not None and self.begun > 1:
            newer.append(self.begun - 1)
        if self.checkpoint is None:
            older = [s for s in self.found if s <= self.last]
        else:
            older = [*self.checkpoint.segments, self.last]
        return sorted({*older, *newer, *self._gaps()})

    def _gaps(self) -> dict[int, int]:
        """Segments that are not there, and of which nothing says whether they are wanted.

        That are those since the last readable checkpoint, and if it is not that of the last
        segment, those that it wanted. The first and the last one of each gap.
        """
        gaps = {}
        if self.checkpoint is None and self.state_from:
            _, checkpoint = self.facts[0]
            assert isinstance(checkpoint, Checkpoint)
            gaps = {s: s for s in checkpoint.segments if s not in self.found}
        first = self.state_from + 1
        for sequence in self.found:
            if first < sequence:
                gaps[first] = sequence - 1
            first = max(first, sequence + 1)
        return gaps

    @property
    def torn_bytes(self) -> int:
        """What a crash left unfinished, and recovery cuts off."""
        return self.begun_bytes + sum(reader.torn for reader in self.readers.values())

    @property
    def size(self) -> int:
        """Bytes that `runs` is going to read, about."""
        directory = self.disk.directory
        paths = [directory / segment_name(sequence) for sequence in self.wanted]
        return sum(path.stat().st_size for path in paths if path.exists())

    def _read_facts(self) -> None:
        self._select()
        while (other := self._stranger()) is not None and other[0] == self.last:
            self.strangers[self.last] = other[1]
            self.last, self.state_from, self.checkpoint = 0, 0, None
            self.begun = self.lost = None
            self._select()
        if other is not None:
            salts = {s: self._salt(s) for s in self._expected}
            wrong = [s for s, salt in salts.items() if salt not in (None, self._expected[s])]
            self.strangers.update(dict.fromkeys(wrong, other[1]))

    @property
    def _expected(self) -> dict[int, int]:
        """The salts of older segments, as far as the last checkpoint knows them."""
        if self.checkpoint is None:
            return {}
        # A checkpoint of an older log does not have them.
        return dict(zip(self.checkpoint.segments, self.checkpoint.salts, strict=False))

    def _stranger(self) -> tuple[int, str] | None:
        """A segment that does not belong to the others, if there is one, and why."""
        last_salt = self._salt(self.last)
        if self.checkpoint is None or last_salt is None:
            return None
        salts = {s: salt for s in self._expected if (salt := self._salt(s)) is not None}
        return stranger(self._expected, salts, self.last, last_salt, self._named_before())

    def _named_before(self) -> Continued | None:
        """What the segment before the last one says of its successor, once damage is cut out."""
        before = self.last - 1
        if self._salt(before) is None:
            return None
        found = continued(self.disk, before)
        if found is None:
            reader = SalvageReader(self.disk, before, last=False)
            for _ in reader:
                pass
            found = reader.continued
        return found

    def _salt(self, sequence: int) -> int | None:
        """None if it is not there, its header is damaged, or it may not be read."""
        if sequence not in self.found:
            return None
        try:
            return salt_of(self.disk, sequence)
        except (ValueError, PermissionError):
            return None

    def _select(self) -> None:
        """Find the last segment and its facts."""
        facts: list[tuple[int, Fact]] = []
        for sequence in reversed(self.found):
            if sequence in self.strangers:
                continue
            reader = self._reader(sequence)
            its_facts = list(self._facts_of(reader))
            if self.begun is not None and sequence == self.begun - 1 and reader.blank:
                # None begins before the one before it is whole.
                self.lost, self.begun, self.begun_bytes = self.begun, None, 0
                reader = self._reader(sequence)
                its_facts = list(self._facts_of(reader))
            if reader.blank and sequence == self.newest:
                self.begun, self.begun_bytes = sequence, reader.torn
            if not reader.records:
                continue
            if not self.last:
                self.last = sequence
                self._successor = Successor.of(self.disk, sequence)
                self._look_for_lost(reader.continued)
            facts[:0] = its_facts
            if its_facts and isinstance(its_facts[0][1], Checkpoint):
                self.state_from = sequence
                break
        self.facts = facts
        if self.state_from == self.last and facts:
            first = facts[0][1]
            assert isinstance(first, Checkpoint)
            self.checkpoint = first

    def _look_for_lost(self, named: Continued | None) -> None:
        if named is None:
            return
        if self.begun is not None:
            self.lost, self.begun, self.begun_bytes = self.begun, None, 0
        elif self.last == self.found[-1]:
            self.lost = self.last + 1

    def _facts_of(self, reader: SalvageReader) -> Iterator[tuple[int, Fact]]:
        for item in reader:
            if isinstance(item, Damage):
                continue
            id_, fact = item
            run = run_in(fact)
            self.next_number = max(self.next_number, id_ + (0 if run is None else run.count))
            if not isinstance(fact, RunRecord | Continued):
                yield id_, without_data(fact)

    def _reader(self, sequence: int) -> SalvageReader:
        """A torn tail may be in the newest segment, or before one that was only begun."""
        last = sequence == self.newest or (self.begun == self.newest and sequence == self.begun - 1)
        successor = self._successor if sequence == self.last - 1 and not last else None
        expected = self._expected.get(sequence)
        return SalvageReader(self.disk, sequence, last, successor, expected)

    def runs(self, progress: Progress = silent) -> Iterator[RunRecord]:
        """Every run, in order; its data is valid until the next one is asked for.

        Segments that a running daemon removes meanwhile are passed by: nobody wants them any more.
        Raises NoLog when the system does not let a segment be read.
        """
        for sequence in self.wanted:
            if sequence in self.strangers:
                size = self.disk.size(segment_name(sequence))
                reason = self.strangers[sequence]
                self._damaged(Damage(sequence, 0, size, reason, useless=True))
                continue
            try:
                yield from self._runs_of(self._reader(sequence), progress)
            except FileNotFoundError:
                if sequence in self.found and sequences(self.disk.names())[-1:] != self.found[-1:]:
                    continue
                self._damaged(Damage(sequence, 0, 0, self._missing(sequence), useless=True))
            except OSError as error:
                raise NoLog(f"{error.filename}: {error.strerror}") from None

    def _missing(self, sequence: int) -> str:
        last = self._gaps().get(sequence)
        if last is None or (self.begun is not None and last == self.begun - 1):
            return MISSING
        which = MISSING if last == sequence else f"the segments up to {last} are missing"
        return f"{which}, and whether that was wanted is not known"

    def _runs_of(self, reader: SalvageReader, progress: Progress) -> Iterator[RunRecord]:
        done = 0
        for item in reader:
            if isinstance(item, Damage):
                self._damaged(item)
                continue
            id_, fact = item
            run = run_in(fact)
            if run is not None:
                self._bound(run.first - 1)
                self._open_losses.clear()
                self._given_out = max(self._given_out, run.first + run.count)
                yield run
            else:
                self._bound(id_ - 1)
            progress(reader.end - done)
            done = reader.end
        progress(reader.size - done)
        self.readers[reader.sequence] = reader
        if reader.blank:
            self._damaged(Damage(reader.sequence, 0, reader.size, NO_CHECKPOINT, useless=True))
        elif reader.sequence == self.last and self.checkpoint is None and not reader.damages:
            start = SEGMENT_HEADER_BYTES
            self._damaged(Damage(reader.sequence, start, start, NO_CHECKPOINT))

    def _damaged(self, damage: Damage) -> None:
        self.damages.append(damage)
        run = damage.run
        if run is not None and run.first >= self._given_out:
            loss = Loss(damage, run.first, run.first + run.count - 1, run.topic)
            self._given_out = run.first + run.count
            self.losses.append(loss)
        elif damage.may_hold_runs:
            loss = Loss(damage, self._given_out, None)
            self.losses.append(loss)
            self._open_losses.append(loss)

    def _bound(self, last: int) -> None:
        """No message before this place has a number above `last`."""
        for loss in self._open_losses:
            loss.last = last if loss.last is None else min(loss.last, last)
            if loss.last < loss.first:
                self.losses.remove(loss)
        self._open_losses = [loss for loss in self._open_losses if loss in self.losses]
