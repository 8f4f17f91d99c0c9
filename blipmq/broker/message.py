"""What the broker holds of messages: nodes of a topic's list, and deliveries that wait."""

from __future__ import annotations

import heapq
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator

import attrs

from blipmq.broker.stats import Stats
from blipmq.protocol.run import Run

NEVER = float("inf")
_STALE_MAX = 64
OVERHEAD_BYTES = 512
"""What a run costs in memory besides its frames, roughly: it bounds floods of tiny messages."""


@attrs.define(eq=False)
class Charge:
    """Counts in `stats.memory_bytes` for as long as the run that holds it is referred to."""

    stats: Stats
    bytes: int

    def __attrs_post_init__(self) -> None:
        self.stats.memory_bytes += self.bytes

    def __del__(self) -> None:
        self.stats.memory_bytes -= self.bytes


@attrs.define(eq=False)
class Node:
    """One run in a topic's list.

    The list ends in a node without a run, which the next publish fills; so a cursor at the end
    holds no message. A node in the middle without a run is one whose commit failed.
    `messages_before` and `bytes_before` count what came before it in the topic, and the `volatile`
    ones what of it was of QoS 0.
    """

    messages_before: int
    bytes_before: int
    run: Run | None = None
    volatile_messages_before: int = 0
    volatile_bytes_before: int = 0
    next: Node | None = None
    committed: bool = False
    arrived: float = 0.0
    expires: float = NEVER

    @property
    def count(self) -> int:
        return 0 if self.run is None else self.run.count

    @property
    def size(self) -> int:
        return 0 if self.run is None else self.run.size

    @property
    def durable_messages_before(self) -> int:
        return self.messages_before - self.volatile_messages_before

    @property
    def durable_bytes_before(self) -> int:
        return self.bytes_before - self.volatile_bytes_before

    def following(self) -> Node:
        """The node behind this one, whose run is there."""
        count, size = self.count, self.size
        volatile = self.run is not None and not self.run.qos
        return Node(
            self.messages_before + count,
            self.bytes_before + size,
            None,
            self.volatile_messages_before + (count if volatile else 0),
            self.volatile_bytes_before + (size if volatile else 0),
        )


NOWHERE = Node(1 << 62, 1 << 62)
"""Where a cursor stands that is read from the log: behind every frontier, so it holds no run."""


@attrs.define(eq=False)
class Delivery:
    """Numbers first to last of one run, delivered `attempt` times to one subscription.

    `holder` is the session that has it, until `deadline`; None: it waits to be delivered again,
    or, with attempt 0, for the first time, in the place of a message that arrived at `since`.
    """

    first: int
    last: int
    run: Run
    attempt: int
    expires: float
    arrived: float
    deadline: float = NEVER
    since: float = attrs.field()
    holder: object | None = None
    recovered: bool = False
    """Whether it was read back from the log; then it may have been delivered before."""
    receiver: object | None = None
    """The attachment that received it last, until that has settled it or is gone."""
    cursor: object | None = None
    """Of a shared subscription: the cursor that it belongs to."""
    key_member: object | None = None
    """The attachment that holds the keys of these messages, if that was decided."""
    reserved: bool = False
    """Whether it waits for `key_member` alone."""

    @since.default
    def _since(self) -> float:
        return self.arrived

    @property
    def count(self) -> int:
        return self.last - self.first + 1

    @property
    def size(self) -> int:
        base, offsets = self.run.first, self.run.offsets
        return offsets[self.last - base + 1] - offsets[self.first - base]

    def split(self, first: int) -> Delivery:
        """Cut this one off before `first`, and return the rest, from `first` on."""
        assert self.first < first <= self.last
        rest = attrs.evolve(self, first=first)
        self.last = first - 1
        return rest


def _first(delivery: Delivery) -> int:
    return delivery.first


@attrs.define(eq=False)
class DeliveryTable:
    """Deliveries by number; no two overlap. Counts their messages and bytes."""

    _sorted: list[Delivery] = attrs.Factory(list)
    messages: int = 0
    bytes: int = 0

    def __iter__(self) -> Iterator[Delivery]:
        return iter(self._sorted)

    def __bool__(self) -> bool:
        return bool(self._sorted)

    def __len__(self) -> int:
        return len(self._sorted)

    @property
    def lowest(self) -> Delivery | None:
        return self._sorted[0] if self._sorted else None

    def add(self, delivery: Delivery) -> None:
        self.messages += delivery.count
        self.bytes += delivery.size
        if not self._sorted or self._sorted[-1].first < delivery.first:
            self._sorted.append(delivery)
        else:
            insort(self._sorted, delivery, key=_first)

    def remove(self, delivery: Delivery) -> None:
        at = bisect_left(self._sorted, delivery.first, key=_first)
        assert self._sorted[at] is delivery
        del self._sorted[at]
        self.messages -= delivery.count
        self.bytes -= delivery.size

    def overlapping(self, first: int, last: int) -> list[Delivery]:
        """Those that hold any number in first to last. The cost follows what is found."""
        items = self._sorted
        start = bisect_right(items, first, key=_first)
        if start and items[start - 1].last >= first:
            start -= 1
        stop = start
        while stop < len(items) and items[stop].first <= last:
            stop += 1
        return items[start:stop]

    def starting_at(self, first: int) -> Delivery | None:
        """The one whose first number this is."""
        at = bisect_left(self._sorted, first, key=_first)
        found = self._sorted[at : at + 1]
        return found[0] if found and found[0].first == first else None


@attrs.define(eq=False)
class ReturnedTable(DeliveryTable):
    """Deliveries that nobody holds; it also knows which of them has waited longest.

    `since` does not change while a delivery is in the table.
    """

    _queue: list[tuple[float, int]] = attrs.Factory(list)
    """A heap of `since` and first number; of those that are gone too, so it holds no delivery."""

    def add(self, delivery: Delivery) -> None:
        DeliveryTable.add(self, delivery)
        heapq.heappush(self._queue, (delivery.since, delivery.first))
        if len(self._queue) > 2 * len(self._sorted) + _STALE_MAX:
            self._queue = [(waiting.since, waiting.first) for waiting in self]
            heapq.heapify(self._queue)

    @property
    def longest_waiting(self) -> Delivery | None:
        """Of those that have waited equally long, the one with the lowest number."""
        queue = self._queue
        while queue:
            since, first = queue[0]
            delivery = self.starting_at(first)
            if delivery is not None and delivery.since == since:
                return delivery
            heapq.heappop(queue)
        return None
