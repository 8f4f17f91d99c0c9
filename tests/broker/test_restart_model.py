"""Any history, cut off anywhere: a restart gives every subscription exactly what it has left."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import attrs
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    consumes,
    initialize,
    multiple,
    rule,
)

from blipmq.broker.broker import Batch, Broker
from blipmq.broker.limits import Retention, Retries
from blipmq.errors import NotFound
from tests.broker.memory_log import MemoryLog
from tests.broker.world import Publisher, World

EXPIRY = 60.0
TOPICS = (b"t", b"u")
OWNERS = ("owner", "other owner")


@attrs.define
class Wants:
    """A durable subscription: whose it is, and the numbers that it has not settled."""

    owner: str
    topic: bytes
    numbers: set[int] = attrs.Factory(set)


@attrs.frozen
class Run:
    topic: bytes
    numbers: tuple[int, ...]


@attrs.frozen
class Opens:
    subscription: int
    owner: str
    topic: bytes


@attrs.frozen
class Settles:
    subscription: int
    number: int


@attrs.frozen
class Closes:
    """`on_their_way`: the numbers of the topic that were not committed when it ended."""

    subscription: int
    on_their_way: frozenset[int]


Event = Run | Opens | Settles | Closes


@attrs.define
class State:
    """What there is. It may hold numbers that are not committed yet; those do not count."""

    subscriptions: dict[int, Wants] = attrs.Factory(dict)
    kept: dict[bytes, set[int]] = attrs.Factory(lambda: {topic: set() for topic in TOPICS})

    def of(self, topic: bytes) -> list[Wants]:
        return [wants for wants in self.subscriptions.values() if wants.topic == topic]

    def apply(self, event: Event) -> None:
        match event:
            case Run(topic, numbers):
                for wants in self.of(topic):
                    wants.numbers.update(numbers)
                if not self.of(topic):
                    self.kept[topic].update(numbers)
            case Opens(id_, owner, topic):
                first = not self.of(topic)
                self.subscriptions[id_] = Wants(owner, topic)
                if first:
                    self.subscriptions[id_].numbers = self.kept[topic]
                    self.kept[topic] = set()
            case Settles(id_, number):
                self.subscriptions[id_].numbers.remove(number)
            case Closes(id_, on_their_way):
                ended = self.subscriptions.pop(id_)
                if not self.of(ended.topic):
                    self.kept[ended.topic] = ended.numbers & on_their_way


@attrs.define(eq=False)
class Connection:
    """A connection; it is its own session."""

    owner: str
    subscriptions: list[int] = attrs.Factory(list)


@attrs.frozen
class Held:
    owner: str
    subscription: int
    number: int


class Restarts(RuleBasedStateMachine):
    """A broker with a log; a model of what there is, and one of what the log knows.

    `events` are those that the log was not told yet; a checkpoint tells it all but the messages.
    """

    connections = Bundle("connections")
    held = Bundle("held")

    def __init__(self) -> None:
        super().__init__()
        self.log = MemoryLog(
            retention=Retention(session_expiry_ms=int(EXPIRY * 1000)),
            retries=Retries(max_retries=10**6),
        )
        self.logged = State()
        self.bodies: dict[int, bytes] = {}
        self.committed: set[int] = set()
        self._begin()

    def _begin(self) -> None:
        self.world = World(self.log.start())
        self.publisher = Publisher(self.world)
        self.state = copy.deepcopy(self.logged)
        self.events: list[Event] = []
        self.pending: list[tuple[Batch, list[Event]]] = []
        self.checkpointed: set[Event] = set()
        self.parked = list(self.state.subscriptions)
        self.connected: set[Connection] = set()

    @property
    def broker(self) -> Broker:
        return self.world.broker

    def _happens(self, event: Event) -> None:
        self.state.apply(event)
        self.events.append(event)

    # What clients do

    @initialize(target=connections)
    def first_connection(self) -> Connection:
        return self._connect(OWNERS[0])

    @rule(target=connections, owner=st.sampled_from(OWNERS))
    def connect(self, owner: str) -> Connection:
        return self._connect(owner)

    def _connect(self, owner: str) -> Connection:
        connection = Connection(owner)
        self.connected.add(connection)
        return connection

    @rule(connection=connections, topic=st.sampled_from(TOPICS))
    def subscribe(self, connection: Connection, topic: bytes) -> None:
        if connection not in self.connected:
            return
        id_ = self.broker.subscribe(connection.owner, topic, 1, connection, self.world.now)
        connection.subscriptions.append(id_)
        if id_ in self.parked:
            wants = self.state.subscriptions[id_]
            assert (wants.owner, wants.topic) == (connection.owner, topic)
            self.parked.remove(id_)
        else:
            assert id_ not in self.state.subscriptions
            self._happens(Opens(id_, connection.owner, topic))

    @rule(topic=st.sampled_from(TOPICS), count=st.integers(1, 12), qos=st.sampled_from([1, 1, 0]))
    def publish(self, topic: bytes, count: int, qos: int) -> None:
        first = self.broker.context.next_number
        bodies = [b"%d" % (first + i) for i in range(count)]
        self.publisher.publish(topic, *bodies, qos=qos)
        if qos:
            numbers = range(first, first + count)
            assert not self.bodies.keys() & set(numbers)
            self.bodies.update(zip(numbers, bodies, strict=True))
            self._happens(Run(topic, tuple(numbers)))

    @rule(target=held, connection=connections, index=st.integers(0, 9), count=st.integers(1, 5))
    def take(self, connection: Connection, index: int, count: int) -> MultipleResults[Held]:
        taken: list[Held] = []
        if connection in self.connected and connection.subscriptions:
            id_ = connection.subscriptions[index % len(connection.subscriptions)]
            for _ in range(count):
                message = self.broker.take(connection.owner, id_, connection, self.world.now)
                if message is not None and message.tag:
                    assert message.tag in self.state.subscriptions[id_].numbers & self.committed
                    taken.append(Held(connection.owner, id_, message.tag))
        return multiple(*taken)

    @rule(message=consumes(held))
    def settle(self, message: Held) -> None:
        wants = self.state.subscriptions.get(message.subscription)
        if wants is not None and message.number in wants.numbers:
            self.broker.accept(message.owner, message.subscription, message.number)
            self._happens(Settles(message.subscription, message.number))
        else:
            with pytest.raises(NotFound):
                self.broker.accept(message.owner, message.subscription, message.number)

    @rule(connection=consumes(connections))
    def disconnect(self, connection: Connection) -> None:
        if connection in self.connected:
            self.connected.remove(connection)
            self.broker.disconnect(connection, connection.subscriptions, self.world.now)
            self.parked += connection.subscriptions

    @rule()
    def parked_subscriptions_expire(self) -> None:
        waiting = [*self.events, *(event for _, events in self.pending for event in events)]
        runs = [event for event in waiting if isinstance(event, Run)]
        on_their_way = frozenset(number for run in runs for number in run.numbers)
        for id_ in self.parked:
            self._happens(Closes(id_, on_their_way))
        self.parked.clear()
        self.world.pass_time(EXPIRY)

    @rule(seconds=st.sampled_from([0.1, 1.0]))
    def deliveries_come_back(self, seconds: float) -> None:
        if not self.parked:
            self.world.pass_time(seconds)

    # What the log does

    @rule()
    def hand_off(self) -> None:
        batch = self.broker.handoff()
        if batch is not None:
            self.pending.append((batch, self.events))
            self.events = []

    @rule()
    def commit(self) -> None:
        if self.pending:
            batch, events = self.pending.pop(0)
            self.log.append(batch)
            for event in events:
                if isinstance(event, Run):
                    self.committed.update(event.numbers)
                if event not in self.checkpointed:
                    self.logged.apply(event)
            self.broker.committed(batch, self.world.now)

    @rule()
    def fail(self) -> None:
        while self.pending:
            batch, events = self.pending.pop()
            self.broker.failed(batch, "disk full", self.world.now)
            self.events[:0] = [event for event in events if not isinstance(event, Run)]

    @rule()
    def checkpoint(self) -> None:
        self.log.checkpoint(self.broker)
        self.logged = copy.deepcopy(self.state)
        self.checkpointed |= {*self.events, *(e for _, events in self.pending for e in events)}

    # The end, and what comes after it

    @rule()
    def restart(self) -> None:
        given = self.broker.context.next_number
        self._check(self.log.restore())
        self._begin()
        assert self.broker.context.next_number >= given

    def teardown(self) -> None:
        self._check(self.log.restore())

    def _check(self, broker: Broker) -> None:
        """A restored broker delivers what the model says is left, and nothing else."""
        session = Connection("somebody")
        logged = self.logged
        ids = {
            broker.subscribe(wants.owner, wants.topic, 1, session, 0.0)
            for wants in logged.subscriptions.values()
        }
        assert ids == set(logged.subscriptions)
        for id_, wants in logged.subscriptions.items():
            left = sorted(wants.numbers & self.committed)
            assert list(self._drain(broker, wants.owner, id_)) == left
        for topic in TOPICS:
            id_ = broker.subscribe("newcomer", topic, 1, session, 0.0)
            kept = sorted(logged.kept[topic] & self.committed)
            assert list(self._drain(broker, "newcomer", id_)) == kept

    def _drain(self, broker: Broker, owner: str, id_: int) -> Iterator[int]:
        while (taken := broker.take(owner, id_, self, 0.0)) is not None:
            assert taken.run.body(taken.index) == self.bodies[taken.tag]
            yield taken.tag


TestRestarts = Restarts.TestCase
TestRestarts.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)
