"""All shared subscriptions: who attaches to which, and which topics each is in."""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from blipmq.broker.attachment import Attachment, Consumer
from blipmq.broker.behind import Behind
from blipmq.broker.context import Context
from blipmq.broker.message import OVERHEAD_BYTES
from blipmq.broker.pattern import literal_prefix, matches, parse_pattern
from blipmq.broker.restore import RestoredSubscription
from blipmq.broker.shared import SharedSubscription
from blipmq.broker.shared_cursor import CURSOR_BYTES, SharedCursor
from blipmq.broker.stats import DropReason
from blipmq.broker.topic import Topic
from blipmq.broker.topics import Topics
from blipmq.errors import BadRequest, LimitExceeded
from blipmq.protocol.attach_properties import AttachProperties, Start, StartKind
from blipmq.wal.facts import Closed, Opened, SubscriptionState

_TOPICS_A_STEP = 256
"""What looking at all topics counts as work, besides those that are compared."""
_Key = tuple[bytes, bool, bytes]
"""Topic or pattern, whether it is a pattern, name."""


@attrs.define(eq=False)
class Sharing:
    """Attaches and detaches. A named subscription is found by topic and name; others have none."""

    context: Context
    topics: Topics
    _all: dict[int, SharedSubscription] = attrs.Factory(dict)
    _named: dict[_Key, SharedSubscription] = attrs.Factory(dict)
    _patterns: dict[SharedSubscription, bytes] = attrs.Factory(dict)
    """With what the topics begin that match."""

    def __iter__(self) -> Iterator[SharedSubscription]:
        return iter(self._all.values())

    def __len__(self) -> int:
        return len(self._all)

    def find(self, id_: int) -> SharedSubscription | None:
        return self._all.get(id_)

    @property
    def has_patterns(self) -> bool:
        return bool(self._patterns)

    # Attaching

    def attach(
        self,
        owner: str,
        selector: bytes,
        qos: int,
        properties: AttachProperties,
        consumer: Consumer,
        now: float,
    ) -> Attachment:
        """A member of the subscription of this topic, or pattern, and name.

        Without a name, of a new one. Raises BadRequest or LimitExceeded.
        """
        name = properties.name or b""
        if properties.ack_wait_ms == 0:
            raise BadRequest(400, "invalid ATTACH payload")
        existing = self._named.get((selector, properties.pattern, name)) if name else None
        if existing is not None:
            _check_settings(existing, qos, properties)
        elif name and not qos:
            raise BadRequest(400, "a named subscription needs QoS 1")
        else:
            existing = self._make(owner, selector, qos, properties, name, now)
        return existing.join(self.context.give_number(), consumer, properties.prefetch)

    def make(self, owner: str, topic: bytes, name: bytes, now: float) -> SharedSubscription:
        """A named subscription without members, that never gives up; it gets what is kept.

        Of that name there is none yet. Raises LimitExceeded.
        """
        properties = AttachProperties(name=name, max_attempts=0)
        return self._make(owner, topic, 1, properties, name, now)

    def named(self, topic: bytes, name: bytes) -> SharedSubscription | None:
        """The subscription of this topic and name."""
        return self._named.get((topic, False, name))

    def _make(
        self,
        owner: str,
        selector: bytes,
        qos: int,
        properties: AttachProperties,
        name: bytes,
        now: float,
    ) -> SharedSubscription:
        context, limits = self.context, self.context.limits
        levels = parse_pattern(selector) if properties.pattern else None
        if context.stats.subscriptions >= limits.max_subscriptions:
            raise LimitExceeded(429, "too many subscriptions")
        if levels is not None and len(self._patterns) >= limits.max_patterns:
            raise LimitExceeded(429, "too many patterns")
        self.topics.check_memory(2 * (len(selector) + len(name) + OVERHEAD_BYTES))
        topics = [self.topics.make(selector)] if levels is None else self._matching(levels)
        ack_wait_ms, max_attempts = properties.ack_wait_ms, properties.max_attempts
        subscription = SharedSubscription(
            context.give_number(),
            owner,
            selector,
            levels,
            qos,
            name,
            (context.retries.ack_wait_ms if ack_wait_ms is None else ack_wait_ms) / 1000,
            context.max_attempts if max_attempts is None else max_attempts,
            context,
        )
        self._add(subscription)
        if levels is not None and qos:
            context.log(Opened(subscription.pattern_state()))
        for topic in topics:
            self._open(subscription, topic, properties.start, now)
        return subscription

    def _add(self, subscription: SharedSubscription) -> None:
        self._all[subscription.id] = subscription
        if subscription.name:
            key = subscription.selector, subscription.pattern, subscription.name
            self._named[key] = subscription
        if subscription.levels is not None:
            self._patterns[subscription] = literal_prefix(subscription.levels)
        self.context.stats.subscriptions += 1

    def _matching(self, levels: tuple[bytes, ...]) -> list[Topic]:
        prefix = literal_prefix(levels)
        near = [topic for topic in self.topics if topic.name.startswith(prefix)]
        self.context.work += len(near) + _TOPICS_A_STEP
        found = [topic for topic in near if matches(levels, topic.name)]
        size = sum(len(topic.name) for topic in found) + len(found) * CURSOR_BYTES
        self.topics.check_memory(size)
        return found

    def on_new_topic(self, topic: Topic) -> None:
        """Patterns that match it are in it from its first message on."""
        self._enter(topic, 0.0)

    def _enter(self, topic: Topic, now: float) -> None:
        for subscription, prefix in self._patterns.items():
            if topic.name in subscription.cursors or not topic.name.startswith(prefix):
                continue
            assert subscription.levels is not None
            self.context.work += len(subscription.levels)
            if matches(subscription.levels, topic.name):
                self._open(subscription, topic, None, now)

    def _open(
        self, subscription: SharedSubscription, topic: Topic, start: Start | None, now: float
    ) -> None:
        """Begin with a topic, at the place that `start` says."""
        context, qos = self.context, subscription.qos
        parent = subscription.id if subscription.pattern else 0
        first = bool(qos) and not topic.durable
        cursor = self._place(
            subscription, topic, context.give_number() if parent else subscription.id
        )
        if first and start is None:
            cursor.node = topic.frontier
            cursor.foreign = topic.uncommitted_qos0
            for delivery in topic.take_kept(now):
                delivery.cursor = cursor
                cursor.add_waiting(delivery)
        elif start is not None and start.kind is not StartKind.NEW and qos:
            self._start_earlier(cursor, start, now)
        elif first:
            topic.drop_kept(DropReason.KEPT)
        if qos:
            context.log(Opened(cursor.state()))
        subscription.open(cursor)

    def _place(self, subscription: SharedSubscription, topic: Topic, id_: int) -> SharedCursor:
        """A cursor at the end of a topic."""
        parent = subscription.id if subscription.pattern else 0
        cursor = SharedCursor(
            id_,
            topic,
            subscription.qos,
            topic.tail,
            self.context.next_number,
            self.context,
            subscription=subscription,
            parent=parent,
        )
        topic.join(cursor)
        return cursor

    def _start_earlier(self, cursor: SharedCursor, start: Start, now: float) -> None:
        topic, context = cursor.topic, self.context
        tag = start.value if start.kind is StartKind.TAG else 1
        from_ms = start.value if start.kind is StartKind.TIME else 0
        if context.durable:
            # What is kept is in the log as well.
            topic.release_kept()
            behind = Behind(
                max(1, min(tag, context.next_number)),
                from_ms=from_ms,
                mark_volatile=cursor.node.volatile_messages_before,
            )
            cursor.stand_behind(behind, cursor.node)
            return
        arrived = context.arrived(from_ms) if from_ms else 0.0
        for delivery in topic.take_kept(now):
            delivery.cursor = cursor
            if delivery.last >= tag and delivery.arrived >= arrived:
                cursor.add_waiting(delivery.split(tag) if delivery.first < tag else delivery)
        earliest = topic.earliest
        while earliest is not topic.tail and earliest.next is not None:
            run = earliest.run
            if run is not None and run.last >= tag and earliest.arrived >= arrived:
                cursor.index = max(0, tag - run.first)
                break
            earliest = earliest.next
        cursor.node = earliest

    # Detaching

    def detach(self, member: Attachment, now: float, *, lost: bool = False) -> None:
        """A member leaves; what it held comes back, and the attempt counts if it was `lost`.

        An unnamed subscription ends with it.
        """
        subscription = member.subscription
        if member not in subscription.members:
            return
        subscription.leave(member, counts=lost, now=now)
        if not subscription.name:
            self.close(subscription, DropReason.DISCONNECTED)

    def delete(self, subscription: SharedSubscription, now: float) -> None:
        """End a subscription; its members are told."""
        for member in list(subscription.members):
            subscription.leave(member, counts=False, now=now)
            member.consumer.detached(member, "deleted")
        self.close(subscription, DropReason.DELETED)

    def close(self, subscription: SharedSubscription, reason: DropReason) -> None:
        for cursor in list(subscription.cursors.values()):
            self._close_cursor(cursor, reason)
        del self._all[subscription.id]
        if subscription.name:
            del self._named[subscription.selector, subscription.pattern, subscription.name]
        self._patterns.pop(subscription, None)
        self.context.stats.subscriptions -= 1
        if subscription.pattern and subscription.qos:
            self.context.log(Closed(subscription.id, self.context.next_number))

    def _close_cursor(self, cursor: SharedCursor, reason: DropReason) -> None:
        topic, context = cursor.topic, self.context
        cursor.subscription.close(cursor, reason)
        topic.leave(cursor)
        context.timers.cancel(cursor)
        if cursor in topic.waiting:
            topic.waiting.remove(cursor)
        if cursor.qos:
            first = topic.kept_from()
            context.log(Closed(cursor.id, context.next_number if first is None else first))
        self.topics.forget(topic)

    def make_room(self) -> None:
        """Leave the topics in which patterns alone are, and nothing waits."""
        for topic in self.topics:
            cursors = [c for c in topic.cursors if isinstance(c, SharedCursor)]
            if len(cursors) == len(topic.cursors) and all(c.parent and c.idle for c in cursors):
                for cursor in cursors:
                    self._close_cursor(cursor, DropReason.DISCONNECTED)

    # Memory

    def relieve(self, bytes_min: int) -> None:
        """Let the log alone hold what waits, wherever it is more than so many bytes."""
        for subscription in self._all.values():
            for cursor in subscription.cursors.values():
                if cursor.waiting_bytes + cursor.returned.bytes > bytes_min:
                    cursor.fall_behind()
                if cursor.behind is not None:
                    cursor.topic.narrow_window(bytes_min)

    # The log

    def states(self) -> list[SubscriptionState]:
        """What the log has to know."""
        return [
            state
            for subscription in self._all.values()
            if subscription.qos
            for state in subscription.states()
        ]

    def restore(self, restored: RestoredSubscription) -> None:
        """A named subscription, or one topic of a pattern that was restored before."""
        state = restored.state
        subscription = self._all.get(state.parent)
        if subscription is None and not state.parent:
            subscription = SharedSubscription(
                state.id,
                state.owner,
                state.topic,
                parse_pattern(state.topic) if state.pattern else None,
                1,
                state.name,
                state.ack_wait_ms / 1000,
                state.max_attempts,
                self.context,
            )
            self._add(subscription)
        if subscription is not None and not state.pattern:
            cursor = self._place(subscription, self.topics.restore(state.topic), state.id)
            behind = Behind(restored.cursor, list(restored.unsettled))
            cursor.stand_behind(behind, cursor.topic.tail)
            subscription.open(cursor)

    def complete(self, now: float) -> None:
        """Everything was restored: patterns are in every topic that matches.

        Each was to be logged before the first message of the topic; a crash may have cut off the
        records of some.
        """
        for topic in self.topics:
            self._enter(topic, now)

    def cursors(self) -> dict[int, SharedCursor]:
        """All that are in the log, by id."""
        return {
            cursor.id: cursor
            for subscription in self._all.values()
            if subscription.qos
            for cursor in subscription.cursors.values()
        }


def _check_settings(existing: SharedSubscription, qos: int, properties: AttachProperties) -> None:
    """What an ATTACH does not say is as it is."""
    ack_wait_ms, max_attempts = properties.ack_wait_ms, properties.max_attempts
    if (
        qos != existing.qos
        or (ack_wait_ms is not None and ack_wait_ms != round(existing.ack_wait * 1000))
        or (max_attempts is not None and max_attempts != existing.max_attempts)
    ):
        raise BadRequest(400, "subscription exists with other settings")
