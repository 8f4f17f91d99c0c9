"""Making a damaged log one that the daemon starts on, with as little lost as can be.

Damaged bytes are cut out of their segment; all other records stay as they are, and where they are.
What a lost checkpoint knew is taken from the one before it and all facts since.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import attrs

from blipmq.errors import LogError
from blipmq.wal.backup import CHUNK_BYTES, copy_file, sync_directory
from blipmq.wal.disk import Disk
from blipmq.wal.encoding import encode
from blipmq.wal.facts import Bytes, Checkpoint, Continued, RunRecord, Seen
from blipmq.wal.next_segment import NEXT_NAME
from blipmq.wal.record import SEGMENT_HEADER_BYTES, segment_header
from blipmq.wal.reserve import RESERVE_NAME
from blipmq.wal.salvage import Damage
from blipmq.wal.scan import LogScan, Loss, Progress, silent
from blipmq.wal.segment import segment_name
from blipmq.wal.survey import State, kept, states

_NUMBER_MAX: Final = 2**64 - 1
_TEMPORARY: Final = "repair.tmp"


@attrs.frozen
class Wanted:
    """Who wants messages of a loss: subscriptions, or whoever comes first, if they were `kept`."""

    subscriptions: tuple[int, ...]
    kept: bool


@attrs.frozen(eq=False)
class Repair:
    """What is wrong with a log, and what its repair does.

    `removed` are segments of which nothing can be used, `cut` those that lose bytes. Those that are
    `unnamed` do not say any more which segment comes next, because another one does. A
    `checkpoint` with this id is written into segment `last`, which is a new one if no other can be
    the last; None: the one that is there stays.
    """

    scan: LogScan
    removed: tuple[int, ...]
    cut: tuple[int, ...]
    unnamed: frozenset[int]
    last: int
    checkpoint_id: int
    checkpoint: Checkpoint | None
    wanted_by: dict[Loss, Wanted]
    """For the losses whose topic is known."""

    @property
    def damages(self) -> list[Damage]:
        return self.scan.damages

    @property
    def losses(self) -> list[Loss]:
        return self.scan.losses

    @property
    def needed(self) -> bool:
        """Whether the daemon would refuse to start."""
        return bool(self.damages)

    @property
    def settlements_lost(self) -> bool:
        """Whether settlements may be lost; their messages are then delivered again.

        With them may go that a subscription was opened or closed.
        """
        scan = self.scan
        if not self.needed:
            return False
        if not set(range(scan.state_from, scan.newest)) <= set(scan.found):
            return True
        later = (damage for damage in self.damages if damage.sequence >= scan.state_from)
        return any(damage.may_hold_settlements for damage in later)


def plan(scan: LogScan, state: State, reserve: int, progress: Progress = silent) -> Repair:
    """Read the whole log and decide how to repair it; nothing is changed.

    `state` is a new one; it is given the log's facts. `reserve` is how many numbers a checkpoint
    reserves at most beyond those that were reserved before.
    """
    kept_from: dict[bytes, int] = {}
    seen: tuple[Seen, ...] = ()
    for id_, fact in scan.facts:
        state.apply(id_, fact)
        if isinstance(fact, Checkpoint):
            seen = fact.seen
    for record in scan.runs(progress):
        if kept(state, record):
            first = max(record.first, state.kept_from(record.topic))
            kept_from.setdefault(record.topic, first)
    useless = {damage.sequence for damage in scan.damages if damage.useless}
    useless |= {sequence for sequence, reader in scan.readers.items() if not reader.records}
    removed = useless & set(scan.found)
    if useless and scan.begun is not None:
        removed.add(scan.begun)
    id_ = min(max(scan.next_number, state.reserved, 1), _NUMBER_MAX)
    checkpoint = scan.checkpoint
    # What was reserved by checkpoints that are lost is not to be given out either.
    unknown = scan.newest - scan.state_from + (scan.state_from == 0)
    reserved = min(id_ + reserve * unknown, _NUMBER_MAX)
    segments = tuple(s for s in scan.wanted if s not in useless and s != scan.last)
    salts = tuple(scan.readers[s].salt or 0 for s in segments)
    if checkpoint is None:
        subscriptions = tuple(states(state))
        kept_topics = tuple(kept_from.items())
        checkpoint = Checkpoint(reserved, segments, subscriptions, kept_topics, seen, salts)
    else:
        id_ = scan.facts[0][0]
        checkpoint = attrs.evolve(checkpoint, segments=segments, salts=salts, reserved=reserved)
    last = scan.last or scan.newest + 1
    return Repair(
        scan,
        removed=tuple(sorted(removed)),
        cut=tuple(sorted(_cut(scan, last) - useless)),
        unnamed=frozenset(_unnamed(scan, last)),
        last=last,
        checkpoint_id=id_,
        checkpoint=checkpoint if useless or scan.checkpoint is None else None,
        wanted_by={loss: _wanted(state, loss) for loss in scan.losses if loss.topic is not None},
    )


def _cut(scan: LogScan, last: int) -> set[int]:
    """Segments with damage, or with a tail that is only torn as long as the last one stays so."""
    torn = {s for s, reader in scan.readers.items() if reader.torn and s != last}
    return {damage.sequence for damage in scan.damages} | (torn if scan.damages else set())


def _unnamed(scan: LogScan, last: int) -> Iterator[int]:
    """Segments that name one that is lost, or another one than there is."""
    reader = scan.readers.get(last)
    if reader is not None and reader.continued is not None:
        yield last
    its_salt = None if reader is None else reader.salt
    before = scan.readers.get(last - 1)
    if before is not None and before.continued not in (None, Continued(last, its_salt or 0)):
        yield last - 1


def _wanted(state: State, loss: Loss) -> Wanted:
    assert loss.topic is not None
    assert loss.last is not None
    record = RunRecord(loss.topic, loss.first, loss.last - loss.first + 1, b"")
    return Wanted(tuple(id_ for id_, _ in state.wanted(record)), kept(state, record))


def save_copy(directory: Path, destination: Path, progress: Progress = silent) -> None:
    """Copy all files of a log, for good, but for those that only hold space.

    Raises LogError, with nothing left of the copy.
    """
    try:
        destination.mkdir()
    except OSError as error:
        raise LogError(f"{destination}: {error.strerror}; nothing was changed") from None
    try:
        for path in sorted(directory.iterdir()):
            if path.is_file() and path.name not in (RESERVE_NAME, NEXT_NAME):
                copy_file(path, destination / path.name, progress)
        sync_directory(destination)
        sync_directory(destination.parent)
    except OSError as error:
        shutil.rmtree(destination)
        text = f"{destination}: cannot save a copy: {error.strerror}; nothing was changed"
        raise LogError(text) from None


def carry_out(repair: Repair, disk: Disk, salt: int) -> None:
    """Do what was planned, on a log that nobody else has.

    `salt` is a random number for a new segment. Interrupted at any moment, it can be done again
    from the beginning, with a new plan. Raises LogError.
    """
    try:
        rewritten = {*repair.cut, *(repair.unnamed - set(repair.removed))}
        if repair.checkpoint is not None:
            rewritten.add(repair.last)
        for sequence in sorted(rewritten):
            _write(disk, sequence, _content(repair, disk, sequence, salt))
        for sequence in repair.removed:
            disk.remove(segment_name(sequence))
        disk.sync_directory()
    except OSError as error:
        where = error.filename or disk.directory
        raise LogError(f"{where}: {error.strerror}; repair it again once that is solved") from None


def _content(repair: Repair, disk: Disk, sequence: int, new_salt: int) -> Iterator[Bytes]:
    """A segment without its damage, and with the checkpoint if it is to have it."""
    reader = repair.scan.readers.get(sequence)
    salt = new_salt if reader is None or reader.salt is None else reader.salt
    yield segment_header(sequence, salt)
    at = SEGMENT_HEADER_BYTES
    if sequence == repair.last and repair.checkpoint is not None:
        yield from encode(repair.checkpoint, repair.checkpoint_id, salt)
        at = at if reader is None else reader.checkpoint_end
    if reader is None:
        return
    data = memoryview(disk.read(segment_name(sequence)))
    end = reader.kept_end
    if sequence in repair.unnamed and reader.continued_at is not None:
        end = min(end, reader.continued_at)
    for damage in [*reader.damages, Damage(sequence, end, end, "")]:
        stop = min(damage.start, end)
        yield from (data[i : min(i + CHUNK_BYTES, stop)] for i in range(at, stop, CHUNK_BYTES))
        at = max(at, damage.end)


def _write(disk: Disk, sequence: int, content: Iterator[Bytes]) -> None:
    """Put a new file in the place of a segment, or where there was none, at once."""
    if _TEMPORARY in disk.names():
        disk.remove(_TEMPORARY)
    file = disk.create(_TEMPORARY)
    try:
        for buffer in content:
            file.append([buffer])
        file.sync()
    finally:
        file.close()
    disk.rename(_TEMPORARY, segment_name(sequence))
    disk.sync_directory()
