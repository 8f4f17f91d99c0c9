"""Messages that the broker publishes itself: dead letters, and delayed ones that fell due.

Each is logged in one record with what it settles, so that a crash leaves the one or the other.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Final

import attrs

from blipmq.broker.context import Context
from blipmq.broker.cursor import Cursor
from blipmq.broker.message import OVERHEAD_BYTES, Charge
from blipmq.broker.publication import Place, Publication
from blipmq.broker.stats import DropReason
from blipmq.broker.topic import DEAD_LETTERS, Topic
from blipmq.broker.topics import Topics
from blipmq.errors import LimitExceeded
from blipmq.protocol.run import Run, made_run
from blipmq.wal.facts import Moved, RunRecord, SubscriptionState, UnsettledRange

_TOPIC_BYTES_MAX = 0xFFFF
_SPENT = 0xFFFF
"""More attempts than any subscription allows, unless it allows any number."""
_RUN_BYTES_MAX = 1024 * 1024
"""A dead letter run is not longer, unless one message is."""

REASONS: Final[dict[DropReason | None, str]] = {
    None: "expired",
    DropReason.MAX_RETRIES: "max attempts",
    DropReason.REJECTED: "rejected",
}
"""What a dead letter says of why it was given up."""


@attrs.frozen(eq=False)
class _Moving:
    """`attempts` is what a start is told that finds the messages unsettled still."""

    topic: bytes
    moved: Moved
    attempts: int


@attrs.define(eq=False)
class Moves:
    """`publish` takes what is to be logged and committed. Moves that are not committed yet still
    count as unsettled where they came from."""

    context: Context
    topics: Topics
    publish: Callable[[Publication, Moved, float], None]
    _moving: dict[int, _Moving] = attrs.Factory(dict)

    def bury(
        self,
        cursor: Cursor,
        run: Run,
        first: int,
        last: int,
        reason: DropReason | None,
        now: float,
    ) -> bool:
        """As `Bury`."""
        text = REASONS.get(reason)
        if text is None or not self.context.retention.dead_letters:
            return False
        topic = None if cursor.topic.holds_dead_letters else self._dead_letters(cursor.topic.name)
        if topic is None:
            self.context.stats.dropped[DropReason.DEAD_LETTER] += last - first + 1
            return False
        # Who has been given up for that is given up again, and not delivered once more.
        attempts = _SPENT if reason is DropReason.MAX_RETRIES else 0
        begin = first
        frames: list[bytes] = []
        size = 0
        for number in range(first, last + 1):
            frames.append(run.dead_letter(number - run.first, topic.name, text, cursor.name))
            size += len(frames[-1])
            if size >= _RUN_BYTES_MAX or number == last:
                made = made_run(topic.name, 1, frames)
                origin = cursor.topic.name, cursor.id, begin, number
                self.move(topic, made, origin, now, attempts)
                begin, frames, size = number + 1, [], 0
        self.context.stats.dead_letters += last - first + 1
        return True

    def _dead_letters(self, origin: bytes) -> Topic | None:
        """The topic for the dead letters of another, if there is room for them."""
        name = DEAD_LETTERS + origin
        if len(name) > _TOPIC_BYTES_MAX:
            return None
        try:
            topic = self.topics.make(name)
            self.topics.check_memory(OVERHEAD_BYTES)
        except LimitExceeded:
            return None
        return topic

    def move(
        self,
        topic: Topic,
        run: Run,
        origin: tuple[bytes, int, int, int],
        now: float,
        attempts: int = 0,
    ) -> None:
        """Publish a run in the place of what it settles: (topic, cursor, first, last)."""
        context = self.context
        run.stamp(context.give_number(run.count))
        run.charge = Charge(context.stats, run.size + OVERHEAD_BYTES)
        node = topic.append(run, now)
        name, cursor, first, last = origin
        record = RunRecord(run.topic, run.first, run.count, run.data())
        moved = Moved(cursor, first, last, record)
        if context.durable:
            self._moving[run.first] = _Moving(name, moved, attempts)
        self.publish(Publication(run, Place(topic, node), None), moved, now)

    def committed(self, run: Run) -> None:
        self._moving.pop(run.first, None)

    def with_unsettled(self, states: list[SubscriptionState]) -> list[SubscriptionState]:
        """What a checkpoint says of subscriptions: what is being moved is not settled yet."""
        moving: dict[int, list[UnsettledRange]] = {}
        for one in self._moving.values():
            moved = one.moved
            range_ = UnsettledRange(moved.first, moved.last, one.attempts)
            moving.setdefault(moved.subscription, []).append(range_)
        return [
            attrs.evolve(state, unsettled=_sorted([*state.unsettled, *moving[state.id]]))
            if state.id in moving
            else state
            for state in states
        ]

    def wanted_from(self, topic: bytes) -> int | None:
        """The lowest number of a topic that is being moved, if any."""
        firsts = (one.moved.first for one in self._moving.values() if one.topic == topic)
        return min(firsts, default=None)


def _sorted(ranges: list[UnsettledRange]) -> tuple[UnsettledRange, ...]:
    return tuple(sorted(ranges, key=attrgetter("first")))
