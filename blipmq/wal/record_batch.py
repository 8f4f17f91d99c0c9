"""Facts that are written with one call, as records."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from blipmq.wal.encoding import encode, encode_settled
from blipmq.wal.facts import Bytes, Fact, Moved, RunRecord, Settled, Synced, run_in


@attrs.frozen(eq=False)
class RecordBatch:
    """`buffers`, end to end, are so many `records`.

    `runs` are those in them, each with where its record begins. `synced` is said before the rest.
    """

    buffers: list[Bytes]
    records: int
    runs: list[tuple[RunRecord, int]]
    synced: Synced | None = None

    @classmethod
    def of(
        cls,
        facts: Sequence[Fact],
        next_number: int,
        time_ms: int,
        salt: int,
        synced: Synced | None = None,
    ) -> RecordBatch:
        """The facts in order; settlements that follow each other share a record.

        `time_ms` is the time of day, kept with the runs. Raises DoesNotFit.
        """
        buffers: list[Bytes] = []
        runs: list[tuple[RunRecord, int]] = []
        settled: list[Settled] = []
        records = size = 0
        for fact in facts if synced is None else (synced, *facts):
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
        return cls(buffers, records, runs, synced)


def _at(fact: Fact, time_ms: int) -> Fact:
    """The fact with the time at which its messages are written."""
    run = run_in(fact)
    if run is None:
        return fact
    run = RunRecord(run.topic, run.first, run.count, run.data, time_ms)
    return attrs.evolve(fact, run=run) if isinstance(fact, Moved) else run
