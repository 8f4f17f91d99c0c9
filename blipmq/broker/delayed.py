"""Messages that are to be published later.

In the log they are a topic without a name and its one subscription, which has settled what was
published meanwhile. So a delayed message has a number of its own while it waits.
"""

from __future__ import annotations

import heapq
from typing import Final

import attrs

from blipmq.broker.context import Context
from blipmq.broker.message import NEVER, Delivery, DeliveryTable
from blipmq.broker.moves import Moves
from blipmq.broker.topics import Topics
from blipmq.errors import LimitExceeded
from blipmq.protocol.run import Run, made_run
from blipmq.wal.facts import DELAYED_ID, DELAYED_TOPIC, Opened, SubscriptionState, UnsettledRange

_RETRY_SECONDS: Final = 1.0
_ONCE_MAX: Final = 1024
"""Runs that are published in one go."""


@attrs.define(eq=False)
class Delayed:
    """Holds them in memory until they are due; `tick` is called then."""

    context: Context
    topics: Topics
    moves: Moves
    _runs: DeliveryTable = attrs.Factory(DeliveryTable)
    _due: list[tuple[float, int]] = attrs.Factory(list)
    """A heap of time and first number."""
    _opened: bool = False

    def accept(self, run: Run, now: float) -> None:
        """A run with a delay is to be logged; it waits for that first."""
        self._add(Delivery(run.first, run.last, run, 0, NEVER, now))
        if not self._opened:
            self._opened = True
            self.context.log(Opened(self.state()))

    def committed(self, run: Run, now: float) -> None:
        """It is in the log."""
        self._wait(run.first, now + run.delay_ms / 1000)

    def failed(self, run: Run) -> None:
        """It is not, and was not published."""
        delivery = self._runs.starting_at(run.first)
        assert delivery is not None
        self._remove(delivery)

    def reopen(self) -> None:
        """The log knows of the subscription already."""
        self._opened = True

    def restore(self, run: Run, first: int, last: int, arrived: float) -> None:
        """These wait again after a restart."""
        self._add(Delivery(first, last, run, 0, NEVER, arrived))
        self._wait(first, arrived + run.delay_ms / 1000)

    def _add(self, delivery: Delivery) -> None:
        self._runs.add(delivery)
        self.context.stats.delayed += delivery.count

    def _remove(self, delivery: Delivery) -> None:
        self._runs.remove(delivery)
        self.context.stats.delayed -= delivery.count

    def _wait(self, first: int, due: float) -> None:
        heapq.heappush(self._due, (due, first))
        self.context.timers.at(self, due)

    def tick(self, now: float) -> float | None:
        """Publish what is due. Returns when the next one is, if any."""
        for _ in range(_ONCE_MAX):
            if not self._due or self._due[0][0] > now:
                break
            _, first = heapq.heappop(self._due)
            delivery = self._runs.starting_at(first)
            assert delivery is not None
            if not self._publish(delivery, now):
                heapq.heappush(self._due, (now + _RETRY_SECONDS, first))
        return self._due[0][0] if self._due else None

    def _publish(self, delivery: Delivery, now: float) -> bool:
        run = delivery.run
        try:
            topic = self.topics.make(run.topic)
        except LimitExceeded:
            return False
        self._remove(delivery)
        first, last = delivery.first, delivery.last
        frames = [run.undelayed(number - run.first) for number in range(first, last + 1)]
        origin = DELAYED_TOPIC, DELAYED_ID, first, last
        self.moves.move(topic, made_run(run.topic, 1, frames), origin, now)
        return True

    @property
    def floor(self) -> int | None:
        """The lowest number of one that waits, if any."""
        lowest = self._runs.lowest
        return None if lowest is None else lowest.first

    def state(self) -> SubscriptionState:
        """What the log has to know."""
        ranges = tuple(UnsettledRange(d.first, d.last, 0) for d in self._runs)
        number = self.context.next_number
        return SubscriptionState(DELAYED_ID, "", DELAYED_TOPIC, number, ranges)

    def states(self) -> list[SubscriptionState]:
        return [self.state()] if self._opened else []
