"""What an operator may do to backlogs: purge them, delete subscriptions, resend dead letters.

All of it is logged as any settlement is. What a consumer holds at the moment stays with it: only
what waits is purged, dropped or resent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

import attrs

from blipmq.broker.context import Context
from blipmq.broker.cursor import Cursor
from blipmq.broker.message import OVERHEAD_BYTES
from blipmq.broker.moves import Moves
from blipmq.broker.overview import Steps
from blipmq.broker.parking import Parking
from blipmq.broker.shared import SharedSubscription
from blipmq.broker.shared_cursor import SharedCursor
from blipmq.broker.sharing import Sharing
from blipmq.broker.stats import DropReason
from blipmq.broker.subscription import Subscription
from blipmq.broker.topic import DEAD_LETTERS, Topic
from blipmq.broker.topics import Topics
from blipmq.errors import BlipMQError, Unavailable
from blipmq.protocol.run import Run, made_run
from blipmq.wal.facts import Closed, Opened, SubscriptionState

HOLDER: Final = b"blipmq-dead-letters"
"""The name of the subscription that is made for kept dead letters of which some are resent."""
_STEP: Final = 256
"""How many places of subscriptions in topics one step purges."""

Range = tuple[int, int]
"""First number, last number."""


class Missing(BlipMQError):
    """There is no such topic, subscription or dead letter."""


class Conflict(BlipMQError):
    """It cannot be done as things stand; the text says what would help."""


@attrs.frozen(eq=False)
class Letters:
    """Where the dead letters of a topic are: with a subscription, or kept (`cursor` is None)."""

    topic: Topic
    cursor: Cursor | None
    subscription: Subscription | SharedSubscription | None


@attrs.frozen(eq=False)
class Letter:
    """One dead letter: message `index` of a run, and the time of day when it was published."""

    run: Run
    index: int
    time_ms: int

    @property
    def number(self) -> int:
        return self.run.first + self.index

    @property
    def size(self) -> int:
        """Bytes of its frame."""
        return self.run.offsets[self.index + 1] - self.run.offsets[self.index]


@attrs.define(eq=False)
class Operator:
    """Acts on one broker. `close` ends a version 1 subscription, with what waits in it."""

    context: Context
    topics: Topics
    sharing: Sharing
    moves: Moves
    parking: Parking
    version_1: dict[int, Subscription]
    close: Callable[[Subscription], None]

    # Purging

    def purge_topic(self, name: str, now: float) -> Steps[int]:
        """Settle all that waits in a topic, for each of its subscriptions, and what is kept.

        But for what is on its way to attachments at QoS 0 on patterns, with that of other topics.
        Returns how many deliveries will not be. Raises Missing.
        """
        topic = self._topic(name.encode("utf-8", "surrogatepass"))
        purged = yield from _purge(topic.cursors, now)
        for cursor in topic.cursors:
            if isinstance(cursor, SharedCursor) and not cursor.subscription.pattern:
                purged += _purge_unsent(cursor.subscription)
        return purged + self._purge_kept(topic)

    def purge(self, id_: int, now: float) -> Steps[int]:
        """Settle all that waits for a subscription. Returns how many. Raises Missing."""
        found = self._subscription(id_)
        cursors: Sequence[Cursor]
        cursors = [found] if isinstance(found, Subscription) else [*found.cursors.values()]
        purged = yield from _purge(cursors, now)
        return purged if isinstance(found, Subscription) else purged + _purge_unsent(found)

    def _purge_kept(self, topic: Topic) -> int:
        purged = topic.kept_messages
        if not purged:
            return 0
        topic.drop_kept(DropReason.PURGED)
        # As if a subscription had come for them, and gone.
        id_, end = self.context.give_number(), topic.first_uncommitted
        state = SubscriptionState(id_, "", topic.name, end, (), shared=True)
        self.context.log(Opened(state))
        self.context.log(Closed(id_, end))
        self.topics.forget(topic)
        return purged

    # Deleting

    def delete(self, id_: int, now: float) -> int:
        """End a subscription; its members are told. Returns how many messages it had.

        Raises Missing, and Conflict for one of version 1 whose connection is there.
        """
        found = self._subscription(id_)
        held = found.held
        if isinstance(found, SharedSubscription):
            self.sharing.delete(found, now)
        elif found.session is None:
            self.parking.leave(found)
            self.close(found)
        else:
            raise Conflict("it is one of version 1, and its client is connected: end that first")
        return held

    # Dead letters

    def letters(self, origin: str, id_: int | None = None) -> Letters:
        """Where the dead letters of topic `origin` are; with subscription `id_`, if given.

        Raises Missing, and Conflict when several subscriptions have them and none is given.
        """
        name = DEAD_LETTERS + origin.encode("utf-8", "surrogatepass")
        topic = self.topics.find(name)
        if topic is None:
            raise Missing(f"there are no dead letters of {origin!r}")
        if id_ is not None:
            return self._letters_of(topic, self._subscription(id_))
        ids = sorted({_holder(cursor).id for cursor in topic.cursors if cursor.qos})
        if len(ids) > 1:
            names = ", ".join(map(str, ids))
            raise Conflict(f"several subscriptions have them: {names}; say which")
        if ids:
            return self._letters_of(topic, self._subscription(ids[0]))
        return Letters(topic, None, None)

    def _letters_of(self, topic: Topic, subscription: Subscription | SharedSubscription) -> Letters:
        cursor: Cursor | None
        if isinstance(subscription, Subscription):
            cursor = subscription if subscription.topic is topic else None
        else:
            cursor = subscription.cursors.get(topic.name)
        if cursor is None or not cursor.qos:
            raise Missing(f"subscription {subscription.id} has no dead letters of that topic")
        return Letters(topic, cursor, subscription)

    def numbers(self, letters: Letters) -> list[Range]:
        """The numbers that are not settled, with numbers of other topics in between."""
        cursor, topic = letters.cursor, letters.topic
        if cursor is None:
            return [(kept.first, kept.last) for kept in topic.kept]
        state = cursor.state()
        ranges = [(range_.first, range_.last) for range_ in state.unsettled]
        last = topic.first_uncommitted - 1
        return [*ranges, (state.cursor, last)] if state.cursor <= last else ranges

    def in_memory(self, letters: Letters) -> Iterator[Letter]:
        """The dead letters, in order, of a broker without a log: it has them all in memory."""
        for run, first, last, arrived in self._held(letters):
            for number in range(first, last + 1):
                yield Letter(run, number - run.first, self.context.time_ms(arrived))

    def _held(self, letters: Letters) -> Iterator[tuple[Run, int, int, float]]:
        cursor = letters.cursor
        for delivery in letters.topic.kept if cursor is None else cursor.unsettled:
            yield delivery.run, delivery.first, delivery.last, delivery.arrived
        if cursor is None:
            return
        node, index = cursor.node, cursor.index
        while node is not letters.topic.frontier and node.next is not None:
            if node.run is not None:
                yield node.run, node.run.first + index, node.run.last, node.arrived
            node, index = node.next, 0

    def resend(self, letters: Letters, found: Iterable[Letter], now: float) -> list[int]:
        """Publish dead letters to the topic they came from, in the place of their settlement.

        Those among `found` that still wait; returns their numbers. Raises Unavailable when that
        topic is full, and LimitExceeded when there is no room; then none is resent.
        """
        name = letters.topic.name[len(DEAD_LETTERS) :]
        origin = self.topics.make(name)
        if origin.is_full:
            raise Unavailable(503, "backlog full")
        found = list(found)
        size = sum(letter.size for letter in found)
        self.topics.check_memory(size + OVERHEAD_BYTES)
        cursor = self._made(letters, now)
        resent: list[int] = []
        frames: list[bytes] = []
        for letter in found:
            number = letter.number
            if not cursor.withdraw(number, now):
                continue
            if frames and resent[-1] + 1 != number:
                self._move(cursor, origin, frames, resent[-1], now)
                frames = []
            frames.append(letter.run.revived(letter.index, name))
            resent.append(number)
        if frames:
            self._move(cursor, origin, frames, resent[-1], now)
        self.topics.forget(origin)
        return resent

    def _move(
        self, cursor: Cursor, origin: Topic, frames: list[bytes], last: int, now: float
    ) -> None:
        first = last - len(frames) + 1
        run = made_run(origin.name, 1, frames)
        self.moves.move(origin, run, (cursor.topic.name, cursor.id, first, last), now)

    def drop(self, letters: Letters, numbers: Iterable[int], now: float) -> list[int]:
        """Settle those of these dead letters that wait; their numbers. Raises LimitExceeded."""
        cursor = self._made(letters, now)
        dropped = [number for number in numbers if cursor.withdraw(number, now)]
        for number in dropped:
            cursor.settle_numbers(number, number)
        cursor.count_lost(len(dropped), DropReason.PURGED)
        return dropped

    def _made(self, letters: Letters, now: float) -> Cursor:
        """Who can settle one message at a time: kept ones need a subscription for that."""
        if letters.cursor is not None:
            return letters.cursor
        return self.sharing.make("", letters.topic.name, HOLDER, now).cursors[letters.topic.name]

    def tidy(self, letters: Letters) -> None:
        """What was made for kept dead letters goes with the last of them; later ones are kept.

        Call it when what was resent or dropped is in the log: before, a checkpoint still tells of
        what is being moved as unsettled.
        """
        topic = letters.topic
        holder = self.sharing.named(topic.name, HOLDER)
        if holder is None or holder.members or holder.held:
            return
        if self.moves.wanted_from(topic.name) is None:
            self.sharing.close(holder, DropReason.PURGED)

    # Finding

    def _topic(self, name: bytes) -> Topic:
        topic = self.topics.find(name)
        if topic is None:
            raise Missing(f"there is no topic {name.decode('utf-8', 'replace')!r}")
        return topic

    def _subscription(self, id_: int) -> Subscription | SharedSubscription:
        found = self.version_1.get(id_) or self.sharing.find(id_)
        if found is None:
            raise Missing(f"there is no subscription {id_}")
        return found


def _holder(cursor: Cursor) -> Subscription | SharedSubscription:
    if isinstance(cursor, SharedCursor):
        return cursor.subscription
    assert isinstance(cursor, Subscription)
    return cursor


def _purge_unsent(subscription: SharedSubscription) -> int:
    """Drop what was relayed to its members and is not sent."""
    return sum(member.unsent.drop(DropReason.PURGED) for member in subscription.members)


def _purge(cursors: Sequence[Cursor], now: float) -> Steps[int]:
    purged = 0
    for position, cursor in enumerate(list(cursors), 1):
        purged += cursor.purge(now)
        if not position % _STEP:
            yield
    return purged
