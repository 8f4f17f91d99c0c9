"""Any history of version 2: what is promised of every message is kept, to the end and beyond."""

from __future__ import annotations

from collections.abc import Iterator

import attrs
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from blipmq.broker import behind, broker, log_cursor, topic
from blipmq.broker.broker import Batch, Load
from blipmq.broker.limits import Limits, Retention
from blipmq.protocol.attach_properties import Start, StartKind
from blipmq.protocol.frames import Outcome
from blipmq.protocol.properties import MessageProperties
from blipmq.protocol.run import Run
from tests.broker.attached import LAST, Member, Pushed
from tests.broker.logged import LoggedWorld

ACK_WAIT = 5.0
LIMITS = Limits(window_bytes=150, queue_capacity=8, queue_bytes=8, key_lookahead=3)
RETENTION = Retention(dedup_window_ms=5_000)
TOPICS = (b"t", b"u")
NAMED = {b"n": (b"t", False, 0), b"m": (b"t", False, 2), b"p": (b"*", True, 3)}
"""Topic or pattern, whether it is a pattern, and max attempts, by name."""


@pytest.fixture(autouse=True, scope="module")
def _little_memory() -> Iterator[None]:
    """So little is kept that a few messages are a backlog on the disk."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(topic, "WINDOW_BYTES", 120)
        patch.setattr(log_cursor, "LOAD_BYTES", 200)
        patch.setattr(broker, "LOAD_BYTES", 200)
        patch.setattr(behind, "_GAP_MAX", 3)
        yield


@attrs.define(eq=False)
class Message:
    body: bytes
    topic: bytes
    qos: int
    key: bytes | None
    delayed: bool
    wanted_by: list[Subscription]
    """The durable ones that there were when it was accepted."""
    state: str = "accepted"
    """Or committed, failed (a NACK answered it) or lost in a crash."""


@attrs.define(eq=False)
class Subscription:
    selector: bytes
    pattern: bool
    name: bytes
    qos: int
    max_attempts: int
    from_start: bool
    """Whether it may get messages that were published before it was made."""
    first: int = 0
    accepted: set[bytes] = attrs.Factory(set)
    accepted_logged: set[bytes] = attrs.Factory(set)
    accepted_late: set[bytes] = attrs.Factory(set)
    """After the deadline: that counts unless another had it by then."""
    deliveries: dict[bytes, int] = attrs.Factory(dict)
    last_tag: dict[tuple[bytes, bytes | None], int] = attrs.Factory(dict)
    """Of the first deliveries so far, by topic and key."""

    def matches(self, name: bytes) -> bool:
        return self.pattern or self.selector == name


@attrs.define(eq=False)
class Attached:
    subscription: Subscription
    out: dict[int, tuple[Message, float]] = attrs.Factory(dict)
    """By tag: the message, and until when it is this member's."""


@attrs.define(eq=False)
class Connection:
    member: Member
    attached: dict[int, Attached] = attrs.Factory(dict)


bodies = st.integers(1, 4)
keys = st.sampled_from([None, None, b"k", b"l"])


class Promises(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.world = LoggedWorld.logged(LIMITS, RETENTION)
        self.messages: dict[bytes, Message] = {}
        self.subscriptions: list[Subscription] = []
        self.letters: set[tuple[bytes, bytes]] = set()
        self.begin()

    def begin(self) -> None:
        """The daemon is there, and nobody is connected."""
        self.connections: list[Connection] = []
        self.unlogged: list[Message] = []
        self.pending: list[tuple[Batch, list[Message]]] = []
        self.load: tuple[Load, list[tuple[Run, int]], int] | None = None
        self.publisher = Member(self.world)
        self.old = self.world.connect()
        self.undertaker = Member(self.world)
        self.dead = self.undertaker.attach(b"$dead.*", name=b"dead", pattern=True, max_attempts=0)
        self.commit_all()

    # Publishing

    def accept(
        self, name: bytes, qos: int, key: bytes | None = None, *, delayed: bool = False
    ) -> Message:
        body = b"%03d" % len(self.messages)
        wanted = [s for s in self.subscriptions if s.qos and s.matches(name)] if qos else []
        message = self.messages[body] = Message(body, name, qos, key, delayed, wanted)
        if qos:
            self.unlogged.append(message)
        return message

    @rule(name=st.sampled_from(TOPICS), qos=st.sampled_from([0, 1, 1]), count=bodies)
    def publish(self, name: bytes, qos: int, count: int) -> None:
        accepted = [self.accept(name, qos).body for _ in range(count)]
        self.publisher.publish(name, *accepted, qos=qos)

    @rule(name=st.sampled_from(TOPICS), qos=st.sampled_from([0, 1]), count=bodies)
    def publish_on_version_1(self, name: bytes, qos: int, count: int) -> None:
        accepted = [self.accept(name, qos).body for _ in range(count)]
        self.old.publish(name, *accepted, qos=qos)

    @rule(
        name=st.sampled_from(TOPICS),
        ttl_ms=st.sampled_from([None, None, None, 3_000]),
        delay_ms=st.sampled_from([0, 0, 0, 1_000]),
        key=keys,
        copies=st.sampled_from([0, 0, 2]),
    )
    def publish_with_properties(
        self, name: bytes, ttl_ms: int | None, delay_ms: int, key: bytes | None, copies: int
    ) -> None:
        message = self.accept(name, 1, key, delayed=delay_ms > 0)
        properties = MessageProperties(ttl_ms=ttl_ms, delay_ms=delay_ms, key=key)
        if copies:
            properties = attrs.evolve(properties, message_id=message.body)
        for _ in range(max(1, copies)):
            self.publisher.message(name, message.body, properties)

    # Clients

    @rule()
    def connect(self) -> None:
        if len(self.connections) < 4:
            self.connections.append(Connection(Member(self.world)))

    @rule(
        index=st.integers(0, 3),
        name=st.sampled_from([*NAMED, *NAMED, b""]),
        prefetch=st.sampled_from([0, 1, 3, 100]),
        start=st.sampled_from([None, StartKind.NEW, StartKind.EARLIEST]),
        qos=st.sampled_from([0, 1]),
    )
    def attach(
        self, index: int, name: bytes, prefetch: int, start: StartKind | None, qos: int
    ) -> None:
        if not self.connections:
            return
        connection = self.connections[index % len(self.connections)]
        selector, pattern, max_attempts = NAMED.get(name, (b"t", False, 2))
        if name:
            qos = 1
        found = next((s for s in self.subscriptions if name and s.name == name), None)
        if found is None:
            found = Subscription(
                selector, pattern, name, qos, max_attempts, start is not StartKind.NEW
            )
            found.first = len(self.messages)
            self.subscriptions.append(found)
        id_ = connection.member.attach(
            selector,
            qos=qos,
            name=name or None,
            prefetch=prefetch,
            pattern=pattern,
            max_attempts=max_attempts,
            ack_wait_ms=int(ACK_WAIT * 1000),
            start=None if start is None else Start(start),
        )
        connection.attached[id_] = Attached(found)
        self.drain(connection)
        self.commit_all()

    @rule(index=st.integers(0, 3))
    def receive(self, index: int) -> None:
        if self.connections:
            self.drain(self.connections[index % len(self.connections)])

    @rule()
    def everybody_receives(self) -> None:
        for connection in self.connections:
            self.drain(connection)

    def drain(self, connection: Connection) -> None:
        for pushed in connection.member.take_pushed():
            self.check(connection, pushed)
        assert connection.member.refused == []

    def attached(self, index: int) -> tuple[Connection, int, Attached] | None:
        every = [(c, id_, a) for c in self.connections for id_, a in c.attached.items()]
        return every[index % len(every)] if every else None

    @rule(index=st.integers(0, 9), count=st.integers(1, 3))
    def poll(self, index: int, count: int) -> None:
        found = self.attached(index)
        if found is None:
            return
        connection, id_, _ = found
        self.drain(connection)
        for _ in range(count):
            taken = self.world.broker.poll(
                connection.member.client.session._attachments[id_], self.world.now
            )
            if taken is not None:
                connection.member.client.session.output.add_deliver(id_, [taken])
                self.drain(connection)

    def check(self, connection: Connection, pushed: Pushed) -> None:
        """A message may come now, to this attachment."""
        attached = connection.attached[pushed.subscription]
        subscription, message = attached.subscription, self.messages[pushed.body]
        body, count = pushed.body, subscription.deliveries.get(pushed.body, 0)
        assert pushed.topic == message.topic
        assert subscription.matches(message.topic)
        assert pushed.qos == min(message.qos, subscription.qos)
        assert message.state == "committed" or not message.qos
        assert body not in subscription.accepted
        assert subscription.from_start or int(body) >= subscription.first or message.delayed
        subscription.deliveries[body] = count + 1
        if not pushed.qos:
            assert count == 0
            assert int(body) >= subscription.first or message.qos
        else:
            most = subscription.max_attempts
            assert 1 <= pushed.attempt <= min(count + 1, most or count + 1)
            attached.out[pushed.tag] = message, self.world.now + ACK_WAIT
        if count == 0:
            self.check_order(subscription, message, pushed.tag)
        if message.key is not None and pushed.qos:
            self.check_key(connection, attached, message)

    def check_order(self, subscription: Subscription, message: Message, tag: int) -> None:
        place = message.topic, message.key
        assert tag > subscription.last_tag.get(place, 0)
        subscription.last_tag[place] = tag

    def check_key(self, connection: Connection, mine: Attached, message: Message) -> None:
        for other in self.connections:
            for attached in other.attached.values():
                if attached is mine or attached.subscription is not mine.subscription:
                    continue
                for held, until in attached.out.values():
                    same = held.key == message.key and held.topic == message.topic
                    assert not same or until <= self.world.now

    @rule(
        index=st.integers(0, 9),
        begin=st.integers(0, 3),
        count=st.integers(1, 9),
        outcome=st.sampled_from([Outcome.ACCEPT, Outcome.ACCEPT, *Outcome]),
        delay_ms=st.sampled_from([0, 1_000]),
    )
    def settle(self, index: int, begin: int, count: int, outcome: Outcome, delay_ms: int) -> None:
        found = self.attached(index)
        if found is None or not found[2].out:
            return
        connection, id_, attached = found
        tags = sorted(attached.out)[begin : begin + count]
        if not tags:
            return
        self.before_settling(attached, tags[0], tags[-1], outcome)
        connection.member.settle(id_, tags[0], tags[-1], outcome, delay_ms)
        self.drain(connection)

    @rule(index=st.integers(0, 9))
    def accept_everything(self, index: int) -> None:
        found = self.attached(index)
        if found is not None:
            connection, id_, attached = found
            self.before_settling(attached, 1, LAST, Outcome.ACCEPT)
            connection.member.accept_all(id_)
            self.drain(connection)

    def before_settling(self, attached: Attached, first: int, last: int, outcome: Outcome) -> None:
        subscription = attached.subscription
        for tag in [tag for tag in attached.out if first <= tag <= last]:
            message, until = attached.out[tag]
            if outcome is Outcome.EXTEND:
                if until > self.world.now:
                    attached.out[tag] = message, self.world.now + ACK_WAIT
                continue
            del attached.out[tag]
            if until <= self.world.now:
                if outcome is Outcome.ACCEPT:
                    subscription.accepted_late.add(message.body)
                continue
            if outcome is Outcome.ACCEPT:
                subscription.accepted.add(message.body)

    @rule(index=st.integers(0, 9), delete=st.sampled_from([False, False, True]))
    def detach(self, index: int, delete: bool) -> None:
        found = self.attached(index)
        if found is None:
            return
        connection, id_, attached = found
        self.drain(connection)
        connection.member.detach(id_, delete=delete)
        del connection.attached[id_]
        if delete or not attached.subscription.name:
            self.ended(attached.subscription)
        for other in self.connections:
            other.member.receive()
            for ended, reason in other.member.ended:
                assert reason == "deleted"
                assert other.attached.pop(ended).subscription is attached.subscription
            other.member.ended.clear()
            self.drain(other)
        self.commit_all()

    @rule(index=st.integers(0, 3))
    def disconnect(self, index: int) -> None:
        if not self.connections:
            return
        connection = self.connections.pop(index % len(self.connections))
        connection.member.disconnect()
        for attached in connection.attached.values():
            if not attached.subscription.name:
                self.ended(attached.subscription)

    def ended(self, subscription: Subscription) -> None:
        self.subscriptions.remove(subscription)

    # Time

    @rule(seconds=st.sampled_from([0.1, 1.0, 1.0, ACK_WAIT]))
    def pass_time(self, seconds: float) -> None:
        self.world.pass_time(seconds)

    # The log

    @rule()
    def hand_off(self) -> None:
        batch = self.world.broker.handoff()
        if batch is not None:
            self.pending.append((batch, self.unlogged))
            self.unlogged = []

    @precondition(lambda self: self.pending)
    @rule()
    def commit(self) -> None:
        batch, messages = self.pending.pop(0)
        self.world.log.append(batch, self.world.time_ms)
        self.commits(messages)
        self.world.broker.committed(batch, self.world.now)
        self.bury()

    def commits(self, messages: list[Message]) -> None:
        for message in messages:
            message.state = "committed"

    @precondition(lambda self: self.pending)
    @rule()
    def fail(self) -> None:
        while self.pending:
            batch, messages = self.pending.pop()
            for message in messages:
                message.state = "failed"
            self.world.broker.failed(batch, "disk full", self.world.now)
        self.publisher.receive()
        self.publisher.refused.clear()

    @rule()
    def commit_everything(self) -> None:
        self.commit_all()

    def commit_all(self) -> None:
        while True:
            self.hand_off()
            if not self.pending:
                break
            while self.pending:
                self.commit()
        for subscription in self.subscriptions:
            subscription.accepted_logged = set(subscription.accepted)
        self.bury()

    @rule()
    def begin_to_read(self) -> None:
        if self.load is None:
            load = self.world.broker.next_load()
            if load is not None:
                self.load = (load, *self.world.log.read(load))

    @rule()
    def end_to_read(self) -> None:
        if self.load is not None:
            load, runs, reached = self.load
            self.load = None
            self.world.broker.loaded(load, runs, reached, None, self.world.now)

    @rule()
    def read_everything(self) -> None:
        self.end_to_read()
        self.world.read()

    @rule()
    def checkpoint(self) -> None:
        self.world.checkpoint()
        for subscription in self.subscriptions:
            subscription.accepted_logged = set(subscription.accepted)

    @rule(written=st.integers(0, 3))
    def crash(self, written: int) -> None:
        for batch, messages in self.pending[:written]:
            self.world.log.append(batch, self.world.time_ms)
            self.commits(messages)
        for message in self.messages.values():
            if message.state == "accepted":
                message.state = "lost"
        self.subscriptions = [s for s in self.subscriptions if s.name]
        for subscription in self.subscriptions:
            subscription.accepted = set(subscription.accepted_logged)
        self.world.crash()
        self.begin()

    def bury(self) -> None:
        """Dead letters are taken note of."""
        for pushed in self.undertaker.take_pushed():
            origin = pushed.properties.dead_letter
            assert origin is not None
            self.letters.add((pushed.body, origin.subscription))
        self.undertaker.accept_all(self.dead)

    # The end

    def teardown(self) -> None:
        while self.connections:
            self.disconnect(0)
        self.settle_everything()
        self.nothing_is_missing()
        self.nothing_is_left()

    def settle_everything(self) -> None:
        consumer = Connection(Member(self.world))
        self.connections.append(consumer)
        for name in sorted({s.name for s in self.subscriptions}):
            self.connections = [consumer]
            self.attach(0, name, 100, None, 1)
        for _ in range(6):
            for _ in range(8):
                self.commit_all()
                self.read_everything()
                self.drain(consumer)
                for id_, attached in consumer.attached.items():
                    self.before_settling(attached, 1, LAST, Outcome.ACCEPT)
                    consumer.member.accept_all(id_)
                self.drain(consumer)
            self.world.pass_time(ACK_WAIT)

    def nothing_is_missing(self) -> None:
        for message in self.messages.values():
            if message.state != "committed":
                continue
            for subscription in message.wanted_by:
                if subscription.name and subscription in self.subscriptions:
                    buried = (message.body, subscription.name) in self.letters
                    accepted = subscription.accepted | subscription.accepted_late
                    assert message.body in accepted or buried, message

    def nothing_is_left(self) -> None:
        (consumer,) = self.connections
        stats = self.world.broker.stats
        inflight, delayed = stats.inflight, stats.delayed
        held = sum(row.messages for row in self.world.broker.backlogs(100, self.world.now))
        assert (inflight, delayed, held) == (0, 0, 0)
        for id_ in list(consumer.attached):
            consumer.member.detach(id_, delete=True)
        for name in TOPICS:
            id_ = consumer.member.attach(name)
            consumer.member.accept_all(id_)
        self.commit_all()
        consumer.member.disconnect()
        self.undertaker.detach(self.dead, delete=True)
        self.world.pass_time(10)
        self.world.broker._dedup._expire(self.world.now)
        for member in (self.publisher, self.undertaker):
            member.disconnect()
        self.old.disconnect()
        self.world.commit()
        left = stats.memory_bytes, stats.topics, stats.subscriptions, stats.attachments
        assert left == (0, 0, 0, 0)
        assert self.world.broker.next_deadline is None


TestPromises = Promises.TestCase
TestPromises.settings = settings(max_examples=200, stateful_step_count=50, deadline=None)
