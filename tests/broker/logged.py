"""A broker with a log in memory, moved by hand: its backlogs are read back, and it restarts."""

from __future__ import annotations

from typing import Final

import attrs

from blipmq.broker.broker import Batch, Broker
from blipmq.broker.limits import Limits, Retention, Retries
from tests.broker.memory_log import MemoryLog
from tests.broker.world import World

EPOCH_MS: Final = 1_700_000_000_000
"""The time of day at 0."""


@attrs.define(eq=False)
class LoggedWorld(World):
    """What is committed is in `log`. `read_bytes` is what one read gives, about."""

    log: MemoryLog = attrs.field(kw_only=True)
    read_bytes: int = attrs.field(default=1 << 62, kw_only=True)

    @classmethod
    def logged(
        cls,
        limits: Limits | None = None,
        retention: Retention | None = None,
        retries: Retries | None = None,
        *,
        read_bytes: int = 1 << 62,
    ) -> LoggedWorld:
        log = MemoryLog(limits or Limits(), retention or Retention(), retries or Retries())
        return cls(log.start(0.0, EPOCH_MS), log=log, read_bytes=read_bytes)

    @property
    def time_ms(self) -> int:
        return EPOCH_MS + round(self.now * 1000)

    def commit(self) -> Batch | None:
        """The log takes everything that waits for it, and what is wanted is read from it."""
        batch = self.broker.handoff()
        if batch is not None:
            self.log.append(batch, self.time_ms)
            self.broker.committed(batch, self.now)
        self.read()
        return batch

    def read(self) -> None:
        """Read from the log what the broker wants."""
        while self.read_once():
            pass

    def read_once(self) -> bool:
        """One part; False when nothing is wanted."""
        load = self.broker.next_load()
        if load is not None:
            runs, reached = self.log.read(load, self.read_bytes)
            self.broker.loaded(load, runs, reached, None, self.now)
        return load is not None

    def checkpoint(self) -> None:
        self.log.checkpoint(self.broker)

    def crash(self) -> Broker:
        """What is not in the log is lost. A new broker goes on with the log."""
        self.broker = self.log.start(self.now, self.time_ms)
        return self.broker
