"""What the facts of a log come to: which numbers of which topic somebody still wants.

Works on numbers alone, so that a log of any length is read without its messages.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort

import attrs

from blipmq.wal.facts import (
    Attempted,
    Checkpoint,
    Closed,
    Continued,
    Fact,
    Moved,
    Opened,
    RunRecord,
    Seen,
    Settled,
    SubscriptionState,
    Synced,
)

Ranges = list[tuple[int, int, int]]
"""First number, last number, attempts; ascending, without overlap."""


@attrs.define(eq=False)
class RestoredSubscription:
    """A durable subscription: it wants the numbers in `unsettled`, and from `cursor` on."""

    state: SubscriptionState
    """As the log first told of it; what became of it since is in the rest."""
    cursor: int
    unsettled: Ranges

    @classmethod
    def of(cls, state: SubscriptionState) -> RestoredSubscription:
        ranges = [(r.first, r.last, r.attempts) for r in state.unsettled]
        return cls(state, state.cursor, ranges)

    @property
    def id(self) -> int:
        return self.state.id

    @property
    def topic(self) -> bytes:
        return self.state.topic

    @property
    def ends_with_daemon(self) -> bool:
        """Whether it was an unnamed one of a connection."""
        return self.state.shared and not self.state.name

    def settle(self, first: int, last: int) -> None:
        """Nothing in first to last is wanted any more."""
        if first > self.cursor:
            self.unsettled.append((self.cursor, first - 1, 0))
        else:
            start, stop = self._overlapping(first, last)
            self.unsettled[start:stop] = _without(self.unsettled[start:stop], first, last)
        self.cursor = max(self.cursor, last + 1)

    def _overlapping(self, first: int, last: int) -> tuple[int, int]:
        """Which of the unsettled ranges hold any of first to last: from start, before stop."""
        start = bisect_left(self.unsettled, first, key=_last)
        return start, bisect_right(self.unsettled, last, start, key=_first)

    def attempt(self, first: int, last: int, attempts: int) -> None:
        """What is wanted of first to last was delivered so often."""
        wanted = [(a, b, attempts) for a, b, _ in self.wanted(first, last)]
        if wanted:
            self.settle(first, last)
            for range_ in wanted:
                insort(self.unsettled, range_)

    def wanted(self, first: int, last: int) -> Ranges:
        """What it wants of first to last."""
        start, stop = self._overlapping(first, last)
        found = [
            (max(a, first), min(b, last), attempts) for a, b, attempts in self.unsettled[start:stop]
        ]
        if last >= self.cursor:
            found.append((max(first, self.cursor), last, 0))
        return found


def _first(range_: tuple[int, int, int]) -> int:
    return range_[0]


def _last(range_: tuple[int, int, int]) -> int:
    return range_[1]


def _without(ranges: Ranges, first: int, last: int) -> Ranges:
    kept: Ranges = []
    for a, b, attempts in ranges:
        if b < first or last < a:
            kept.append((a, b, attempts))
            continue
        if a < first:
            kept.append((a, first - 1, attempts))
        if last < b:
            kept.append((last + 1, b, attempts))
    return kept


@attrs.define(eq=False)
class Restoration:
    """Apply the facts in order, then ask which runs are wanted."""

    subscriptions: dict[int, RestoredSubscription] = attrs.Factory(dict)
    reserved: int = 0
    seen: tuple[Seen, ...] = ()
    _by_topic: dict[bytes, list[RestoredSubscription]] = attrs.Factory(dict)
    _kept: dict[bytes, int] = attrs.Factory(dict)
    _kept_from: int = 0

    def apply(self, id_: int, fact: Fact) -> None:
        """`id_` is that of the fact's record."""
        match fact:
            case Checkpoint():
                self._checkpoint(id_, fact)
            case Opened():
                self._open(fact.subscription)
            case Closed():
                self._close(fact)
            case Settled():
                subscription = self.subscriptions.get(fact.subscription)
                if subscription is not None:
                    subscription.settle(fact.first, fact.last)
            case Attempted():
                subscription = self.subscriptions.get(fact.subscription)
                if subscription is not None:
                    subscription.attempt(fact.first, fact.last, fact.attempts)
            case Moved():
                self.apply(id_, fact.settled)
            case RunRecord() | Synced() | Continued():
                pass

    def end_unnamed(self, next_number: int) -> None:
        """Forget those that ended with their connections, which are all gone."""
        for subscription in list(self.subscriptions.values()):
            if subscription.ends_with_daemon:
                self._close(Closed(subscription.id, next_number))

    def _checkpoint(self, id_: int, fact: Checkpoint) -> None:
        self.reserved = max(self.reserved, fact.reserved)
        self.seen = fact.seen
        self.subscriptions.clear()
        self._by_topic.clear()
        for state in fact.subscriptions:
            self._open(state)
        self._kept = dict(fact.kept)
        self._kept_from = id_

    def _open(self, state: SubscriptionState) -> None:
        # A checkpoint may know a subscription whose own record comes after it.
        if state.id not in self.subscriptions:
            subscription = self.subscriptions[state.id] = RestoredSubscription.of(state)
            if not state.pattern:
                self._by_topic.setdefault(state.topic, []).append(subscription)

    def _close(self, fact: Closed) -> None:
        subscription = self.subscriptions.pop(fact.subscription, None)
        if subscription is not None and not subscription.state.pattern:
            others = self._by_topic[subscription.topic]
            others.remove(subscription)
            if not others:
                del self._by_topic[subscription.topic]
                self._kept[subscription.topic] = fact.next_number

    def wanted(self, record: RunRecord) -> list[tuple[int, Ranges]]:
        """Which subscriptions want what of a run."""
        last = record.first + record.count - 1
        asked = ((s.id, s.wanted(record.first, last)) for s in self._by_topic.get(record.topic, ()))
        return [(id_, ranges) for id_, ranges in asked if ranges]

    def kept_from(self, topic: bytes) -> int:
        """The number from which on the messages of a topic without a subscription are kept."""
        return self._kept.get(topic, self._kept_from)

    def kept(self, record: RunRecord) -> bool:
        """Whether any of a run is kept for a subscription that is to come."""
        if record.topic in self._by_topic:
            return False
        return record.first + record.count > self.kept_from(record.topic)
