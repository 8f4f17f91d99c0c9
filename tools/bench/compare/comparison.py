"""What is compared: a load, who bears it, and what is to come of it. Measures nothing."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from enum import Enum

import attrs

from tools.bench.load.runner import Pinning, Result
from tools.bench.load.work import AHEAD_MESSAGES, WINDOW_MESSAGES, Guarantee, Work
from tools.bench.modes import Shape

_AHEAD_BYTES = 1 << 25


class Group(Enum):
    """What is promised to the clients of a comparison."""

    AT_MOST_ONCE = "at most once"
    IN_MEMORY = "at least once, in memory"
    DURABLE = "at least once, durable"
    VERSION_1 = "version 1, one POLL and ACK at a time"
    LIBRARIES = "Python clients"
    LATENCY = "latency"


class Metric(Enum):
    """A figure of a result. `RATE_EACH` is of each subscriber, `RATE` of all together."""

    RATE = "messages/s"
    RATE_EACH = "messages/s each"
    P50 = "p50 µs"
    P99 = "p99 µs"

    @property
    def more_is_better(self) -> bool:
        return self in (Metric.RATE, Metric.RATE_EACH)


@attrs.frozen(kw_only=True)
class Scale:
    """How much is done in one run: so many seconds where as much as goes through is measured.

    `share` is of the messages that are sent one at a time.
    """

    seconds: float = 1.0
    share: float = 1.0


@attrs.frozen(kw_only=True)
class Load:
    """The same for all who are compared. `messages` are those sent one at a time."""

    guarantee: Guarantee
    shape: Shape = Shape.FLOW
    publishers: int = 1
    subscribers: int = 1
    topics: int = 1
    sizes: tuple[int, ...] = (256,)
    rate: float | None = None
    window: int = WINDOW_MESSAGES
    messages: int = 0
    pinned: bool = False
    """Broker and clients share one core; else they run wherever there is room."""

    def work(self, scale: Scale) -> Work:
        """For one run."""
        flow = self.shape is Shape.FLOW
        return Work(
            guarantee=self.guarantee,
            publishers=self.publishers,
            subscribers=self.subscribers,
            topics=self.topics,
            sizes=self.sizes,
            rate=self.rate,
            window=self.window,
            # No broker is to hold more than it may by default, which would be the subject then.
            ahead=min(AHEAD_MESSAGES, _AHEAD_BYTES // max(self.sizes)),
            seconds=scale.seconds if flow else None,
            messages=None if flow else max(self.subscribers, 10, int(self.messages * scale.share)),
            preload=self.shape is Shape.POLLS,
        )

    @property
    def pinning(self) -> Pinning | None:
        if not self.pinned:
            return None
        core = {min(os.sched_getaffinity(0))}
        return Pinning(core, core)


@attrs.frozen(kw_only=True)
class Candidate:
    """One who is compared. `peer` is the name by which it is chosen.

    `versions` are what it needs, each raising Missing when it is not installed. `load` replaces
    that of the comparison.
    """

    name: str
    peer: str
    settings: Mapping[str, str]
    versions: Sequence[Callable[[], str]]
    measure: Callable[[Load, Scale], Result]
    load: Load | None = None


@attrs.frozen
class Target:
    """Ours is at least (at most, for a latency) `factor` times that of the candidate."""

    candidate: str
    factor: float
    metric: Metric = Metric.RATE


@attrs.frozen(kw_only=True)
class Comparison:
    """`ours` beside each of the others. What has no target is compared by the first metric."""

    name: str
    says: str
    group: Group
    load: Load
    ours: Candidate
    others: tuple[Candidate, ...]
    targets: tuple[Target, ...] = ()
    metrics: tuple[Metric, ...] = (Metric.RATE,)

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        return (self.ours, *self.others)
