"""A version 1 broker in memory, which a test can hold up, make refuse, and look into."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import attrs
import trio
import trio.testing

from blipmq import Client, connect_stream
from blipmq.protocol import encoder
from blipmq.protocol.frames import (
    ACK,
    AUTH,
    HELLO,
    PING,
    POLL,
    PUBLISH,
    SUBSCRIBE,
    U16,
    U32,
    U64,
    Frame,
)

KEY = "dev-key-1"


@attrs.define(eq=False)
class Held:
    """A message that was delivered at QoS 1."""

    message: FakeMessage
    due: float
    attempts: int = 1


@attrs.frozen
class FakeMessage:
    tag: int
    qos: int
    topic: bytes
    body: bytes


@attrs.define(eq=False)
class FakeSubscription:
    id: int
    topic: bytes
    qos: int
    queue: deque[FakeMessage] = attrs.field(factory=deque)
    held: dict[int, Held] = attrs.field(factory=dict)
    accepted: list[int] = attrs.field(factory=list)
    redeliveries: int = 0

    def next(self, now: float, backoff: float) -> FakeMessage | None:
        for held in self.held.values():
            if held.due <= now:
                held.attempts += 1
                held.due = now + backoff * 2 ** (held.attempts - 1)
                self.redeliveries += 1
                return held.message
        if not self.queue:
            return None
        message = self.queue.popleft()
        if min(message.qos, self.qos):
            self.held[message.tag] = Held(message, now + backoff)
        return message


@attrs.define(eq=False)
class FakeBroker:
    """Topics and subscriptions; `serve` speaks to one client. Answers in order, one at a time."""

    retry_backoff: float = 3600.0
    subscriptions: dict[int, FakeSubscription] = attrs.field(factory=dict, init=False)
    committed: list[FakeMessage] = attrs.field(factory=list, init=False)
    seen: list[Frame] = attrs.field(factory=list, init=False)
    """Every frame that was looked at."""
    commits: trio.Event = attrs.field(factory=trio.Event, init=False)
    """QoS 1 messages are committed, and POLLs answered, only while this is set."""
    refuse: dict[bytes, tuple[int, str]] = attrs.field(factory=dict, init=False)
    """Bodies, topics and keys that are answered by a NACK."""
    answer: Callable[[Frame], bytes | None] = attrs.field(default=lambda _: None, init=False)
    """What to say instead, for a frame that the test has something to say to."""
    _pending: list[tuple[int, FakeMessage]] = attrs.field(factory=list, init=False)
    _tag: int = attrs.field(default=0, init=False)
    _subscription_id: int = attrs.field(default=0, init=False)
    serving: int = attrs.field(default=0, init=False)
    """Connections that are open."""
    _streams: list[trio.abc.Stream] = attrs.field(factory=list, init=False)

    def __attrs_post_init__(self) -> None:
        self.refuse[U16.pack(2)] = (426, "unsupported protocol version")
        self.commits.set()

    def bodies(self) -> list[bytes]:
        return [message.body for message in self.committed]

    def count(self, type_: int) -> int:
        return sum(frame.type == type_ for frame in self.seen)

    def accepted(self) -> list[int]:
        return sorted(tag for sub in self.subscriptions.values() for tag in sub.accepted)

    @property
    def redeliveries(self) -> int:
        return sum(sub.redeliveries for sub in self.subscriptions.values())

    def put(self, topic: bytes, *bodies: bytes, qos: int = 1) -> None:
        """Publishes messages, as if another client had done it."""
        for body in bodies:
            self._commit(self._numbered(qos, topic, body))

    def _numbered(self, qos: int, topic: bytes, body: bytes) -> FakeMessage:
        self._tag += 1
        return FakeMessage(self._tag, qos, topic, body)

    def _commit(self, message: FakeMessage) -> None:
        self.committed.append(message)
        for subscription in self.subscriptions.values():
            if subscription.topic == message.topic:
                subscription.queue.append(message)

    async def hang_up(self) -> None:
        """Closes every connection."""
        for stream in self._streams:
            await trio.aclose_forcefully(stream)

    async def say(self, frames: bytes) -> None:
        """Sends something to every client unasked."""
        for stream in self._streams:
            await stream.send_all(frames)

    async def serve(self, stream: trio.abc.Stream) -> None:
        """Until the client closes, or the stream breaks under either."""
        self._streams.append(stream)
        self.serving += 1
        try:
            async with stream:
                buffer = bytearray()
                while data := await stream.receive_some():
                    buffer += data
                    replies = b""
                    while frame := split(buffer):
                        replies += await self._reply(frame)
                    if replies:
                        await stream.send_all(replies)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return
        finally:
            self.serving -= 1

    async def _reply(self, frame: Frame) -> bytes:
        if frame.type == POLL:
            await self.commits.wait()
        settled = self._settle() if self.commits.is_set() else b""
        self.seen.append(frame)
        said = self.answer(frame)
        return settled + (self._handle(frame) if said is None else said)

    def _settle(self) -> bytes:
        replies = b""
        for id_, message in self._pending:
            refused = self.refuse.get(message.body)
            if refused is not None:
                replies += encoder.nack(id_, *refused)
            else:
                self._commit(message)
        self._pending.clear()
        return replies

    def _handle(self, frame: Frame) -> bytes:
        id_, payload = frame.correlation_id, frame.payload
        if frame.type == HELLO:
            return self._refused(id_, payload) or encoder.ack(id_)
        if frame.type == AUTH:
            known = payload[2:] == KEY.encode()
            return encoder.ack(id_) if known else encoder.nack(id_, 401, "invalid API key")
        if frame.type == PUBLISH:
            return self._publish(id_, payload)
        if frame.type == SUBSCRIBE:
            topic, qos = payload[2:-1], payload[-1]
            return self._refused(id_, topic) or self._subscribe(id_, topic, qos)
        if frame.type == POLL:
            return self._poll(id_, U64.unpack(payload)[0])
        if frame.type == ACK:
            return self._accept(id_, U64.unpack(payload)[0])
        assert frame.type == PING
        return encoder.pong(id_)

    def _refused(self, id_: int, what: bytes) -> bytes:
        return encoder.nack(id_, *self.refuse[what]) if what in self.refuse else b""

    def _publish(self, id_: int, payload: bytes) -> bytes:
        (size,) = U16.unpack_from(payload, 1)
        qos, topic, body = payload[0], payload[3 : 3 + size], payload[3 + size :]
        if topic in self.refuse:
            return self._refused(id_, topic)
        message = self._numbered(qos, topic, body)
        if qos:
            self._pending.append((id_, message))
        else:
            self._commit(message)
        return b""

    def _subscribe(self, id_: int, topic: bytes, qos: int) -> bytes:
        self._subscription_id += 1
        sub = FakeSubscription(self._subscription_id, topic, qos)
        self.subscriptions[sub.id] = sub
        return encoder.ack(id_, sub.id)

    def _poll(self, id_: int, subscription_id: int) -> bytes:
        sub = self.subscriptions.get(subscription_id)
        message = sub.next(trio.current_time(), self.retry_backoff) if sub else None
        if sub is None or message is None:
            return b""
        qos = min(message.qos, sub.qos)
        return encoder.publish(message.tag if qos else id_, qos, message.topic, message.body)

    def _accept(self, tag: int, subscription_id: int) -> bytes:
        sub = self.subscriptions.get(subscription_id)
        if sub is None or sub.held.pop(tag, None) is None:
            return encoder.nack(tag, 404, "unknown subscription or delivery tag")
        sub.accepted.append(tag)
        return b""


def split(buffer: bytearray) -> Frame | None:
    """Takes one whole frame off the front, if there is one."""
    if len(buffer) < U32.size:
        return None
    end = U32.size + U32.unpack_from(buffer)[0]
    if len(buffer) < end:
        return None
    frame = Frame(buffer[4], U64.unpack_from(buffer, 5)[0], bytes(buffer[13:end]))
    del buffer[:end]
    return frame


def connected(
    broker: FakeBroker,
    nursery: trio.Nursery,
    wrap: Callable[[trio.abc.Stream], trio.abc.Stream] = lambda stream: stream,
) -> AbstractAsyncContextManager[Client]:
    """A client of this broker; `wrap` may put something around the client's end of the stream."""
    ours, theirs = trio.testing.memory_stream_pair()
    nursery.start_soon(broker.serve, theirs)
    return connect_stream(wrap(ours), api_key=KEY, name="fake")
