"""The embedded broker: topics, subscriptions and what happens to messages.

This is the narrow interface that sessions and tasks use: publish a run and learn of its commit,
subscribe and attach, take, settle, the next deadline. Nobody else reaches into topics or
subscriptions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from heapq import nlargest
from math import inf

import attrs

from blipmq.broker.attachment import Attachment, Consumer
from blipmq.broker.context import Context
from blipmq.broker.dedup import DedupWindow, Pending
from blipmq.broker.delayed import Delayed
from blipmq.broker.limits import Limits, Retention, Retries
from blipmq.broker.log_cursor import LOAD_BYTES, LogCursor
from blipmq.broker.message import NEVER, OVERHEAD_BYTES, Charge, Node
from blipmq.broker.moves import Moves
from blipmq.broker.operator import Operator
from blipmq.broker.overview import Overview
from blipmq.broker.parking import Parking
from blipmq.broker.publication import Batch, Place, Publication, Publisher
from blipmq.broker.relay import Relay
from blipmq.broker.restore import Restoration
from blipmq.broker.shared import SharedSubscription
from blipmq.broker.shared_cursor import SharedCursor
from blipmq.broker.sharing import Sharing
from blipmq.broker.stats import Backlog, DropReason, Stats
from blipmq.broker.subscription import Subscription, Taken
from blipmq.broker.taken import Messages, TakenRange
from blipmq.broker.topic import Topic
from blipmq.broker.topics import Topics
from blipmq.errors import LimitExceeded, NotFound, NotPermitted, PublishFailed, Unavailable
from blipmq.protocol.attach_properties import AttachProperties
from blipmq.protocol.frames import MESSAGE, TYPE_AT, Outcome
from blipmq.protocol.run import Run, stored_run
from blipmq.wal.facts import (
    DELAYED_ID,
    DELAYED_TOPIC,
    Checkpoint,
    Closed,
    Fact,
    Moved,
    Opened,
    RunRecord,
)

NUMBERS_RESERVED = 2**32
"""How many numbers a checkpoint reserves; a restart goes on after them."""
_RELIEVED_BYTES = 64 * 1024
"""What a shared subscription may hold in memory when there is little of it."""

__all__ = ["Batch", "Broker", "Load", "Publication", "Publisher"]


@attrs.frozen(eq=False)
class Load:
    """A part of the log to read for a cursor: its topic's messages from `first`, before `stop`."""

    cursor: LogCursor
    topic: bytes
    first: int
    stop: int
    bytes_max: int
    from_ms: int
    place: object | None


@attrs.define(eq=False)
class Broker:
    """All state of the broker. Every method returns at once; `now` never goes backwards.

    `durable` says whether there is a log: then QoS 1 runs wait for `committed`, and `handoff`
    must be taken to the log again and again. Without one they are committed when accepted.
    """

    context: Context
    draining: bool = False
    _subscriptions: dict[int, Subscription] = attrs.Factory(dict)
    _publications: list[Publication] = attrs.Factory(list)
    _awaited: int = 0
    """How many of the publications somebody waits for."""
    _told: list[Callable[[], None]] = attrs.Factory(list)
    """To be called when what was not handed off yet is in the log."""
    _reserved: int = NUMBERS_RESERVED
    """No number from here on is given out; a checkpoint in the log says so."""
    _relieve_at: int = 0
    overview: Overview = attrs.field(init=False)
    """For who watches."""
    operator: Operator = attrs.field(init=False)
    """For who may purge, delete and resend."""
    _topics: Topics = attrs.field(init=False)
    _parking: Parking = attrs.field(init=False)
    _sharing: Sharing = attrs.field(init=False)
    _moves: Moves = attrs.field(init=False)
    _delayed: Delayed = attrs.field(init=False)
    _dedup: DedupWindow = attrs.field(init=False)
    _relay: Relay = attrs.field(init=False)

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
        return cls(Context.create(limits, retention, retries, stats=stats, durable=durable))

    def __attrs_post_init__(self) -> None:
        context = self.context
        self._parking = Parking(context.stats, context.retention.session_expiry_ms / 1000)
        self._topics = Topics(context)
        self._sharing = Sharing(context, self._topics)
        self._topics.on_new = self._sharing.on_new_topic
        self._topics.on_full = self._sharing.make_room
        self._moves = Moves(context, self._topics, self._publish_moved)
        self._delayed = Delayed(context, self._topics, self._moves)
        self._dedup = DedupWindow(context)
        self._relay = Relay(context, self._topics)
        context.bury = self._moves.bury
        self.overview = Overview(context, self._topics, self._sharing, self._subscriptions)
        self.operator = Operator(
            context,
            self._topics,
            self._sharing,
            self._moves,
            self._parking,
            self._subscriptions,
            partial(self._close, reason=DropReason.DELETED),
        )

    @property
    def stats(self) -> Stats:
        return self.context.stats

    def set_limits(self, limits: Limits) -> None:
        """From now on; what is beyond them already goes as its limit is next looked at."""
        self.context.limits = limits

    @property
    def limits(self) -> Limits:
        return self.context.limits

    # Publishing

    def publish(self, run: Run, publisher: Publisher, now: float) -> int:
        """Number the messages of a run and put them in their topic.

        A QoS 1 run is visible when it is committed. The publisher is told of each part of it that
        is, or is not; returns of how many parts it is told, which may have been done already.
        Raises Refused when the run is not published, none of it.
        """
        self._check_publish(run)
        if not run.qos and not self._may_take_qos0(run):
            return 0
        if run.message_ids is not None:
            return self._publish_parts(run, publisher, now)
        self._publish(run, publisher, None, now)
        return run.qos

    def relay(
        self, messages: Messages, resume: Callable[[], None], now: float
    ) -> tuple[list[Run], float | None]:
        """Publish at QoS 0, as far as messages go to attachments that wait for them.

        Returns the runs that are to be published by `publish`, and as `pause`.
        """
        if self.draining:
            return messages.runs(), None
        return self._relay.take(messages, resume, now)

    def pause(self, topic: bytes, resume: Callable[[], None], now: float) -> float | None:
        """Until when a publisher to this topic should wait for slow subscribers, if at all.

        `resume` is called when it need not wait any more.
        """
        pressed = self.context.pressed
        if not pressed:
            return None
        until = [time for cursor, time in pressed.items() if cursor.topic.name == topic]
        latest = max(until, default=now)
        found = self._topics.find(topic)
        if latest <= now or found is None:
            return None
        found.paused.append(resume)
        return latest

    def _check_publish(self, run: Run) -> None:
        """Raises Refused."""
        if self.draining:
            raise Unavailable(503, "draining")
        if run.topic.startswith(b"$"):
            raise NotPermitted(403, "not permitted")
        if not run.qos:
            return
        context = self.context
        memory = self.stats.memory_bytes + run.size + OVERHEAD_BYTES
        if memory > self._relieve_at:
            memory = self._relieve(run.size)
        if memory > self.limits.max_message_bytes:
            raise PublishFailed(500, "durable publish failed: memory limit reached")
        if context.durable and context.next_number + run.count > self._reserved:
            raise PublishFailed(500, "durable publish failed: no number is reserved in the log")
        topic = self._topics.find(run.topic)
        if topic is not None and topic.is_full:
            raise Unavailable(503, "backlog full")

    def _relieve(self, size: int) -> int:
        """Memory runs low: let the log hold what it can. Returns what is used, with `size` more."""
        most = self.limits.max_message_bytes
        if self.stats.memory_bytes > most // 2 and self.context.durable:
            self._sharing.relieve(_RELIEVED_BYTES)
        memory = self.stats.memory_bytes + size + OVERHEAD_BYTES
        self._relieve_at = max(most // 2, min(memory + most // 16, most))
        return memory

    def _may_take_qos0(self, run: Run) -> bool:
        """Whether a QoS 0 run is published; else it is dropped, counted."""
        stats = self.stats
        if stats.memory_bytes + run.size + OVERHEAD_BYTES > self.limits.max_message_bytes:
            stats.dropped[DropReason.MEMORY] += run.count
            return False
        topic = self._topics.find(run.topic)
        if topic is None and self._sharing.has_patterns:
            topic = self._topics.make(run.topic)
        if topic is None or not topic.cursors:
            stats.published[0] += run.count
            stats.dropped[DropReason.NO_SUBSCRIBER] += run.count
            if topic is not None:
                self._topics.forget(topic)
            return False
        return True

    def _publish_parts(self, run: Run, publisher: Publisher, now: float) -> int:
        """A run with message ids: what was published before is not published again."""
        own = Pending()
        answers = 0
        topic = self._topics.make(run.topic)
        for part in self._dedup.parts(run, own, now):
            messages = run
            if part.stop - part.start < run.count:
                messages = run.slice(part.start, part.stop)
            if part.first is None:
                if not (self.context.durable and run.qos):
                    own.committed = True
                self._dedup.add(run.topic, messages.message_ids or (), own, now)
                self._publish(messages, publisher, own, now)
            else:
                self.stats.duplicates += messages.count
                if not run.qos:
                    continue
                if part.first.committed:
                    publisher.on_committed(messages)
                else:
                    part.first.waiting.append((publisher, messages))
            answers += run.qos
        self._topics.forget(topic)
        return answers

    def _publish(self, run: Run, publisher: Publisher, pending: Pending | None, now: float) -> None:
        topic = self._topics.make(run.topic)
        self.stats.published[run.qos] += run.count
        run.stamp(self.context.give_number(run.count))
        run.charge = Charge(self.stats, run.size + OVERHEAD_BYTES)
        if run.delay_ms:
            self._delayed.accept(run, now)
            self._log_run(Publication(run, None, publisher, pending), DELAYED_TOPIC, now)
            self._topics.forget(topic)
            return
        node = topic.append(run, now)
        if run.qos:
            place = Place(topic, node)
            self._log_run(Publication(run, place, publisher, pending), run.topic, now)

    def _log_run(self, publication: Publication, topic: bytes, now: float) -> None:
        if self.context.journal is None:
            self._commit(publication, now)
            return
        run = publication.run
        self.context.journal.append(RunRecord(topic, run.first, run.count, run.data()))
        self._publications.append(publication)
        self._awaited += 1

    def _publish_moved(self, publication: Publication, moved: Moved, now: float) -> None:
        """The broker's own."""
        if self.context.journal is None:
            self._commit(publication, now)
            return
        self.context.journal.append(moved)
        self._publications.append(publication)

    def _commit(self, publication: Publication, now: float) -> None:
        run, place = publication.run, publication.place
        if place is None:
            self._delayed.committed(run, now)
        else:
            place.topic.commit(place.node, now)
            self._topics.forget(place.topic)
        if publication.publisher is None:
            self._moves.committed(run)
        else:
            publication.publisher.on_committed(run)
        run.settled()
        pending = publication.pending
        if pending is not None:
            pending.committed = True
            for publisher, duplicates in pending.waiting:
                publisher.on_committed(duplicates)
            pending.waiting.clear()

    # The log

    def handoff(self) -> Batch | None:
        """Everything that is to be logged and was not handed off yet, if anything.

        A batch without facts asks for a checkpoint alone.
        """
        context = self.context
        if context.journal is None or not self.has_facts:
            return None
        batch = Batch(context.journal, self._publications, context.next_number, self._told)
        context.journal, self._publications, self._awaited, self._told = [], [], 0, []
        return batch

    def when_logged(self, tell: Callable[[], None]) -> None:
        """Call `tell` when everything that was decided so far and is not yet handed off is in the
        log; at once if there is nothing. Batches are logged in their order."""
        if self.context.journal:
            self._told.append(tell)
        else:
            tell()

    @property
    def has_publications(self) -> bool:
        """Whether somebody waits for what `handoff` would give."""
        return self._awaited > 0

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
        for tell in batch.told:
            tell()

    def failed(self, batch: Batch, reason: str, now: float) -> None:
        """The log did not take the batch: its runs are taken back, and their publishers are told.

        All other facts of the batch are logged with the next one.
        """
        context = self.context
        failed: dict[Topic, list[Node]] = {}
        own = [p for p in batch.publications if p.publisher is None]
        clients = [p for p in batch.publications if p.publisher is not None]
        for publication in clients:
            if publication.pending is not None and publication.run.message_ids is not None:
                self._dedup.failed(publication.run.topic, publication.run.message_ids)
            place = publication.place
            if place is None:
                self._delayed.failed(publication.run)
            else:
                failed.setdefault(place.topic, []).append(place.node)
        for topic, nodes in failed.items():
            topic.fail(nodes, now)
            self._topics.forget(topic)
        for publication in clients:
            self._tell_failed(publication, reason)
        assert context.journal is not None
        context.journal[:0] = [f for f in batch.facts if not isinstance(f, RunRecord)]
        self._publications[:0] = own
        self._told[:0] = batch.told

    def _tell_failed(self, publication: Publication, reason: str) -> None:
        run = publication.run
        self.stats.dropped[DropReason.COMMIT_FAILED] += run.count
        assert publication.publisher is not None
        publication.publisher.on_failed(run, reason)
        if publication.pending is not None:
            for publisher, duplicates in publication.pending.waiting:
                publisher.on_failed(duplicates, reason)
            publication.pending.waiting.clear()

    def checkpoint(self) -> Checkpoint:
        """Everything that the log has to know but for the messages, as it is now."""
        reserved = self.context.next_number + NUMBERS_RESERVED
        states = [s.state() for s in self._subscriptions.values() if s.qos]
        states += self._sharing.states() + self._delayed.states()
        kept = [
            (topic.name, first)
            for topic in self._topics
            if not topic.durable and (first := topic.kept_from()) is not None
        ]
        states = self._moves.with_unsettled(states)
        return Checkpoint(reserved, (), tuple(states), tuple(kept), self._dedup.seen())

    def checkpointed(self, checkpoint: Checkpoint) -> None:
        """The checkpoint is in the log."""
        self._reserved = checkpoint.reserved

    def wanted_from(self, name: bytes) -> int | None:
        """The lowest number of a topic that the log must keep, if any."""
        topic = self._topics.find(name)
        floors = [
            self._delayed.floor if name == DELAYED_TOPIC else None,
            None if topic is None else topic.wanted_from(),
            self._moves.wanted_from(name),
        ]
        return min((floor for floor in floors if floor is not None), default=None)

    def restore(
        self,
        facts: Iterable[tuple[int, Fact]],
        runs: Iterable[RunRecord],
        next_number: int,
        now: float,
        time_ms: int,
    ) -> None:
        """Take over what a log holds. `time_ms` is the time of day, as in its runs.

        Version 1 subscriptions are parked with what they had not settled. Named subscriptions
        have it read from the log when somebody attaches. Unnamed ones have ended.
        """
        context = self.context
        context.epoch_ms = time_ms - now * 1000
        restoration = Restoration()
        for id_, fact in facts:
            restoration.apply(id_, fact)
        context.next_number = max(next_number, restoration.reserved, 1)
        restoration.end_unnamed(context.next_number)
        for restored in restoration.subscriptions.values():
            if restored.id == DELAYED_ID:
                self._delayed.reopen()
            elif restored.state.shared:
                self._sharing.restore(restored)
            else:
                topic = self._topics.restore(restored.topic)
                parked = self._open(restored.id, restored.state.owner, topic, 1, None)
                self._parking.park(parked, now)
        for seen in restoration.seen:
            for at_ms, message_id in seen.ids:
                self._dedup.restore(seen.topic, [message_id], context.arrived(at_ms))
        arrived = -inf
        cursors = self._sharing.cursors()
        for record in runs:
            # Where the time of day went back, messages still arrived in their order.
            arrived = max(arrived, min(now, context.arrived(record.time_ms)))
            self._restore_run(restoration, cursors, record, arrived, now)
        self._sharing.complete(now)
        for topic in self._topics:
            self._topics.forget(topic)

    def _restore_run(
        self,
        restoration: Restoration,
        cursors: dict[int, SharedCursor],
        record: RunRecord,
        arrived: float,
        now: float,
    ) -> None:
        self._restore_ids(record, arrived, now)
        wanted = []
        for id_, ranges in restoration.wanted(record):
            cursor = cursors.get(id_)
            if cursor is None:
                wanted.append((id_, ranges))
            else:
                cursor.count_behind(record, ranges)
        if not wanted and not restoration.kept(record):
            return
        run = stored_run(record.topic, record.first, bytes(record.data))
        run.charge = Charge(self.stats, run.size + OVERHEAD_BYTES)
        self.stats.wal_replayed_messages += run.count
        if record.topic == DELAYED_TOPIC:
            for _, ranges in wanted:
                for first, last, _ in ranges:
                    self._delayed.restore(run, first, last, arrived)
            return
        topic = self._topics.restore(record.topic)
        expires = topic.expires(arrived, run.ttl_ms)
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

    def _restore_ids(self, record: RunRecord, arrived: float, now: float) -> None:
        """Message ids of what was published within the dedup window."""
        if record.data[TYPE_AT] != MESSAGE:
            return
        if arrived > now - self.context.retention.dedup_window_ms / 1000:
            run = stored_run(record.topic, record.first, bytes(record.data))
            if run.message_ids is not None:
                self._dedup.restore(run.topic, run.message_ids, arrived)

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
        if self.stats.subscriptions >= self.limits.max_subscriptions:
            raise LimitExceeded(429, "too many subscriptions")
        self._topics.check_memory(2 * (len(name) + OVERHEAD_BYTES))
        topic = self._topics.make(name)
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
            id_,
            topic,
            qos,
            topic.tail,
            context.next_number,
            context,
            owner=owner,
            session=session,
        )
        self._subscriptions[id_] = subscription
        topic.join(subscription)
        self.stats.subscriptions += 1
        return subscription

    def _close(self, subscription: Subscription, reason: DropReason) -> None:
        topic = subscription.topic
        subscription.drop_all(reason)
        del self._subscriptions[subscription.id]
        topic.leave(subscription)
        self.context.timers.cancel(subscription)
        self.stats.subscriptions -= 1
        if subscription.qos:
            first = topic.kept_from()
            self.context.log(
                Closed(subscription.id, self.context.next_number if first is None else first)
            )
        self._topics.forget(topic)

    # Delivering and settling on version 1

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

    # Attachments

    def attach(
        self,
        owner: str,
        selector: bytes,
        qos: int,
        properties: AttachProperties,
        consumer: Consumer,
        now: float,
    ) -> Attachment:
        """As `Sharing.attach`. Raises BadRequest or LimitExceeded."""
        return self._sharing.attach(owner, selector, qos, properties, consumer, now)

    def detach(
        self, attachment: Attachment, now: float, *, lost: bool = False, delete: bool = False
    ) -> None:
        """End an attachment; `lost` when its connection was. `delete`: the subscription, too."""
        subscription = attachment.subscription
        self._sharing.detach(attachment, now, lost=lost)
        if delete and subscription.name:
            self._sharing.delete(subscription, now)

    def deliver(self, attachment: Attachment, bytes_max: int, now: float) -> list[TakenRange]:
        """What is there for an attachment, and what it has room for; about so many bytes.

        It is woken when there may be more.
        """
        return attachment.subscription.deliver(attachment, bytes_max, now)

    def poll(self, attachment: Attachment, now: float) -> TakenRange | None:
        """One message for an attachment, if there is one, whatever its prefetch is."""
        return attachment.subscription.poll(attachment, now)

    def settle(
        self,
        attachment: Attachment,
        outcome: Outcome,
        first: int,
        last: int,
        delay_ms: int,
        now: float,
    ) -> bool:
        """Settle what an attachment received of these numbers; whether there was anything."""
        delay = delay_ms / 1000
        return attachment.subscription.settle(attachment, outcome, first, last, delay, now)

    # Reading the log

    def next_load(self) -> Load | None:
        """What is to be read from the log next, if anything; then call `loaded`."""
        loads = self.context.loads
        while loads:
            cursor, _ = loads.popitem(last=False)
            behind = cursor.behind
            if behind is None:
                continue
            bounds = behind.next_read(cursor.topic.window_number)
            if bounds is None:
                cursor.loaded((), behind.number, behind.number, behind.place)
                continue
            first, stop = bounds
            place = behind.place if first == behind.reached else None
            from_ms = behind.from_ms
            return Load(cursor, cursor.topic.name, first, stop, LOAD_BYTES, from_ms, place)
        return None

    def loaded(
        self, load: Load, runs: Iterable[tuple[Run, int]], reached: int, place: object, now: float
    ) -> None:
        """What was read: runs with the time of day of their writing, all there are before
        `reached`."""
        found = []
        for run, time_ms in runs:
            if time_ms < load.from_ms:
                continue
            run.charge = Charge(self.stats, run.size + OVERHEAD_BYTES)
            found.append((run, min(now, self.context.arrived(time_ms))))
        load.cursor.loaded(found, load.first, reached, place)

    # Time

    @property
    def next_deadline(self) -> float | None:
        """When `tick` has something to do, if ever."""
        time, end = self.context.timers.next, self._parking.next_end
        if time is None or end is None:
            return end if time is None else time
        return min(time, end)

    def tick(self, now: float) -> None:
        """Do everything that is due: retries, expiries, the end of parked subscriptions."""
        for timed in self.context.timers.run(now):
            if isinstance(timed, Topic):
                self._topics.forget(timed)
        while (ended := self._parking.expire(now)) is not None:
            self._close(ended, DropReason.SUBSCRIPTION_EXPIRED)

    # Watching

    def backlogs(self, limit: int, now: float) -> list[Backlog]:
        """The `limit` subscriptions with the most messages, and one row that sums up all others.

        It walks no messages.
        """
        everyone: list[Subscription | SharedSubscription] = [
            *self._subscriptions.values(),
            *self._sharing,
        ]
        largest = nlargest(limit, everyone, key=lambda s: s.held)
        rows = [subscription.backlog(now) for subscription in largest]
        if len(largest) < len(everyone):
            others = set(largest)
            rows.append(_rest([s for s in everyone if s not in others], now))
        return rows


def _rest(others: list[Subscription | SharedSubscription], now: float) -> Backlog:
    messages, size, age = 0, 0, 0.0
    for subscription in others:
        if held := subscription.held:
            messages += held
            size += subscription.held_bytes
            age = max(age, subscription.age(now))
    return Backlog("rest", "", messages, size, age)
