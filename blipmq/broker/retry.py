"""When things fall due: the backoff of retries, and queues of deadlines."""

from __future__ import annotations

import heapq
from collections import OrderedDict
from typing import Protocol

import attrs

from blipmq.broker.message import Delivery

_BACKOFF_MAX_SECONDS = 24 * 60 * 60.0
_STALE_MAX = 64


def backoff(base_ms: int, attempt: int) -> float:
    """Seconds until delivery number `attempt` (from 1) counts as failed: doubled each time.

    Never more than a day.
    """
    if attempt > 64:
        return _BACKOFF_MAX_SECONDS
    return float(min(base_ms / 1000 * 2 ** (attempt - 1), _BACKOFF_MAX_SECONDS))


@attrs.define(eq=False)
class DeliveryDeadlines:
    """The deliveries of one subscription, by deadline.

    All deliveries of one attempt wait equally long, so each attempt is a queue in which the
    earliest deadline is first: adding, removing and looking cost the same for any number.
    """

    _queues: dict[int, OrderedDict[Delivery, None]] = attrs.Factory(dict)

    def add(self, delivery: Delivery) -> None:
        """`delivery.deadline` is not before that of any of the same attempt added earlier."""
        self._queues.setdefault(delivery.attempt, OrderedDict())[delivery] = None

    def discard(self, delivery: Delivery) -> None:
        queue = self._queues.get(delivery.attempt)
        if queue is not None:
            queue.pop(delivery, None)
            if not queue:
                del self._queues[delivery.attempt]

    def earliest(self) -> float | None:
        """The next deadline, if there is a delivery."""
        return min((next(iter(queue)).deadline for queue in self._queues.values()), default=None)

    def pop_due(self, now: float) -> list[Delivery]:
        """Take out what is due, by number."""
        due: list[Delivery] = []
        for attempt, queue in list(self._queues.items()):
            while queue and next(iter(queue)).deadline <= now:
                due.append(queue.popitem(last=False)[0])
            if not queue:
                del self._queues[attempt]
        due.sort(key=lambda delivery: delivery.first)
        return due


class Timed(Protocol):
    """Something that has work to do at some time."""

    def tick(self, now: float) -> float | None:
        """Do what is due, and say when to come again, if ever."""


@attrs.define(eq=False)
class Timers:
    """The earliest deadline of many things. A thing is there once, at its earliest time.

    What is cancelled is let go at once, with all the messages that it may hold.
    """

    _heap: list[tuple[float, int]] = attrs.Factory(list)
    """Of time and sequence number, stale ones included."""
    _entries: dict[Timed, tuple[float, int]] = attrs.Factory(dict)
    _by_sequence: dict[int, Timed] = attrs.Factory(dict)
    _sequence: int = 0

    def at(self, timed: Timed, time: float) -> None:
        """Call `timed.tick` at `time`, unless it is called earlier anyway."""
        entry = self._entries.get(timed)
        if entry is not None and entry[0] <= time:
            return
        if entry is not None:
            del self._by_sequence[entry[1]]
        elif time == float("inf"):
            return
        self._sequence += 1
        self._entries[timed] = time, self._sequence
        self._by_sequence[self._sequence] = timed
        heapq.heappush(self._heap, (time, self._sequence))
        if len(self._heap) > 2 * len(self._entries) + _STALE_MAX:
            self._heap = sorted(self._entries.values())

    def cancel(self, timed: Timed) -> None:
        entry = self._entries.pop(timed, None)
        if entry is not None:
            del self._by_sequence[entry[1]]

    @property
    def next(self) -> float | None:
        """When `run` has something to do, if ever."""
        heap = self._heap
        while heap and heap[0][1] not in self._by_sequence:
            heapq.heappop(heap)
        return heap[0][0] if heap else None

    def run(self, now: float) -> list[Timed]:
        """Tick everything that is due. Returns what asked for no further tick."""
        idle: list[Timed] = []
        while (time := self.next) is not None and time <= now:
            timed = self._by_sequence[heapq.heappop(self._heap)[1]]
            self.cancel(timed)
            again = timed.tick(now)
            if again is None:
                idle.append(timed)
            else:
                # Something that is due again at once may not keep the others waiting for ever.
                self.at(timed, again if again > now else now + 0.001)
        return idle
