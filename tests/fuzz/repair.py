"""However a good log is damaged, and in however many places: repaired, the daemon starts on it.

An input says what is in the log, then what is done to its segments: bits are flipped; bytes are
cut off, put in, taken out and cleared; segments are lost, exchanged, copied and put in from
another log; garbage is put behind. A repaired log is clean, starts, and starts again alike. It
has no message that the good one did not have, byte for byte, and what it has not is said to be
lost.
"""

from __future__ import annotations

from typing import Final

from blipmq.broker.broker import Broker
from blipmq.broker.limits import Limits, Retention, Retries
from blipmq.broker.restore import Restoration
from blipmq.errors import CorruptLog
from blipmq.wal.facts import RunRecord, run_in
from blipmq.wal.log import Log
from blipmq.wal.repair import Repair, carry_out, plan
from blipmq.wal.scan import LogScan, Loss
from blipmq.wal.segment import SegmentReader, segment_name, sequences
from tests.fuzz.choices import Choices
from tests.fuzz.damages import damaged, mixed_with
from tests.fuzz.good_logs import good_log
from tests.wal.logs import TIME_MS, Found, StoredRun, read
from tests.wal.memory_disk import MemoryDisk

_NUMBERS: Final = 1 << 32
_SALT: Final = 77

Runs = dict[int, StoredRun]
"""By their first number."""


def check(data: bytes) -> None:
    """Raises for damage that is not repaired as it must be."""
    choices = Choices(data)
    good = good_log(choices)
    disk = damaged(good, choices)
    if sequences(disk.names()):
        _hold(good, disk)
    if choices:
        other = good_log(choices, b"other")
        mixed = mixed_with(disk, other, choices.number())
        if sequences(mixed.names()):
            _hold_apart(good, other, mixed)


def _hold(good: MemoryDisk, disk: MemoryDisk) -> None:
    """What a repair leaves of a damaged log against the log as it was."""
    before = disk.after_kill()
    repair, found = _repaired(disk)
    whole, left = read(good.after_kill()), _runs(found)
    assert len(left) == len(found.runs)
    assert left.items() <= _runs(whole).items()
    lost = [run for run in whole.runs if run.first not in left]
    _told(good, before, repair, found, lost)
    _wanted(good, disk, repair, found)


def _hold_apart(good: MemoryDisk, other: MemoryDisk, disk: MemoryDisk) -> None:
    """A log of which the last checkpoint is left has messages of no other log."""
    repair, found = _repaired(disk)
    both = [_runs(read(log.after_kill())).items() for log in (good, other)]
    left = {(run.first, run) for run in found.runs}
    assert left <= both[0] | both[1]
    assert repair.scan.checkpoint is None or any(left <= one for one in both)


def _repaired(disk: MemoryDisk) -> tuple[Repair, Found]:
    """A log that is clean, on which a broker starts, and once more with the same."""
    repair = planned(disk)
    assert repair.needed != starts(disk.after_kill()), repair.damages
    if repair.needed:
        carry_out(repair, disk, _SALT)
        assert not planned(disk).damages
    assert starts(disk.after_kill())
    _restore(disk.after_kill())
    found = read(disk)
    assert _shown(read(disk)) == _shown(found)
    return repair, found


def starts(disk: MemoryDisk) -> bool:
    """Whether a daemon would."""
    try:
        read(disk)
    except CorruptLog:
        return False
    return True


def _restore(disk: MemoryDisk) -> None:
    """A broker goes on with it."""
    log = Log.open(disk, 1 << 20, lambda: _SALT)
    facts, number = log.recover()
    broker = Broker.create(Limits(), Retention(), Retries(), durable=True)
    broker.restore(facts, log.runs(), number, 0.0, TIME_MS)


def planned(disk: MemoryDisk) -> Repair:
    return plan(LogScan.of(disk), Restoration(), _NUMBERS)


def _shown(found: Found) -> tuple[str, int, list[StoredRun]]:
    """All but what was torn; moved messages are equal to nothing but themselves."""
    return repr(found.facts), found.next_number, found.runs


def _runs(found: Found) -> Runs:
    return {run.first: run for run in found.runs}


def _places(good: MemoryDisk) -> dict[int, int]:
    """In which segment each run is, by its first number."""
    return {
        id_: sequence
        for sequence in sequences(good.names())
        for id_, fact in SegmentReader(good, sequence, last=True)
        if run_in(fact) is not None
    }


def _told(
    good: MemoryDisk, before: MemoryDisk, repair: Repair, found: Found, lost: list[StoredRun]
) -> None:
    """What is lost is said to be, but for ends of segments, which nobody can miss.

    A segment that ends early looks as a crash would leave it, or as if it had ended there.
    """
    places = _places(good)
    quiet = {s for s in sequences(good.names()) if _lost_end(good, before, s)}
    newest = max(sequences(before.names()))
    quiet.add(repair.scan.begun or 0)
    quiet.update(reader.sequence for reader in repair.scan.readers.values() if reader.torn)
    ends = {places[run.first]: run.first for run in found.runs}
    told = 0
    for run in lost:
        place = places[run.first]
        if any(_covers(loss, run) for loss in repair.losses):
            told += run.count
        else:
            at_end = place in quiet and run.first > ends.get(place, 0)
            assert place > newest or at_end, (place, run.first, repair.damages)
    bounds = [loss.messages_max for loss in repair.losses]
    if None not in bounds:
        assert told <= sum(bound or 0 for bound in bounds), (told, repair.losses)


def _lost_end(good: MemoryDisk, before: MemoryDisk, sequence: int) -> bool:
    """Whether a segment is shorter than it was, or ends in zeros."""
    name = segment_name(sequence)
    if name not in before.files:
        return False
    was, is_ = (len(disk.files[name].rstrip(b"\0")) for disk in (good, before))
    return is_ < was


def _covers(loss: Loss, run: StoredRun) -> bool:
    last = run.first + run.count - 1
    return (
        loss.first <= run.first
        and (loss.last is None or last <= loss.last)
        and loss.topic in (None, run.topic)
    )


def _wanted(good: MemoryDisk, disk: MemoryDisk, repair: Repair, found: Found) -> None:
    """Nobody gets again what was settled, or misses a message, without its being said."""
    if repair.settlements_lost or repair.scan.torn_bytes or not found.facts:
        return
    before, after = _restored(good), _restored(disk)
    for run in found.runs:
        record = RunRecord(run.topic, run.first, run.count, b"")
        assert _who(after, record) == _who(before, record), (run.first, repair.damages)


def _restored(disk: MemoryDisk) -> Restoration:
    state = Restoration()
    for id_, fact in LogScan.of(disk.after_kill()).facts:
        state.apply(id_, fact)
    return state


def _who(state: Restoration, record: RunRecord) -> tuple[object, bool]:
    who = {id_: [(a, b) for a, b, _ in ranges] for id_, ranges in state.wanted(record)}
    return who, state.kept(record)
