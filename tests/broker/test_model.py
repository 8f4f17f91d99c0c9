"""Any history of clients, time and log: the broker does what the plain model says."""

from __future__ import annotations

import attrs
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
)

from blipmq.broker.broker import Batch
from blipmq.broker.limits import Retention, Retries
from tests.broker.model import Message, Model, Queue
from tests.broker.world import KEYS, Client, Publisher, World, refusals

BACKOFF_MS = 100
EXPIRY = 10.0
TOPICS = (b"t", b"u")
topics = st.sampled_from((b"t", b"t", b"t", b"u"))


@attrs.define(eq=False)
class Connection:
    """A client of one of the API keys."""

    owner: str
    client: Client


@attrs.frozen
class Tag:
    subscription: int
    number: int
    place: int


class Histories(RuleBasedStateMachine):
    """A broker moved by hand beside its model."""

    connections = Bundle("connections")
    tags = Bundle("tags")

    @initialize(
        target=connections,
        ttl_ms=st.sampled_from([0, 1_500]),
        max_retries=st.sampled_from([0, 1, 3]),
        durable=st.booleans(),
    )
    def begin(self, ttl_ms: int, max_retries: int, durable: bool) -> MultipleResults[Connection]:
        retention = Retention(
            message_ttl_ms=ttl_ms, session_expiry_ms=int(EXPIRY * 1000), dead_letters=False
        )
        retries = Retries(max_retries, BACKOFF_MS)
        self.durable = durable
        self.world = World.create(retention=retention, retries=retries, durable=durable)
        self.publisher = Publisher(self.world)
        self.model = Model(ttl_ms / 1000, BACKOFF_MS / 1000, max(1, max_retries), EXPIRY)
        self.unlogged: list[Message] = []
        self.pending: list[tuple[Batch, list[Message]]] = []
        self.numbers: dict[int, int] = {}
        self.connected: list[Connection] = []
        self.subscriptions: list[int] = []
        return multiple(*map(self._connect, KEYS))

    # Clients

    @rule(target=connections, key=st.sampled_from(sorted(KEYS)))
    def connect(self, key: bytes) -> Connection:
        return self._connect(key)

    def _connect(self, key: bytes) -> Connection:
        connection = Connection(KEYS[key], self.world.connect(key))
        self.connected.append(connection)
        return connection

    @rule(connection=consumes(connections))
    def disconnect(self, connection: Connection) -> None:
        self.connected.remove(connection)
        connection.client.disconnect()
        self.model.disconnect(connection)

    @rule(connection=connections, topic=topics, qos=st.sampled_from([0, 1, 1]))
    def subscribe(self, connection: Connection, topic: bytes, qos: int) -> None:
        id_ = connection.client.subscribe(topic, qos)
        parked = self.model.parked(connection.owner, topic) if qos else None
        if parked is not None:
            assert id_ == parked.id
            parked.connection = connection
        else:
            assert id_ not in self.subscriptions
            self.subscriptions.append(id_)
            self.model.subscribe(id_, connection.owner, topic, qos, connection)

    @rule(topic=topics, count=st.integers(1, 12), qos=st.sampled_from([0, 1, 1]))
    def publish(self, topic: bytes, count: int, qos: int) -> None:
        messages = self.model.publish(topic, count, qos, committed=not (qos and self.durable))
        self.publisher.publish(topic, *(message.body for message in messages), qos=qos)
        if qos:
            self.unlogged += messages

    @rule(target=tags, connection=connections, index=st.integers(0, 9), count=st.integers(1, 5))
    def poll(self, connection: Connection, index: int, count: int) -> MultipleResults[Tag]:
        tags: list[Tag] = []
        if self.subscriptions:
            id_ = self.subscriptions[index % len(self.subscriptions)]
            for _ in range(count):
                tags += self._poll(connection, id_)
        return multiple(*tags)

    def _poll(self, connection: Connection, id_: int) -> list[Tag]:
        received = connection.client.poll(id_)
        queue = self._queue(id_, connection.owner)
        item = queue.next if queue is not None else None
        if queue is None or item is None:
            assert received is None
            return []
        assert received is not None
        place, qos = item.message.place, min(queue.qos, item.message.qos)
        assert (received.topic, received.qos) == (queue.topic, qos)
        assert received.body == item.message.body
        self.model.deliver(queue, item, connection)
        if not received.qos:
            assert received.tag == connection.client.calls
            return []
        assert self.numbers.setdefault(place, received.tag) == received.tag
        return [Tag(id_, received.tag, place)]

    def _queue(self, id_: int, owner: str) -> Queue | None:
        found = (q for q in self.model.queues if (q.id, q.owner) == (id_, owner))
        return next(found, None)

    @rule(connection=connections, tag=consumes(tags))
    def ack(self, connection: Connection, tag: Tag) -> None:
        self._ack(connection, tag)

    @rule(connection=connections, tag=tags)
    def ack_perhaps_again(self, connection: Connection, tag: Tag) -> None:
        self._ack(connection, tag)

    def _ack(self, connection: Connection, tag: Tag) -> None:
        replies = connection.client.ack(tag.subscription, tag.number)
        queue = self._queue(tag.subscription, connection.owner)
        item = queue.delivered(tag.place) if queue is not None else None
        if queue is not None and item is not None:
            assert replies == []
            queue.items.remove(item)
        else:
            assert refusals(replies) == [(tag.number, 404, "unknown subscription or delivery tag")]

    # Time and the log

    @rule(seconds=st.sampled_from([0.05, 0.1, 0.2, 0.4, 0.5, 1.5, EXPIRY]))
    def pass_time(self, seconds: float) -> None:
        self.world.pass_time(seconds)
        self.model.pass_time(seconds)

    @rule()
    def hand_off(self) -> None:
        batch = self.world.broker.handoff()
        if batch is not None:
            self.pending.append((batch, self.unlogged))
            self.unlogged = []

    @rule(newest=st.booleans())
    def commit(self, newest: bool) -> None:
        if self.pending:
            batch, messages = self.pending.pop(-1 if newest else 0)
            self.world.broker.committed(batch, self.world.now)
            self.model.commit(messages)

    @rule(newest=st.booleans())
    def fail(self, newest: bool) -> None:
        if self.pending:
            batch, messages = self.pending.pop(-1 if newest else 0)
            self.world.broker.failed(batch, "disk full", self.world.now)
            self.model.fail(messages)

    # What is always so

    @invariant()
    def the_numbers_are_in_publish_order(self) -> None:
        by_place = [self.numbers[place] for place in sorted(self.numbers)]
        assert by_place == sorted(by_place)

    @invariant()
    def the_counts_are_right(self) -> None:
        stats, queues = self.world.broker.stats, self.model.queues
        assert stats.inflight == self.model.held
        assert stats.subscriptions == len(queues)
        assert stats.subscriptions_parked == sum(q.connection is None for q in queues)

    def teardown(self) -> None:
        """When the clients are gone and what was kept is consumed, nothing is left."""
        while self.pending:
            self.commit(newest=False)
        self.world.commit()
        for connection in list(self.connected):
            self.disconnect(connection)
        self.world.pass_time(EXPIRY)
        client = self.world.connect()
        for topic in TOPICS:
            subscription = client.subscribe(topic)
            while (received := client.poll(subscription)) is not None:
                client.ack(subscription, received.tag)
        client.disconnect()
        self.world.pass_time(EXPIRY)
        stats = self.world.broker.stats
        assert (stats.memory_bytes, stats.inflight, stats.subscriptions, stats.topics) == (0,) * 4
        assert self.world.broker.next_deadline is None


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)
