"""The embedded broker: topics, subscriptions and what happens to messages.

This is the narrow interface that sessions and tasks use: publish a run and learn of its commit,
subscribe, take, settle, the next deadline. Nobody else reaches into topics or subscriptions.
"""

from __future__ import annotations

from collections.abc import Iterable
from heapq import nlargest
from math import inf
from typing import Protocol

import attrs

from blipmq.broker.context import Context
from blipmq.broker.limits import Limits, Retention, Retries
from blipmq.broker.message import NEVER, OVERHEAD_BYTES, Charge, Node
from blipmq.broker.parking import Parking
from blipmq.broker.restore import Restoration
from blipmq.broker.stats import Backlog, DropReason, Stats
from blipmq.broker.subscription import Subscription, Taken
from blipmq.broker.topic import Topic
from blipmq.errors import LimitExceeded, NotFound, NotPermitted, PublishFailed, Unavailable
from blipmq.protocol.run import Run, stored_run
from blipmq.wal.record import Checkpoint, Closed, Fact, Opened, RunRecord

NUMBERS_RESERVED = 2**32
"""How many numbers a checkpoint reserves; a restart goes on after them."""


class Publisher(Protocol):
    """Who published a run of QoS 1, and is owed an answer."""

    def on_committed(self, run: Run) -> None:
        """The run is in the log."""

    def on_failed(self, run: Run, reason: str) -> None:
        """The run was not published: each message of it is owed a NACK 500."""


@attrs.frozen(eq=False)
class Publication:
    """A QoS 1 run that is not committed yet."""

    topic: Topic
    node: Node
    publisher: Publisher

    @property
    def run(self) -> Run:
        assert self.node.run is not None
        return self.node.run


@attrs.frozen(eq=False)
class Batch:
    """What is to be logged together: facts in their order, and the publications among them."""

    facts: list[Fact]
    publications: list[Publication]
    next_number: int


@attrs.define(eq=False)
class Broker:
    """All state of the broker. Every method returns at once; `now` never goes backwards.

    `durable` says whether there is a log: then QoS 1 runs wait for `committed`, and `handoff`
    must be taken to the log again and again. Without one they are committed when accepted.
    """

    context: Context
    draining: bool = False
    _topics: dict[bytes, Topic] = attrs.Factory(dict)
    _subscriptions: dict[int, Subscription] = attrs.Factory(dict)
    _publications: list[Publication] = attrs.Factory(list)
    _parking: Parking = attrs.field()
    _reserved: int = NUMBERS_RESERVED
    """No number from here on is given out; a checkpoint in the log says so."""

    @classmethod
    def create(
        cls,
        limits: Limits | None = None,
        retention: Retention | None = None,
        retries: Retries | None = None,
        *,
        stats: Stats | None = None,
        durable: bool = False,
    ) -> Broker:
        context = Context(
            limits or Limits(),
            retention or Retention(),
            retries or Retries(),
            stats or Stats(),
            [] if durable else None,
        )
        return cls(context)

    @_parking.default
    def _make_parking(self) -> Parking:
        context = self.context
        return Parking(context.stats, context.retention.session_expiry_ms / 1000)

    @property
    def stats(self) -> Stats:
        return self.context.stats

    @property
    def limits(self) -> Limits:
        return self.context.limits

    # Publishing

    def publish(self, run: Run, publisher: Publisher, now: float) -> None:
        """Number the messages of a run and put them in their topic.

        A QoS 1 run is visible when it is committed; the publisher is then told. Raises Refused
        when the run is not published, none of it.
        """
        if self.draining:
            raise Unavailable(503, "draining")
        if run.topic.startswith(b"$"):
            raise NotPermitted(403, "not permitted")
        stats = self.stats
        size = run.size + OVERHEAD_BYTES
        topic = self._topics.get(run.topic)
        if stats.memory_bytes + size > self.limits.max_message_bytes:
            if run.qos:
                raise PublishFailed(500, "durable publish failed: memory limit reached")
            stats.dropped[DropReason.MEMORY] += run.count
            return
        if not run.qos and (topic is None or not topic.subscriptions):
            stats.published[0] += run.count
            stats.dropped[DropReason.NO_SUBSCRIBER] += run.count
            return
        if (
            self.context.journal is not None
            and self.context.next_number + run.count > self._reserved
        ):
            raise PublishFailed(500, "durable publish failed: no number is reserved in the log")
        if topic is None:
            topic = self._topic(run.topic)
        stats.published[run.qos] += run.count
        run.stamp(self.context.give_number(run.count))
        run.charge = Charge(stats, size)
        node = topic.append(run, now)
        if run.qos:
            self._log_run(Publication(topic, node, publisher), now)

    def _log_run(self, publication: Publication, now: float) -> None:
        if self.context.journal is None:
            self._commit(publication, now)
            return
        run = publication.run
        self.context.journal.append(RunRecord(run.topic, run.first, run.count, run.data()))
        self._publications.append(publication)

    def _commit(self, publication: Publication, now: float) -> None:
        run = publication.run
        run.settled()
        publication.topic.commit(publication.node, now)
        self._forget(publication.topic)
        publication.publisher.on_committed(run)

    def _topic(self, name: bytes) -> Topic:
        topic = self._topics.get(name)
        if topic is None:
            if len(self._topics) >= self.limits.max_topics:
                raise LimitExceeded(429, "too many topics")
            self._check_memory(len(name) + OVERHEAD_BYTES)
            topic = self._topics[name] = Topic(name, self.context)
            self.stats.topics = len(self._topics)
        return topic

    def _check_memory(self, size: int) -> None:
        if self.stats.memory_bytes + size > self.limits.max_message_bytes:
            raise LimitExceeded(429, "memory limit reached")

    def _forget(self, topic: Topic) -> None:
        """Let go of a topic that nothing is in and nobody waits for."""
        if topic.unused and self._topics.get(topic.name) is topic:
            del self._topics[topic.name]
            self.context.timers.cancel(topic)
            self.stats.topics = len(self._topics)

    # The log

    def handoff(self) -> Batch | None:
        """Everything that is to be logged and was not handed off yet, if anything.

        A batch without facts asks for a checkpoint alone.
        """
        context = self.context
        if context.journal is None or not self.has_facts:
            return None
        batch = Batch(context.journal, self._publications, context.next_number)
        context.journal, self._publications = [], []
        return batch

    @property
    def has_publications(self) -> bool:
        """Whether somebody waits for what `handoff` would give."""
        return bool(self._publications)

    @property
    def has_facts(self) -> bool:
        """Whether `handoff` would give anything, or a checkpoint is needed."""
        return bool(self.context.journal) or self.needs_checkpoint

    @property
    def needs_checkpoint(self) -> bool:
        """Whether the numbers that the last checkpoint reserved run low."""
        if self.context.journal is None:
            return False
        return self.context.next_number > self._reserved - NUMBERS_RESERVED // 2

    def committed(self, batch: Batch, now: float) -> None:
        """The batch is in the log: its runs become visible, and their publishers are told."""
        for publication in batch.publications:
            self._commit(publication, now)

    def failed(self, batch: Batch, reason: str, now: float) -> None:
        """The log did not take the batch: its runs are taken back, and their publishers are told.

        All other facts of the batch are logged with the next one.
        """
        context = self.context
        failed: dict[Topic, list[Node]] = {}
        for publication in batch.publications:
            failed.setdefault(publication.topic, []).append(publication.node)
        runs = [(publication.run, publication.publisher) for publication in batch.publications]
        for topic, nodes in failed.items():
            topic.fail(nodes, now)
            self._forget(topic)
        for run, publisher in runs:
            self.stats.dropped[DropReason.COMMIT_FAILED] += run.count
            publisher.on_failed(run, reason)
        assert context.journal is not None
        context.journal[:0] = [f for f in batch.facts if not isinstance(f, RunRecord)]

    def checkpoint(self) -> Checkpoint:
        """Everything that the log has to know but for the messages, as it is now."""
        reserved = self.context.next_number + NUMBERS_RESERVED
        durable = [s.state() for s in self._subscriptions.values() if s.qos]
        kept = [
            (topic.name, first)
            for topic in self._topics.values()
            if not topic.durable and (first := topic.kept_from()) is not None
        ]
        return Checkpoint(reserved, (), tuple(durable), tuple(kept))

    def checkpointed(self, checkpoint: Checkpoint) -> None:
        """The checkpoint is in the log."""
        self._reserved = checkpoint.reserved

    def wanted_from(self, name: bytes) -> int | None:
        """The lowest number of a topic that the log must keep, if any."""
        topic = self._topics.get(name)
        return None if topic is None else topic.wanted_from()

    def restore(
        self,
        facts: Iterable[tuple[int, Fact]],
        runs: Iterable[RunRecord],
        next_number: int,
        now: float,
        time_ms: int,
    ) -> None:
        """Take over what a log holds. `time_ms` is the time of day, as in its runs.

        Durable subscriptions are parked, and all that they had not settled waits for them.
        """
        restoration = Restoration()
        for id_, fact in facts:
            restoration.apply(id_, fact)
        self.context.next_number = max(next_number, restoration.reserved, 1)
        for state in restoration.subscriptions.values():
            topic = self._topics.setdefault(state.topic, Topic(state.topic, self.context))
            self._parking.park(self._open(state.id, state.owner, topic, 1, None), now)
        arrived = -inf
        for record in runs:
            # Where the time of day went back, messages still arrived in their order.
            arrived = max(arrived, now - max(0, time_ms - record.time_ms) / 1000)
            self._restore_run(restoration, record, arrived, now)
        for topic in list(self._topics.values()):
            self._forget(topic)
        self.stats.topics = len(self._topics)

    def _restore_run(
        self, restoration: Restoration, record: RunRecord, arrived: float, now: float
    ) -> None:
        wanted = restoration.wanted(record)
        if not wanted and not restoration.kept(record):
            return
        topic = self._topics.setdefault(record.topic, Topic(record.topic, self.context))
        run = stored_run(record.topic, record.first, bytes(record.data))
        run.charge = Charge(self.stats, run.size + OVERHEAD_BYTES)
        self.stats.wal_replayed_messages += run.count
        expires = topic.expires(arrived)
        if expires != NEVER:
            self.context.timers.at(topic, expires)
        for id_, ranges in wanted:
            subscription = self._subscriptions[id_]
            for first, last, attempts in ranges:
                subscription.recover(run, first, last, attempts, arrived, expires)
            subscription.trim(now)
        if not topic.durable:
            first = max(run.first, restoration.kept_from(record.topic))
            topic.keep(run, first, now, arrived, expires)

    # Subscribing

    def subscribe(self, owner: str, name: bytes, qos: int, session: object, now: float) -> int:
        """A version 1 subscription for a connection; its id.

        At QoS 1 it takes over the oldest parked one of the same owner and topic, if there is one.
        The first QoS 1 subscription of a topic gets what was kept for it. Raises LimitExceeded.
        """
        parked = self._parking.take_over(owner, name) if qos else None
        if parked is not None:
            parked.session = session
            return parked.id
        if len(self._subscriptions) >= self.limits.max_subscriptions:
            raise LimitExceeded(429, "too many subscriptions")
        self._check_memory(2 * (len(name) + OVERHEAD_BYTES))
        topic = self._topic(name)
        id_ = self.context.give_number()
        first = qos and not topic.durable
        subscription = self._open(id_, owner, topic, qos, session)
        if first:
            subscription.node = topic.frontier
            subscription.foreign = topic.uncommitted_qos0
            for delivery in topic.take_kept(now):
                subscription.add_waiting(delivery)
        if qos:
            self.context.log(Opened(subscription.state()))
        return id_

    def _open(
        self, id_: int, owner: str, topic: Topic, qos: int, session: object | None
    ) -> Subscription:
        context = self.context
        subscription = Subscription(
            id_, owner, topic, qos, topic.tail, context.next_number, context, session
        )
        self._subscriptions[id_] = subscription
        topic.subscriptions.append(subscription)
        topic.durable += qos
        self.stats.subscriptions += 1
        return subscription

    def _close(self, subscription: Subscription, reason: DropReason) -> None:
        topic = subscription.topic
        subscription.drop_all(reason)
        del self._subscriptions[subscription.id]
        topic.subscriptions.remove(subscription)
        topic.durable -= subscription.qos
        self.context.timers.cancel(subscription)
        self.stats.subscriptions -= 1
        if subscription.qos:
            first = topic.kept_from()
            self.context.log(
                Closed(subscription.id, self.context.next_number if first is None else first)
            )
        self._forget(topic)

    # Delivering and settling

    def _find(self, owner: str, id_: int) -> Subscription | None:
        subscription = self._subscriptions.get(id_)
        return subscription if subscription is not None and subscription.owner == owner else None

    def take(self, owner: str, id_: int, session: object, now: float) -> Taken | None:
        """The next message of a subscription for a connection of its owner, if there is one.

        Until it is settled, or comes back, the connection holds it.
        """
        subscription = self._find(owner, id_)
        return None if subscription is None else subscription.take(session, now)

    def accept(self, owner: str, id_: int, tag: int) -> None:
        """Settle one delivery. Raises NotFound for an unknown or settled tag, or subscription."""
        subscription = self._find(owner, id_)
        if subscription is None or not subscription.accept(tag):
            raise NotFound(404, "unknown subscription or delivery tag")

    def disconnect(self, session: object, subscriptions: Iterable[int], now: float) -> None:
        """A connection ended. `subscriptions` are those that it made, took over or took from.

        What it held comes back; its QoS 0 subscriptions end, its QoS 1 subscriptions are parked.
        """
        for id_ in subscriptions:
            subscription = self._subscriptions.get(id_)
            if subscription is None:
                continue
            subscription.release(session, now)
            if subscription.session is not session:
                continue
            if subscription.qos:
                self._parking.park(subscription, now)
            else:
                self._close(subscription, DropReason.DISCONNECTED)

    # Time

    @property
    def next_deadline(self) -> float | None:
        """When `tick` has something to do, if ever."""
        times = (self.context.timers.next, self._parking.next_end)
        return min((time for time in times if time is not None), default=None)

    def tick(self, now: float) -> None:
        """Do everything that is due: retries, expiries, the end of parked subscriptions."""
        for timed in self.context.timers.run(now):
            if isinstance(timed, Topic):
                self._forget(timed)
        while (ended := self._parking.expire(now)) is not None:
            self._close(ended, DropReason.SUBSCRIPTION_EXPIRED)

    # Watching

    def backlogs(self, limit: int, now: float) -> list[Backlog]:
        """The `limit` subscriptions with the most messages, and one row that sums up all others.

        It walks no messages.
        """
        largest = nlargest(limit, self._subscriptions.values(), key=lambda s: s.held)
        rows = [subscription.backlog(now) for subscription in largest]
        if len(largest) < len(self._subscriptions):
            rows.append(self._rest(set(largest), now))
        return rows

    def _rest(self, largest: set[Subscription], now: float) -> Backlog:
        messages, size, age = 0, 0, 0.0
        for subscription in self._subscriptions.values():
            if subscription not in largest and (held := subscription.held):
                messages += held
                size += subscription.held_bytes
                age = max(age, subscription.age(now))
        return Backlog("rest", "", messages, size, age)
