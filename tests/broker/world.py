"""A broker, its clients and its log, moved by hand: nothing happens but what a test does."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from blipmq.broker.broker import Batch, Broker
from blipmq.broker.limits import Limits, Retention, Retries
from blipmq.broker.message import OVERHEAD_BYTES
from blipmq.broker.session import Session
from blipmq.protocol import encoder
from blipmq.protocol.decoder import Decoder
from blipmq.protocol.frames import ACK, NACK, PUBLISH, U16, U64, Frame
from blipmq.protocol.run import Run
from tests.protocol.reference import read
from tests.protocol.streams import decode

KEYS = {b"key": "owner", b"other key": "other owner"}
HELLO = encoder.hello(1, 1)
AUTH = encoder.auth(2, b"key")
_TICKS_MAX = 1_000


@attrs.frozen
class Received:
    """A message as a subscriber got it. `tag` is the correlation id of its frame."""

    topic: bytes
    qos: int
    body: bytes
    tag: int

    @classmethod
    def of(cls, frame: Frame) -> Received:
        assert frame.type == PUBLISH
        end = 3 + U16.unpack_from(frame.payload, 1)[0]
        body = frame.payload[end:]
        return cls(frame.payload[3:end], frame.payload[0], body, frame.correlation_id)


@attrs.define(eq=False)
class World:
    """A broker and the time. `pass_time` does what is due exactly when it is due."""

    broker: Broker
    now: float = 0.0

    @classmethod
    def create(
        cls,
        limits: Limits | None = None,
        retention: Retention | None = None,
        retries: Retries | None = None,
        *,
        durable: bool = False,
    ) -> World:
        return cls(Broker.create(limits, retention, retries, durable=durable))

    def pass_time(self, seconds: float) -> None:
        end = self.now + seconds
        for _ in range(_TICKS_MAX):
            due = self.broker.next_deadline
            if due is None or due > end:
                break
            self.now = max(self.now, due)
            self.broker.tick(self.now)
        else:
            raise AssertionError("the broker is due again and again")
        self.now = end
        self.broker.tick(end)

    def commit(self) -> Batch | None:
        """The log takes everything that waits for it."""
        batch = self.broker.handoff()
        if batch is not None:
            self.broker.committed(batch, self.now)
        return batch

    def fail(self, reason: str = "disk full") -> Batch | None:
        """The log takes nothing of what waits for it."""
        batch = self.broker.handoff()
        if batch is not None:
            self.broker.failed(batch, reason, self.now)
        return batch

    def connect_unauthenticated(self) -> Client:
        """A client that has sent nothing yet."""
        return Client(self)

    def connect(self, key: bytes = b"key") -> Client:
        """A client that is authenticated."""
        client = self.connect_unauthenticated()
        assert client.send(HELLO, encoder.auth(2, key)) == [encoder.ack(1), encoder.ack(2)]
        return client


def message_bytes(broker: Broker) -> int:
    """What is counted as memory besides the topics and subscriptions that there are."""
    topics = list(broker._topics)
    names = [topic.name for topic in topics]
    names += [cursor.topic.name for topic in topics for cursor in topic.cursors]
    return broker.stats.memory_bytes - sum(len(name) + OVERHEAD_BYTES for name in names)


def taken(session: Session) -> list[bytes]:
    """The replies that wait, which count as sent."""
    frames = [bytes(frame) for frame in session.output.take()]
    session.output.sent()
    return frames


def sent(session: Session) -> bytes:
    """The bytes of the replies that wait, which count as sent."""
    return b"".join(taken(session))


@attrs.define(eq=False)
class Client:
    """The other side of a session: sends frames, and gets the replies as frames."""

    world: World
    session: Session = attrs.field()
    progress: int = 0
    """How often the session said that it may go on."""
    calls: int = 100
    """The last correlation id that was used."""

    @session.default
    def _session(self) -> Session:
        return Session(self.world.broker, KEYS.get, self._on_progress)

    def _on_progress(self) -> None:
        self.progress += 1

    def send(self, *frames: bytes) -> list[bytes]:
        """Send the frames in one write. What comes back until the session waits for something."""
        self.feed(b"".join(frames))
        return self.replies()

    def feed(self, data: bytes) -> None:
        """Send bytes, and take nothing of what comes back."""
        while data:
            room = self.session.decoder.room()
            count = min(len(room), len(data))
            room[:count] = data[:count]
            self.session.received(count)
            self.session.advance(self.world.now)
            data = data[count:]

    def replies(self) -> list[bytes]:
        """What comes now, without sending anything."""
        replies: list[bytes] = []
        self.session.advance(self.world.now)
        while self.session.output:
            replies += taken(self.session)
            self.session.advance(self.world.now)
        return [frame.data for frame in read(b"".join(replies))[0]]

    def call(self) -> int:
        """A correlation id that was not used before."""
        self.calls += 1
        return self.calls

    def publish(self, topic: bytes, *bodies: bytes, qos: int = 1) -> list[bytes]:
        return self.send(*(encoder.publish(self.call(), qos, topic, body) for body in bodies))

    def subscribe(self, topic: bytes, qos: int = 1) -> int:
        """Subscribe, and get the subscription's id."""
        (reply,) = self.send(encoder.subscribe(self.call(), topic, qos))
        frame = parse(reply)
        assert frame.type == ACK
        return int(U64.unpack(frame.payload)[0])

    def poll(self, subscription: int) -> Received | None:
        replies = self.send(encoder.poll(self.call(), subscription))
        if not replies:
            return None
        (reply,) = replies
        return Received.of(parse(reply))

    def poll_all(self, subscription: int) -> list[bytes]:
        """The bodies of all messages that wait."""
        bodies: list[bytes] = []
        while (received := self.poll(subscription)) is not None:
            bodies.append(received.body)
        return bodies

    def ack(self, subscription: int, tag: int) -> list[bytes]:
        return self.send(encoder.ack(tag, subscription))

    def disconnect(self) -> None:
        self.session.end(self.world.now)


def parse(data: bytes) -> Frame:
    """One frame."""
    (frame,), _ = read(data)
    return Frame(frame.type, frame.correlation_id, frame.payload)


def refusals(replies: Sequence[bytes]) -> list[tuple[int, int, str]]:
    """Correlation id, code and message of each NACK."""
    found = []
    for frame in map(parse, replies):
        assert frame.type == NACK
        code = U16.unpack_from(frame.payload)[0]
        found.append((frame.correlation_id, code, frame.payload[4:].decode()))
    return found


@attrs.define(eq=False)
class Publisher:
    """Publishes without a connection, and remembers the first number of every answered run."""

    world: World
    committed: list[int] = attrs.Factory(list)
    failed: list[int] = attrs.Factory(list)

    def on_committed(self, run: Run) -> None:
        self.committed.append(run.first)

    def on_failed(self, run: Run, reason: str) -> None:
        self.failed.append(run.first)

    def publish(self, topic: bytes, *bodies: bytes, qos: int = 1) -> None:
        frames = (encoder.publish(i, qos, topic, body) for i, body in enumerate(bodies, 1))
        for run in decode(Decoder(), [b"".join(frames)])[0]:
            assert isinstance(run, Run)
            self.world.broker.publish(run, self, self.world.now)
