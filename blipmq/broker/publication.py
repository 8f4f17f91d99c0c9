"""What was published at QoS 1 and is not committed yet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import attrs

from blipmq.broker.dedup import Pending
from blipmq.broker.message import Node
from blipmq.broker.topic import Topic
from blipmq.protocol.run import Run
from blipmq.wal.facts import Fact


class Publisher(Protocol):
    """Who published a run of QoS 1, and is owed an answer."""

    def on_committed(self, run: Run) -> None:
        """The run is in the log."""

    def on_failed(self, run: Run, reason: str) -> None:
        """The run was not published: each message of it is owed a NACK 500."""


@attrs.frozen(eq=False)
class Place:
    """Where a run stands in its topic."""

    topic: Topic
    node: Node


@attrs.frozen(eq=False)
class Publication:
    """A QoS 1 run that is not committed yet.

    `place` is None for messages that are published later. `publisher` is None for what the broker
    publishes itself: that is tried again and again.
    """

    run: Run
    place: Place | None
    publisher: Publisher | None
    pending: Pending | None = None


@attrs.frozen(eq=False)
class Batch:
    """What is to be logged together: facts in their order, and the publications among them.

    `told` is called when all of that is in the log.
    """

    facts: list[Fact]
    publications: list[Publication]
    next_number: int
    told: list[Callable[[], None]] = attrs.Factory(list)
