"""What every part of one broker shares: its settings, its counts, its timers and its journal."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import attrs

from blipmq.broker.limits import Limits, Retention, Retries
from blipmq.broker.retry import Timers, backoff
from blipmq.broker.stats import DropReason, Stats
from blipmq.protocol.buffers import Buffers
from blipmq.protocol.run import Run
from blipmq.wal.facts import Fact, Settled

if TYPE_CHECKING:
    from blipmq.broker.cursor import Cursor
    from blipmq.broker.log_cursor import LogCursor
    from blipmq.broker.relay import Route
    from blipmq.broker.shared_cursor import SharedCursor
    from blipmq.broker.topic import Topic


class Bury(Protocol):
    """Makes dead letters."""

    def __call__(
        self,
        cursor: Cursor,
        run: Run,
        first: int,
        last: int,
        reason: DropReason | None,
        now: float,
    ) -> bool:
        """Move messages that are given up to the dead letters; None: they have expired.

        Returns whether their settlement is logged with that; else it is still to be logged.
        """


def _bury_nothing(
    cursor: Cursor, run: Run, first: int, last: int, reason: DropReason | None, now: float
) -> bool:
    return False


def _nothing() -> None:
    pass


@attrs.define(eq=False)
class Context:
    """`journal` gathers, in order, the facts that are to be logged; None when there is no log."""

    limits: Limits
    retention: Retention
    retries: Retries
    stats: Stats
    journal: list[Fact] | None
    timers: Timers = attrs.Factory(Timers)
    keeping: OrderedDict[Topic, None] = attrs.Factory(OrderedDict)
    """The topics that keep messages; the one that began first is first."""
    next_number: int = 1
    epoch_ms: float = 0.0
    """The time of day at `now` 0, in milliseconds since 1970."""
    bury: Bury = _bury_nothing
    loads: OrderedDict[LogCursor, None] = attrs.Factory(OrderedDict)
    """The cursors that wait to be read from the log."""
    work: int = 0
    """Counts what one request may cause much of; who lets others run between requests resets it."""
    pressed: dict[SharedCursor, float] = attrs.Factory(dict)
    """QoS 0 cursors that lag, with the time until which publishers wait for them."""
    routes: dict[bytes, Route] = attrs.Factory(dict)
    """Of topics whose QoS 0 messages need not go by way of their lists."""
    buffers: Buffers = attrs.Factory(Buffers)
    on_load: Callable[[], None] = _nothing
    """Called when there is something in `loads` again."""

    @classmethod
    def create(
        cls,
        limits: Limits | None = None,
        retention: Retention | None = None,
        retries: Retries | None = None,
        *,
        stats: Stats | None = None,
        durable: bool = False,
    ) -> Context:
        """Of a broker that knows nothing yet."""
        return cls(
            limits or Limits(),
            retention or Retention(),
            retries or Retries(),
            stats or Stats(),
            [] if durable else None,
        )

    @property
    def durable(self) -> bool:
        """Whether there is a log."""
        return self.journal is not None

    def arrived(self, time_ms: int) -> float:
        """As `now`: when something arrived that was written at this time of day."""
        return (time_ms - self.epoch_ms) / 1000

    def time_ms(self, now: float) -> int:
        """The time of day, in milliseconds since 1970."""
        return max(0, round(self.epoch_ms + now * 1000))

    def want_load(self, cursor: LogCursor) -> None:
        """Have the log read for this cursor."""
        self.loads[cursor] = None
        self.on_load()

    def log(self, fact: Fact) -> None:
        journal = self.journal
        if journal is None:
            return
        if isinstance(fact, Settled) and journal and isinstance(journal[-1], Settled):
            last = journal[-1]
            if last.subscription == fact.subscription and last.last + 1 == fact.first:
                journal[-1] = Settled(fact.subscription, last.first, fact.last)
                return
        journal.append(fact)

    def give_number(self, count: int = 1) -> int:
        """The first of `count` numbers that were never given out before."""
        first = self.next_number
        self.next_number += count
        return first

    def backoff(self, attempt: int) -> float:
        """Seconds that a delivery may stay unsettled."""
        return backoff(self.retries.retry_backoff_ms, attempt)

    @property
    def max_attempts(self) -> int:
        return max(1, self.retries.max_retries)
