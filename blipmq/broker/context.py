"""What every part of one broker shares: its settings, its counts, its timers and its journal."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

import attrs

from blipmq.broker.limits import Limits, Retention, Retries
from blipmq.broker.retry import Timers, backoff
from blipmq.broker.stats import Stats
from blipmq.wal.record import Fact, Settled

if TYPE_CHECKING:
    from blipmq.broker.topic import Topic


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
