"""A log in memory: takes what a broker hands off, in the bytes of the real one, and restores it."""

from __future__ import annotations

import attrs

from blipmq.broker.broker import Batch, Broker, Load
from blipmq.broker.limits import Limits, Retention, Retries
from blipmq.protocol.run import Run, stored_run
from blipmq.wal.encoding import decode, encode
from blipmq.wal.facts import Checkpoint, Fact, Moved, RunRecord, run_in
from blipmq.wal.record import RECORD_HEADER_BYTES


def _stored(fact: Fact, next_number: int, time_ms: int) -> tuple[int, Fact]:
    """The fact as it is read back: with the id of its record."""
    if isinstance(fact, RunRecord):
        fact = attrs.evolve(fact, time_ms=time_ms)
    elif isinstance(fact, Moved):
        fact = attrs.evolve(fact, run=attrs.evolve(fact.run, time_ms=time_ms))
    record = b"".join(encode(fact, next_number, 0))
    run = run_in(fact)
    id_ = next_number if run is None else run.first
    (stored,) = decode(id_, record[RECORD_HEADER_BYTES:])
    return id_, stored


@attrs.define(eq=False)
class MemoryLog:
    """Holds what would be on the disk. `restore` makes the broker that a restart would."""

    limits: Limits = attrs.Factory(Limits)
    retention: Retention = attrs.Factory(Retention)
    retries: Retries = attrs.Factory(Retries)
    facts: list[tuple[int, Fact]] = attrs.Factory(list)
    """From the last checkpoint on."""
    runs: list[RunRecord] = attrs.Factory(list)
    """Those that were wanted when the last checkpoint was made, and all later ones."""

    def start(self, now: float = 0.0, time_ms: int = 0) -> Broker:
        """A broker with all that the log holds, and its first checkpoint."""
        broker = self.restore(now, time_ms)
        self.checkpoint(broker)
        return broker

    def restore(self, now: float = 0.0, time_ms: int = 0) -> Broker:
        broker = Broker.create(self.limits, self.retention, self.retries, durable=True)
        ids = [id_ for id_, _ in self.facts] + [run.first + run.count for run in self.runs]
        broker.restore(self.facts, self.runs, max(ids, default=0), now, time_ms)
        return broker

    def append(self, batch: Batch, time_ms: int = 0) -> None:
        for fact in batch.facts:
            id_, stored = _stored(fact, batch.next_number, time_ms)
            run = run_in(stored)
            if run is not None:
                self.runs.append(run)
            if not isinstance(stored, RunRecord):
                self.facts.append((id_, stored))

    def read(self, load: Load, bytes_max: int = 1 << 62) -> tuple[list[tuple[Run, int]], int]:
        """What a broker wants to have read: runs with the time of their writing, and how far.

        A part ends after at most so many bytes, but for its first run.
        """
        found: list[tuple[Run, int]] = []
        size = 0
        for record in self.runs:
            end = record.first + record.count
            if record.topic != load.topic or end <= load.first or record.first >= load.stop:
                continue
            run = stored_run(record.topic, record.first, bytes(record.data))
            found.append((run, record.time_ms))
            size += len(record.data)
            if size >= min(bytes_max, load.bytes_max):
                return found, min(end, load.stop)
        return found, load.stop

    def checkpoint(self, broker: Broker) -> Checkpoint:
        """Begin anew with a checkpoint, and drop the runs that nobody wants."""
        checkpoint = broker.checkpoint()
        self.facts = [_stored(checkpoint, broker.context.next_number, 0)]
        self.runs = [run for run in self.runs if self._wanted(broker, run)]
        broker.checkpointed(checkpoint)
        return checkpoint

    def _wanted(self, broker: Broker, run: RunRecord) -> bool:
        first = broker.wanted_from(run.topic)
        return first is not None and first < run.first + run.count
