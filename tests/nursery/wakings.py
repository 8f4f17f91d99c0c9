"""Counts how often the daemon wakes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import attrs
import trio


@attrs.define(eq=False)
class Wakings(trio.abc.Instrument):
    """The times at which any task ran but that of the test."""

    test: trio.lowlevel.Task
    times: list[float] = attrs.Factory(list)

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is not self.test:
            self.times.append(trio.current_time())


@contextmanager
def wakings() -> Iterator[Wakings]:
    instrument = Wakings(trio.lowlevel.current_task())
    trio.lowlevel.add_instrument(instrument)
    try:
        yield instrument
    finally:
        trio.lowlevel.remove_instrument(instrument)
