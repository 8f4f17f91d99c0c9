"""The engine of a client on version 1: what that version can do, behind the same calls."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Unpack

import attrs
import trio

from blipmq.client import features
from blipmq.client.message import Message
from blipmq.client.outgoing import Body, PublishOptions, check_size, checked_body, properties_of
from blipmq.client.polling.confirms import Confirm, Confirms
from blipmq.client.polling.connection import Connection
from blipmq.client.polling.feed import Feed
from blipmq.client.polling.feeds import Feeds
from blipmq.client.publisher import Publisher, window_full
from blipmq.client.refusals import Refusals
from blipmq.client.source import Source, Wanted
from blipmq.client.states import State, States
from blipmq.client.topic import encoded
from blipmq.errors import BlipMQError, ClientError, Refused
from blipmq.protocol import encoder
from blipmq.protocol.frames import PONG
from blipmq.protocol.properties import MessageProperties

PREFETCH = 128


@attrs.define(eq=False)
class PollingEngine:
    """One connection; when it is lost, that is the end."""

    connection: Connection
    nursery: trio.Nursery
    """Where the polling tasks run."""
    version: int = attrs.field(default=1, init=False)
    states: States = attrs.field(factory=States, init=False)
    _feeds: Feeds = attrs.field(init=False)
    _confirms: Confirms = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._feeds = Feeds(self.connection, self.nursery)
        self._confirms = Confirms(self.connection)

    @property
    def refusals(self) -> Refusals:
        return self.connection.refusals

    async def run(self) -> None:
        """Until the connection is lost or `stop` is called."""
        await self.connection.run()
        self.states.become(State.LOST)

    async def publish(
        self, topic: str, body: Body, qos: int, properties: MessageProperties | None
    ) -> None:
        """As `Client.publish`."""
        topic_bytes, data = encoded(topic), checked_body(body)
        features.check_properties(properties)
        check_size(len(data), topic_bytes)
        await trio.lowlevel.checkpoint_if_cancelled()
        await self.connection.room()
        confirm = self._send(topic_bytes, data, qos)
        if confirm is not None:
            await confirm.wait()
        else:
            await trio.lowlevel.cancel_shielded_checkpoint()

    def _send(self, topic: bytes, body: bytes, qos: int) -> Confirm | None:
        def frame(id_: int) -> bytes:
            return encoder.publish(id_, qos, topic, body)

        if qos:
            return self._confirms.publish(frame)
        self.connection.tell(frame)
        return None

    def publisher(self, topic: str, qos: int, window: int, window_bytes: int) -> Publisher:
        return PollingPublisher(self, topic, qos, window, window_bytes)

    def source(self, wanted: Wanted) -> Source:
        """Raises `UnsupportedByBroker`."""
        for feature, value in (
            (features.NAMES, wanted.name),
            (features.PATTERNS, wanted.pattern),
            (features.START, wanted.start),
            (features.ACK_WAIT, wanted.ack_wait_ms),
            (features.MAX_ATTEMPTS, wanted.max_attempts),
        ):
            if value is not None and value is not False:
                raise features.not_on_1(feature)
        return FeedSource(self._feeds, wanted.topic, wanted.qos, wanted.prefetch or PREFETCH)

    async def ping(self) -> None:
        """A round trip."""
        await trio.lowlevel.checkpoint_if_cancelled()
        await self.connection.request(encoder.ping, PONG)

    async def delete_subscription(self, topic: str, name: str) -> None:
        """Raises `UnsupportedByBroker`."""
        await trio.lowlevel.checkpoint()
        raise features.not_on_1(features.NAMES)

    async def leave(self, timeout_s: float) -> None:
        await self.connection.leave(timeout_s)

    @property
    def in_doubt(self) -> bool:
        return self.connection.told

    def stop(self) -> None:
        self.states.become(State.CLOSED)
        self.connection.stop()

    async def send(self, topic: bytes, body: bytes, qos: int) -> Confirm | None:
        """Sends a publisher's message when there is room. Cancelled, it has sent nothing."""
        await self.connection.room()
        return self._send(topic, body, qos)

    def send_nowait(self, topic: bytes, body: bytes, qos: int) -> Confirm | None:
        """Sends a publisher's message. Raises `WindowFull` when that would have to wait."""
        self.connection.check()
        if self.connection.outbox.full:
            raise window_full()
        return self._send(topic, body, qos)


@attrs.define(eq=False)
class FeedSource:
    """One `subscribe`, which uses a feed for a while."""

    _feeds: Feeds
    topic: str
    qos: int
    prefetch: int
    steps: int = attrs.field(default=1, init=False)
    dropped: int = attrs.field(default=0, init=False)
    ready: Iterator[Message] = attrs.field(factory=lambda: iter(()), init=False)
    _feed: Feed | None = attrs.field(default=None, init=False)

    async def open(self) -> None:
        self._feed = await self._feeds.open(self.topic, self.qos, self.prefetch)

    def close(self) -> None:
        feed, self._feed = self._feed, None
        if feed is not None:
            self._feeds.leave(feed)

    def take(self) -> Message | None:
        assert self._feed is not None
        return self._feed.take()

    def alive(self, message: Message) -> bool:
        return True

    async def arrival(self) -> None:
        assert self._feed is not None
        await self._feed.arrival()


class PollingPublisher(Publisher):
    """See `Publisher`: several publishes share a barrier."""

    def __init__(
        self, engine: PollingEngine, topic: str, qos: int, window: int, window_bytes: int
    ) -> None:
        super().__init__(topic, qos, window)
        self._topic = encoded(topic)
        self._engine = engine
        self._window_bytes = window_bytes
        self._under_way: deque[tuple[int, int, Confirm]] = deque()
        self._under_way_bytes = 0

    async def send(self, body: Body, **options: Unpack[PublishOptions]) -> None:
        data = self._checked(body, options)
        await trio.lowlevel.checkpoint_if_cancelled()
        while self._full():
            await self._settle_oldest()
        self._sending(len(data), await self._engine.send(self._topic, data, self.qos))
        await trio.lowlevel.cancel_shielded_checkpoint()

    def send_nowait(self, body: Body, **options: Unpack[PublishOptions]) -> None:
        data = self._checked(body, options)
        if self._full():
            raise window_full()
        self._sending(len(data), self._engine.send_nowait(self._topic, data, self.qos))

    def _checked(self, body: Body, options: PublishOptions) -> bytes:
        if options:
            features.check_properties(properties_of(qos=self.qos, **options))
        self._check_open()
        data = checked_body(body)
        check_size(len(data), self._topic)
        return data

    def _sending(self, size: int, confirm: Confirm | None) -> None:
        if confirm is not None:
            self._under_way.append((self._sent, size, confirm))
            self._under_way_bytes += size
        self._sent += 1

    def _full(self) -> bool:
        if not self._under_way:
            return False
        return len(self._under_way) >= self.window or self._under_way_bytes >= self._window_bytes

    async def _settle_oldest(self) -> None:
        number, size, confirm = self._under_way[0]
        failure: BlipMQError | None = None
        try:
            await confirm.settled()
        except (Refused, ClientError) as error:
            failure = error
        if self._under_way and self._under_way[0][0] == number:  # no other task was faster
            self._under_way.popleft()
            self._under_way_bytes -= size
            if failure is not None:
                self._failure(number, failure)

    async def _flushed(self) -> None:
        while self._under_way:
            await self._settle_oldest()
