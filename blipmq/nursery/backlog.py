"""The task that reads backlogs back from the log, for the subscriptions that are behind."""

from __future__ import annotations

from functools import partial

import attrs
import trio

from blipmq.broker.broker import Load
from blipmq.nursery.bell import Bell
from blipmq.nursery.state import DaemonState
from blipmq.protocol.run import Run, stored_run
from blipmq.wal.reading import LogReader, Place


@attrs.frozen
class _Read:
    """The runs with the time of day of their writing, and what else the broker is told."""

    runs: list[tuple[Run, int]]
    reached: int
    place: Place


async def read_backlogs(state: DaemonState, reader: LogReader) -> None:
    """Read what the broker wants, one part after the other, for ever.

    Raises LogError when the log cannot be read.
    """
    bell = Bell()
    state.broker.context.on_load = bell.ring
    try:
        while True:
            load = state.broker.next_load()
            if load is None:
                await bell.wait()
                continue
            read = await state.outside.run_blocking(partial(_read, reader, load))
            state.broker.loaded(load, read.runs, read.reached, read.place, trio.current_time())
            state.look()
    finally:
        reader.close()


def _read(reader: LogReader, load: Load) -> _Read:
    """In a thread."""
    place = load.place
    assert place is None or isinstance(place, Place)
    chunk = reader.read(load.topic, load.first, load.stop, load.bytes_max, place)
    runs = [
        (stored_run(record.topic, record.first, bytes(record.data)), record.time_ms)
        for record in chunk.runs
    ]
    return _Read(runs, chunk.reached, chunk.place)
