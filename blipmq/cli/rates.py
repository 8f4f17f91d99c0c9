"""What happens in a second, from two looks at a broker. Knows no API, no clock and no terminal."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from blipmq.broker.overview import SubscriptionView, TopicView


@attrs.frozen
class Sample:
    """One look, at a time in seconds. `counts` are those of the API's overview."""

    at: float
    version: str
    ready: bool
    uptime_seconds: float
    counts: Mapping[str, object]
    topics: tuple[TopicView, ...]
    subscriptions: tuple[SubscriptionView, ...]

    def count(self, name: str) -> int:
        """A count; the sum of one that has parts, as by QoS or by reason."""
        return _sum(self.counts.get(name))


def _sum(value: object) -> int:
    if isinstance(value, Mapping):
        return sum(map(_sum, value.values()))
    return value if isinstance(value, int) else 0


COUNTED = ("published", "delivered", "redelivered", "expired", "dead_letters", "dropped", "nacks")


@attrs.frozen
class Rates:
    """Each a second; None where there was no earlier look, or the daemon began anew since."""

    counts: dict[str, float | None]
    topics: dict[str, float | None]
    """Messages published, by topic."""
    backlogs: dict[int, float | None]
    """By how much the backlog of a subscription grows, by id."""


def rates(before: Sample | None, now: Sample) -> Rates:
    """What happened between two looks."""
    if before is not None and (now.at <= before.at or now.uptime_seconds < before.uptime_seconds):
        before = None
    topics = {} if before is None else {row.topic: row.published for row in before.topics}
    backlogs = {} if before is None else {s.id: s.backlog.messages for s in before.subscriptions}
    seconds = 0.0 if before is None else now.at - before.at

    def rate(earlier: int | None, later: int, *, falls: bool = False) -> float | None:
        if earlier is None or (later < earlier and not falls):
            return None
        return (later - earlier) / seconds

    return Rates(
        {
            name: rate(None if before is None else before.count(name), now.count(name))
            for name in COUNTED
        },
        {row.topic: rate(topics.get(row.topic), row.published) for row in now.topics},
        {
            row.id: rate(backlogs.get(row.id), row.backlog.messages, falls=True)
            for row in now.subscriptions
        },
    )
