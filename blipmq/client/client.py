"""A client of a broker, and the two ways to get one."""

from __future__ import annotations

import math
import secrets
import ssl
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Final, Protocol, Unpack

import attrs
import trio

from blipmq.client import dial, features, handshake, url
from blipmq.client.inbox import Inbox
from blipmq.client.message import REQUEST_HEADER, Message
from blipmq.client.outgoing import Body, PublishOptions, properties_of
from blipmq.client.polling.connection import Connection
from blipmq.client.polling.engine import PollingEngine
from blipmq.client.publisher import Publisher
from blipmq.client.push.link import Link
from blipmq.client.refusals import Refusals
from blipmq.client.source import Source, StartAt, Wanted, wanted
from blipmq.client.states import State, States, Watch
from blipmq.client.subscription import Subscription
from blipmq.client.topic import checked_qos, encoded
from blipmq.client.tracing import CurrentContext
from blipmq.client.unwrapped import unwrapped
from blipmq.client.wire import closed
from blipmq.errors import ConnectionLost, RequestTimeout
from blipmq.protocol.properties import MessageProperties

CONNECT_TIMEOUT_MS: Final = 10_000
CLOSE_TIMEOUT_MS: Final = 2_000
RECONNECT_TIMEOUT: Final = 60.0
WINDOW: Final = 4096
WINDOW_BYTES: Final = 8 * 1024 * 1024
FULL_WINDOW_TIMEOUT: Final = 5.0

_PREFIX_BYTES: Final = 8
_INBOX_BYTES: Final = 12


class Engine(Protocol):
    """What one protocol version does of a client's part."""

    version: int
    states: States

    @property
    def refusals(self) -> Refusals: ...
    async def publish(
        self, topic: str, body: Body, qos: int, properties: MessageProperties | None
    ) -> None: ...
    def publisher(self, topic: str, qos: int, window: int, window_bytes: int) -> Publisher: ...
    def source(self, wanted: Wanted) -> Source: ...
    async def ping(self) -> None: ...
    async def delete_subscription(self, topic: str, name: str) -> None: ...
    async def leave(self, timeout_s: float) -> None: ...
    @property
    def in_doubt(self) -> bool: ...
    def stop(self) -> None: ...


@attrs.define(eq=False)
class Client:
    """A client of a broker, from `open_client`; to be used in its `async with` block.

    Any task may call any method at any time, and any call may be cancelled at any time: the
    client stays usable, and no message is lost. While the connection is down and being replaced,
    calls wait. When it is lost for good they raise `ConnectionLost`, and after the block
    `ClientClosed`.
    """

    broker_version: int
    """The protocol version that is spoken: 2, or 1 with an older broker."""
    missing_features: tuple[str, ...]
    """What that version leaves out; using it raises `UnsupportedByBroker`."""
    _engine: Engine = attrs.field(repr=False, alias="engine")
    _nursery: trio.Nursery = attrs.field(repr=False, alias="nursery")
    _entropy: Callable[[int], bytes] = attrs.field(repr=False, alias="entropy")
    _inbox: Inbox | None = attrs.field(default=None, init=False, repr=False)

    async def publish(
        self, topic: str, body: Body, *, qos: int = 1, **options: Unpack[PublishOptions]
    ) -> None:
        """Publishes a message.

        At QoS 1 it returns when the broker has committed the message, and raises the `Refused`
        of its NACK otherwise, `PublishFailed` when the log could not take it. Publishes that wait
        at the same time share commits; a pipeline is `open_publisher`. At QoS 0 it
        returns when the message waits to be sent, in order; a NACK is counted in `refusals`.

        For the options see `PublishOptions`. The client gives a `message_id` to each message that
        has none, so that what it sends again after a lost connection is published once.

        Cancelled, a QoS 1 message may or may not be published; the frame is sent whole or not
        at all. When many bytes wait to be sent, it waits for room first, and cancelled there
        nothing is sent; when that is because the connection is down it raises `WindowFull` after
        a while. Raises `ValueError` for a topic, QoS or option that cannot be and
        `TooLarge` for a body that no broker takes, before anything is sent.
        """
        properties = properties_of(qos=checked_qos(qos), **options) if options else None
        await self._engine.publish(topic, body, checked_qos(qos), properties)

    def open_publisher(
        self,
        topic: str,
        *,
        qos: int = 1,
        window: int = WINDOW,
        window_bytes: int = WINDOW_BYTES,
    ) -> Publisher:
        """A pipeline: its `send` waits only for room in a window of unconfirmed messages.

        Raises `ValueError` for a topic, QoS or window that cannot be.
        """
        encoded(topic)
        if window < 1 or window_bytes < 1:
            raise ValueError(f"a window of {window!r} messages, {window_bytes!r} bytes")
        return self._engine.publisher(topic, checked_qos(qos), window, window_bytes)

    def subscribe(
        self,
        topic: str,
        *,
        qos: int = 1,
        name: str | None = None,
        prefetch: int | None = None,
        pattern: bool | None = None,
        start: StartAt | None = None,
        ack_wait: float | None = None,
        max_attempts: int | None = None,
    ) -> Subscription:
        """A subscription, which begins with its `async with` block.

        With a `name` it is durable: it outlives the block, and is shared by all who subscribe
        with that topic and name, each message going to one of them. Without, it is gone with its
        block or its connection; after a reconnect it is a new one, and what was published
        in between is not received. A topic with a level `*`, or a last level `>`, is a
        pattern, unless `pattern` is False. `start` is "new", "earliest", a tag or a time, and
        counts only when the subscription is created. A message that is not settled within
        `ack_wait` seconds comes again, `max_attempts` times in all (0: for ever); both are the
        broker's unless given.

        The broker sends up to `prefetch` messages (512) ahead of their settlement. On version 1
        up to `prefetch` (128) are fetched ahead of the consumer; at QoS 1 only as many as it,
        at its present speed, takes within 25 ms, and none ahead of a slow one: what waits here
        longer than the broker's retry backoff is delivered again, and counts as an attempt. A
        small `prefetch` is for consumers of very uneven speed; 1 fetches nothing ahead.

        Raises `ValueError` for what cannot be, and `UnsupportedByBroker`.
        """
        asked = wanted(
            topic,
            qos=qos,
            name=name,
            pattern=pattern,
            prefetch=prefetch,
            start=start,
            ack_wait=ack_wait,
            max_attempts=max_attempts,
        )
        source = self._engine.source(asked)
        return Subscription(topic, asked.qos, source.prefetch, source=source)

    async def delete_subscription(self, topic: str, name: str) -> None:
        """Deletes a named subscription with its backlog; its members get `SubscriptionEnded`.

        If there is none, one is made for a moment. Cancelled, it is deleted or not, and what was
        made may stay.
        """
        wanted(
            topic,
            qos=1,
            name=name,
            pattern=None,
            prefetch=None,
            start=None,
            ack_wait=None,
            max_attempts=None,
        )
        await self._engine.delete_subscription(topic, name)

    async def request(
        self,
        topic: str,
        body: Body,
        *,
        timeout: float,  # noqa: ASYNC109, it is part of the message
        qos: int = 1,
        headers: Mapping[str, bytes] | None = None,
        content_type: str | None = None,
    ) -> Message:
        """Publishes a message, and returns the first reply to it (see `Message.reply`).

        The request expires with its `timeout`, in seconds, and `RequestTimeout` is raised. Raises
        as `publish` otherwise, and `UnsupportedByBroker`. Cancelled, the request may
        have been sent; its reply is dropped.
        """
        if self.broker_version == 1:
            raise features.not_on_1(features.REQUESTS)
        if self.state is State.CLOSED:
            raise closed()
        with trio.move_on_after(timeout):
            inbox = self._open_inbox()
            await inbox.open()
            awaited = inbox.expect()
            try:
                properties = properties_of(
                    ttl=timeout,
                    reply_to=inbox.topic,
                    content_type=content_type,
                    headers={**(headers or {}), REQUEST_HEADER: awaited.id},
                )
                await self._engine.publish(topic, body, checked_qos(qos), properties)
                return await awaited.reply()
            finally:
                inbox.forget(awaited)
        raise RequestTimeout(f"no reply from {topic!r} within {timeout:g} seconds")

    def _open_inbox(self) -> Inbox:
        if self._inbox is None or not self._inbox.usable:
            topic = f"_inbox.{self._entropy(_INBOX_BYTES).hex()}"
            source = self._engine.source(Wanted(topic, 0, False, None, None, None, None, None))
            self._inbox = Inbox(topic, source, self._nursery)
        return self._inbox

    async def ping(self) -> None:
        """A round trip: returns when the broker has looked at everything sent before.

        On version 1, its answer also waits for QoS 1 messages of this client that are not
        committed yet. Raises `ConnectionLost` when the connection is lost meanwhile.
        """
        await self._engine.ping()

    @property
    def state(self) -> State:
        """How the client stands with its broker."""
        return self._engine.states.now

    def states(self) -> Watch:
        """An async iterator: the present state, and each that follows, until CLOSED."""
        return self._engine.states.watch()

    @property
    def refusals(self) -> Refusals:
        """Counts of what the broker refused without a call that waited for the answer."""
        return self._engine.refusals


def open_client(
    urls: str | Sequence[str],
    /,
    *,
    api_key: str,
    connect_timeout_ms: int = CONNECT_TIMEOUT_MS,
    close_timeout_ms: int = CLOSE_TIMEOUT_MS,
    reconnect: bool = True,
    reconnect_timeout: float = RECONNECT_TIMEOUT,
    full_window_timeout: float = FULL_WINDOW_TIMEOUT,
    ssl_context: ssl.SSLContext | None = None,
    connect: dial.Connect = dial.open_tcp,
    entropy: Callable[[int], bytes] = secrets.token_bytes,
    trace_context: CurrentContext | None = None,
) -> AbstractAsyncContextManager[Client]:
    """Connects to a broker for an `async with` block: `blipmq://HOST[:PORT]`, port 5555.

    `blipmqs://` is with TLS, checked by `ssl_context` or else by the system's certificates;
    `ws://` and `wss://` are WebSockets. Of several URLs the first that answers is used.
    `connect` opens the stream to an address, in place of TCP; `entropy` gives random bytes.

    `trace_context` gives the W3C traceparent that a published message carries, unless its options
    have one; with OpenTelemetry it is `blipmq.otel.current_context`. Version 1 carries none.

    With `reconnect`, a connection of version 2 that is lost is replaced, by any of the URLs:
    subscriptions are attached again, and publishes that were not confirmed are sent again.
    Attempts are made for up to `reconnect_timeout` seconds (`math.inf` for ever), ever more slowly,
    then calls raise `ConnectionLost`. Meanwhile what is published is kept, up to a window; a
    publish that does not fit waits `full_window_timeout` seconds, then raises `WindowFull`.

    Raises `ValueError` at once for a URL that is none or a key that cannot be, and `TypeError`
    for a key that is no text. Entering the block raises
    `ConnectionLost`, with the address, when no broker can be reached or does not answer
    within `connect_timeout_ms`, and `AuthenticationFailed` when it does not know the key. For the
    block and its end see `connect_stream`.
    """
    addresses = [url.parse(each) for each in ([urls] if isinstance(urls, str) else urls)]
    if not addresses:
        raise ValueError(f"no URL; expected {url.EXPECTED}")
    key = handshake.encoded(api_key)

    def dialer(nursery: trio.Nursery) -> dial.Dialer:
        return dial.Dialer(
            addresses, key, connect_timeout_ms / 1000, ssl_context, connect, entropy, nursery
        )

    return _client(
        dialer,
        close_timeout_ms / 1000,
        reconnect_timeout if reconnect else None,
        full_window_timeout,
        entropy,
        trace_context,
    )


@asynccontextmanager
async def connect_stream(
    stream: trio.abc.Stream,
    *,
    api_key: str,
    name: str = "the broker",
    connect_timeout_ms: int = CONNECT_TIMEOUT_MS,
    close_timeout_ms: int = CLOSE_TIMEOUT_MS,
    entropy: Callable[[int], bytes] = secrets.token_bytes,
    trace_context: CurrentContext | None = None,
) -> AsyncIterator[Client]:
    """A client over any stream to a broker, for an `async with` block; `name` is for errors.

    The client's tasks end with the block, and the stream is closed. Exceptions of the block
    come out as they are. Losing the connection raises `ConnectionLost` from the calls that
    need it, and does not cancel the block; a client of one stream cannot reconnect.

    Leaving the block, also by an exception, first sends what waits and lets the broker answer:
    acceptances and QoS 0 messages have arrived then, QoS 1 messages are committed. That
    takes at most `close_timeout_ms`, cannot be cancelled, and raises `ConnectionLost` if it is in
    doubt and the block raised nothing: accepted messages may come again then.
    """
    try:
        key = handshake.encoded(api_key)
        given = _Given(stream, name, key, connect_timeout_ms)
        async with _client(
            lambda _: given, close_timeout_ms / 1000, None, math.inf, entropy, trace_context
        ) as client:
            yield client
    finally:
        with trio.move_on_after(close_timeout_ms / 1000, shield=True):
            await stream.aclose()


@attrs.frozen
class _Given:
    """In place of a `Dialer`: the one stream that there is."""

    stream: trio.abc.Stream
    name: str
    key: bytes
    timeout_ms: int

    async def dial(self) -> dial.Dialled:
        with trio.move_on_after(self.timeout_ms / 1000):
            return await dial.greeted(self.stream, self.name, self.key)
        raise ConnectionLost(f"{self.name} did not answer within {self.timeout_ms} ms")


@asynccontextmanager
async def _client(
    dialer: Callable[[trio.Nursery], dial.Dialer | _Given],
    close_timeout_s: float,
    reconnect_timeout_s: float | None,
    full_window_timeout_s: float,
    entropy: Callable[[int], bytes],
    trace_context: CurrentContext | None = None,
) -> AsyncIterator[Client]:
    with unwrapped():
        async with trio.open_nursery() as nursery:
            dials = dialer(nursery)
            first = await dials.dial()
            engine: Engine
            if first.version == 1:
                connection = Connection(first.stream, first.name, first.rest)
                polling = PollingEngine(connection, nursery)
                nursery.start_soon(polling.run)
                engine = polling
            else:
                redial = None
                if reconnect_timeout_s is not None and isinstance(dials, dial.Dialer):
                    redial = partial(
                        dials.redial, version=first.version, timeout_s=reconnect_timeout_s
                    )
                prefix = entropy(_PREFIX_BYTES)
                link = Link(first.name, prefix, redial, full_window_timeout_s, trace_context)
                nursery.start_soon(link.run, first)
                engine = link
            client = Client(
                first.version,
                features.missing(first.version),
                engine=engine,
                nursery=nursery,
                entropy=entropy,
            )
            try:
                try:
                    yield client
                finally:
                    await engine.leave(close_timeout_s)
                if engine.in_doubt:
                    raise ConnectionLost(
                        f"the last acceptances and QoS 0 messages may not have reached {first.name}"
                    )
            finally:
                engine.stop()
                nursery.cancel_scope.cancel()
