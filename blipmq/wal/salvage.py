"""Reading a segment that may be damaged: what checks, what does not, and where it goes on.

The daemon stops at the first damage. The tools read on, at the next record that checks.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

import attrs

from blipmq.errors import LogError
from blipmq.protocol.frames import TOPIC_AT
from blipmq.protocol.run import stored_run
from blipmq.wal.continuation import Successor
from blipmq.wal.disk import Disk
from blipmq.wal.encoding import CONTINUED, CONTINUED_BYTES, MOVED, RUN, SYNCED, decode
from blipmq.wal.facts import (
    Attempted,
    Checkpoint,
    Closed,
    Continued,
    Fact,
    Opened,
    RunRecord,
    Settled,
    Synced,
    run_in,
)
from blipmq.wal.record import (
    FORMAT_VERSION,
    MAGIC,
    RECORD_HEADER,
    RECORD_HEADER_BYTES,
    SEGMENT_HEADER,
    SEGMENT_HEADER_BYTES,
    parse_segment_header,
    records,
    segment_header,
)
from blipmq.wal.salt import find_salt
from blipmq.wal.search import SearchLimit, find_record
from blipmq.wal.segment import is_torn, lacks_header, segment_name

_CRC_BYTES: Final = SEGMENT_HEADER_BYTES - SEGMENT_HEADER.size
MISSING: Final = "the segment is missing"


@attrs.frozen
class Damage:
    """Bytes start to end of a segment that do not check.

    `useless` says that nothing of the segment can be used, or that it is not there. `single` says
    that the bytes are one record; `run` is then what run it was, without data, and `no_run` that it
    was none, when that can be told. `moved` says that the run came with a settlement. `complete`
    says that no more is gone than these bytes: there is a good record behind them.
    """

    sequence: int
    start: int
    end: int
    reason: str
    useless: bool = False
    single: bool = False
    run: RunRecord | None = None
    no_run: bool = False
    moved: bool = False
    complete: bool = False

    @property
    def name(self) -> str:
        return segment_name(self.sequence)

    @property
    def size(self) -> int:
        return self.end - self.start

    @property
    def may_hold_runs(self) -> bool:
        """Whether messages may have been in it; a segment begins with its checkpoint."""
        if self.useless:
            return True
        return self.start > 0 and not self.no_run and not self.is_checkpoint

    @property
    def may_hold_settlements(self) -> bool:
        """Whether settlements, or other changes of subscriptions, may have been in it."""
        if self.run is not None:
            return self.moved
        return self.useless or (self.start > 0 and not self.is_checkpoint)

    @property
    def is_checkpoint(self) -> bool:
        """Whether it is the first record of its segment and nothing else."""
        return self.single and self.start == SEGMENT_HEADER_BYTES


class LiveDisk(Disk):
    """A directory in which a daemon may be writing: what is read is a copy of its own.

    A segment that is being written may be cut while it is read.
    """

    def read(self, name: str) -> bytes:
        return (self.directory / name).read_bytes()


@attrs.define(eq=False)
class SalvageReader:
    """The facts and damages of one segment in order, and what is known when all were taken.

    In the `last` segment of a log a torn tail is no damage: `torn` is how many bytes it has. Nor
    is it in another one when all that is torn is the record that names the `successor`. `salt`
    is None when nothing of the segment can be used; when the header does not say it, and it is
    known which one is `expected`, it is that one or none.
    """

    disk: Disk
    sequence: int
    last: bool
    successor: Successor | None = None
    expected: int | None = None
    size: int = 0
    written: int = 0
    """Where the zeros begin that reach to its end."""
    end: int = 0
    """Where the record ends that was taken last."""
    id: int = 0
    """Of that record."""
    records: int = 0
    torn: int = 0
    salt: int | None = None
    checkpoint_end: int = SEGMENT_HEADER_BYTES
    """Where the first record ends, if it is a checkpoint."""
    continued: Continued | None = None
    """What the segment says of the next one."""
    continued_at: int | None = None
    """Where the record stands that says it."""
    first_time_ms: int = 0
    last_time_ms: int = 0
    damages: list[Damage] = attrs.Factory(list)

    def __iter__(self) -> Iterator[tuple[int, Fact] | Damage]:
        """(id of the record, fact) or damage. A run's data is valid until the next is asked for.

        Raises LogError for a segment of another format, and OSError.
        """
        data = memoryview(self.disk.read(segment_name(self.sequence)))
        try:
            self.size, self.written = len(data), _written(data)
            yield from self._head(data)
            if self.salt is not None:
                yield from self._records(data, self.salt)
            self.end = self.size
        finally:
            data.release()

    @property
    def blank(self) -> bool:
        """Whether there is nothing in it, and nothing that could have been."""
        return not self.records and not self.damages

    @property
    def path(self) -> Path:
        return self.disk.directory / segment_name(self.sequence)

    def _head(self, data: memoryview) -> Iterator[Damage]:
        head = data[:SEGMENT_HEADER_BYTES].tobytes()
        try:
            sequence, self.salt = parse_segment_header(head)
        except ValueError as error:
            reason = str(error)
        else:
            if sequence == self.sequence:
                return
            self.salt = None
            reason = f"this is segment {sequence} under another name"
            yield self._damage(data, 0, self.size, reason, useless=True)
            return
        if self.last and lacks_header(data, self.sequence):
            self.torn = self.written
            return
        self._refuse_other_format(head)
        self.salt = self._find_salt(data)
        if self.salt is not None:
            sequence = self._sequence_of(data, head, self.salt)
            if sequence != self.sequence:
                self.salt = None
                reason = f"{reason}, and this is segment {sequence} under another name"
        end = self.size if self.salt is None else SEGMENT_HEADER_BYTES
        yield self._damage(data, 0, end, reason, useless=self.salt is None)

    def _find_salt(self, data: memoryview) -> int | None:
        if self.expected is None:
            return find_salt(data, self.sequence, self.written)
        at = self._next_record(data, SEGMENT_HEADER_BYTES - 1, self.expected)
        return None if at is None else self.expected

    def _sequence_of(self, data: memoryview, head: bytes, salt: int) -> int:
        """Which segment it is, whose header does not check, as far as anything in it says so."""
        if head[SEGMENT_HEADER.size :] != segment_header(self.sequence, salt)[-_CRC_BYTES:]:
            magic, _, _, sequence, _ = SEGMENT_HEADER.unpack_from(head)
            if magic == MAGIC or head[-_CRC_BYTES:] == segment_header(sequence, salt)[-_CRC_BYTES:]:
                return int(sequence)
        at: int | None = SEGMENT_HEADER_BYTES
        while at is not None:
            end = at
            for id_, body, end in records(data, at, salt):
                if data[body] not in (SYNCED, CONTINUED):
                    continue
                with suppress(ValueError):
                    for fact in decode(id_, data[body:end]):
                        if isinstance(fact, Synced):
                            return fact.segment
                        if isinstance(fact, Continued):
                            return fact.segment - 1
            at = self._next_record(data, end, salt)
        return self.sequence

    def _next_record(self, data: memoryview, start: int, salt: int) -> int | None:
        """Where behind the bad one at `start` the next good record begins, if that can be found."""
        with suppress(SearchLimit):
            return find_record(data, start + 1, self.written, salt)
        return None

    def _refuse_other_format(self, head: bytes) -> None:
        """A segment that another version of the program wrote is not damaged."""
        if len(head) < SEGMENT_HEADER_BYTES:
            return
        magic, version, _, _, _ = SEGMENT_HEADER.unpack_from(head)
        crc = int.from_bytes(head[SEGMENT_HEADER.size :], "little")
        if magic == MAGIC and zlib.crc32(head[: SEGMENT_HEADER.size]) == crc:
            text = f"format version {version}; this program reads {FORMAT_VERSION}"
            raise LogError(f"{self.path}: {text}")

    def _records(self, data: memoryview, salt: int) -> Iterator[tuple[int, Fact] | Damage]:
        at: int | None = SEGMENT_HEADER_BYTES
        while at is not None:
            self.end = at
            for id_, body, end in records(data, at, salt):
                try:
                    facts = decode(id_, data[body:end])
                except ValueError as error:
                    yield self._damage(data, self.end, end, str(error), complete=True)
                else:
                    self._note(facts, end)
                    for fact in facts:
                        yield id_, fact
                    facts.clear()
                self.end, self.id = end, id_
            at = None
            for damage in self._bad(data, self.end, salt):
                yield damage
                at = damage.end if damage.end < self.size else None

    def _note(self, facts: list[Fact], end: int) -> None:
        self.records += 1
        for fact in facts:
            if isinstance(fact, Checkpoint) and self.end == SEGMENT_HEADER_BYTES:
                self.checkpoint_end = end
            if isinstance(fact, Continued):
                self.continued, self.continued_at = fact, self.end
            run = run_in(fact)
            if run is not None:
                self.first_time_ms = self.first_time_ms or run.time_ms
                self.last_time_ms = run.time_ms

    def _bad(self, data: memoryview, start: int, salt: int) -> Iterator[Damage]:
        """What stands at `start`, where no record checks: nothing, a torn tail or a damage."""
        written = self.written
        if written <= start:
            return
        if self.last and is_torn(data, start, written, salt, self.sequence, self.id):
            self.torn = written - start
            return
        short = written - start <= CONTINUED_BYTES
        tail = data[start:written].tobytes() if short else b""
        if tail and self.successor is not None and self.successor.is_named_in(tail, start, salt):
            self.torn = written - start
            return
        next_ = self._next_record(data, start, salt)
        end = self._damage_end(data, start) if next_ is None else next_
        reason = "a record's checksum does not match"
        yield self._damage(data, start, end, reason, complete=next_ is not None)

    def _damage_end(self, data: memoryview, start: int) -> int:
        """Where a damage ends behind which there is no record; its own last bytes may be zeros."""
        if self.size - start >= RECORD_HEADER_BYTES:
            end = start + RECORD_HEADER_BYTES + int(RECORD_HEADER.unpack_from(data, start)[1])
            if self.written <= end <= self.size:
                return end
        return self.written

    @property
    def kept_end(self) -> int:
        """Where what is not torn ends, and zeros begin or what is torn."""
        return self.written - self.torn

    def _damage(
        self,
        data: memoryview,
        start: int,
        end: int,
        reason: str,
        *,
        useless: bool = False,
        complete: bool = False,
    ) -> Damage:
        damage = Damage(self.sequence, start, end, reason, useless, complete=complete)
        if start and not useless:
            damage = _recognised(data, damage)
        self.damages.append(damage)
        return damage


def _written(data: memoryview) -> int:
    """Where the zeros begin that reach to the end."""
    return len(data.tobytes().rstrip(b"\0"))


def _recognised(data: memoryview, damage: Damage) -> Damage:
    """The damage with what can be told of the record that it was."""
    start, end = damage.start, damage.end
    if end - start < RECORD_HEADER_BYTES + 1:
        return damage
    id_, length, _ = RECORD_HEADER.unpack_from(data, start)
    body = start + RECORD_HEADER_BYTES
    stop = body + length
    if length == 0 or stop > end:
        return damage
    # The last record of a segment may be complete by zeros; elsewhere they were records, too.
    if stop < end and (damage.complete or any(data[stop:end])):
        return damage
    payload = data[body:stop]
    run = _run(id_, payload) if payload[0] in (RUN, MOVED) else None
    moved = run is not None and payload[0] == MOVED
    no_run = _is_no_run(id_, payload)
    return attrs.evolve(damage, single=True, run=run, no_run=no_run, moved=moved)


def _run(id_: int, payload: memoryview) -> RunRecord | None:
    """The run that a damaged payload was, if its frames still say the same as its head."""
    try:
        (fact,) = decode(id_, payload)
        run = run_in(fact)
        assert run is not None
        frames = stored_run(run.topic, id_, bytes(run.data))
    except (ValueError, IndexError, struct.error):
        return None
    numbers = frames.correlation_ids()
    again = bytes(run.data[TOPIC_AT : TOPIC_AT + len(run.topic)])
    # Delayed messages are of no topic yet; their frames name the ones they are for.
    if frames.count != run.count or (run.topic and (again != run.topic or not _usable(again))):
        return None
    if list(numbers) != list(range(id_, id_ + run.count)):
        return None
    return RunRecord(run.topic, id_, run.count, b"", run.time_ms)


def _is_no_run(id_: int, payload: memoryview) -> bool:
    """Whether all numbers in it are as in a fact about subscriptions: given out before."""
    try:
        facts = decode(id_, payload)
    except ValueError:
        return False
    for fact in facts:
        match fact:
            case Settled(subscription, first, last):
                numbers = [subscription, last] if first <= last else [id_]
            case Opened(state):
                numbers = [state.id]
            case Attempted(subscription, first, last, _):
                numbers = [subscription, last] if first <= last else [id_]
            case Closed(subscription, next_number):
                numbers = [subscription, next_number - 1]
            case _:
                return False
        if not all(0 < number < id_ for number in numbers):
            return False
    return True


def _usable(topic: bytes) -> bool:
    try:
        return bool(topic.decode())
    except UnicodeDecodeError:
        return False
