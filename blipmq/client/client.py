"""A client of a broker, and the two ways to get one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final

import attrs
import trio

from blipmq.client import handshake, url
from blipmq.client.confirms import Confirms
from blipmq.client.connection import Connection
from blipmq.client.feeds import Feeds
from blipmq.client.refusals import Refusals
from blipmq.client.subscription import Subscription
from blipmq.client.topic import checked_qos, encoded
from blipmq.client.unwrapped import unwrapped
from blipmq.errors import ConnectionLost, TooLarge
from blipmq.protocol import encoder
from blipmq.protocol.frames import LENGTH_MAX_PUBLISH, LENGTH_MIN, PONG

PREFETCH: Final = 128
CONNECT_TIMEOUT_MS: Final = 10_000
CLOSE_TIMEOUT_MS: Final = 2_000

_PUBLISH_PREFIX_BYTES: Final = 3


@attrs.define(eq=False)
class Client:
    """A connection to a broker, from `open_client`; to be used in its `async with` block.

    Any task may call any method at any time, and any call may be cancelled at any time: the
    client stays usable, and no message is lost. A call on a connection that is lost raises
    `ConnectionLost`, one after the block `ClientClosed`.
    """

    broker_version: int
    """The protocol version that this connection speaks."""
    _connection: Connection = attrs.field(repr=False, alias="connection")
    _feeds: Feeds = attrs.field(repr=False, alias="feeds")
    _confirms: Confirms = attrs.field(repr=False, alias="confirms")

    async def publish(
        self, topic: str, body: bytes | bytearray | memoryview, *, qos: int = 1
    ) -> None:
        """Publishes a message.

        At QoS 1 it returns when the broker has committed the message, and raises the `Refused`
        of its NACK otherwise, `PublishFailed` when the log could not take it. Publishes that wait
        at the same time share their round trips. At QoS 0 it returns when the message
        waits to be sent, in order; a NACK is counted in `refusals`.

        Cancelled, a QoS 1 message may or may not be published; the frame is sent whole or not
        at all. When many bytes wait to be sent, it waits for room first, and cancelled there
        nothing is sent. Raises `ValueError` for a topic or QoS that cannot be and
        `TooLarge` for a body that no broker takes, before anything is sent.
        """
        topic_bytes, qos = encoded(topic), checked_qos(qos)
        if not isinstance(body, bytes | bytearray | memoryview):
            raise TypeError(f"a body is bytes, not {type(body).__name__}")
        data = bytes(body)
        if LENGTH_MIN + _PUBLISH_PREFIX_BYTES + len(topic_bytes) + len(data) > LENGTH_MAX_PUBLISH:
            raise TooLarge(413, "message too large")

        def frame(id_: int) -> bytes:
            return encoder.publish(id_, qos, topic_bytes, data)

        await trio.lowlevel.checkpoint_if_cancelled()
        await self._connection.room()
        if qos:
            await self._confirms.publish(frame).wait()
        else:
            self._connection.tell(frame)
            await trio.lowlevel.cancel_shielded_checkpoint()

    def subscribe(self, topic: str, *, qos: int = 1, prefetch: int = PREFETCH) -> Subscription:
        """A subscription, which begins with its `async with` block.

        Up to `prefetch` messages are fetched ahead of the consumer, so that a fast one need not
        wait a round trip for each. At QoS 1 it is only as many as the consumer, at its
        present speed, takes within 25 ms, and none ahead of a slow one: what waits here longer
        than the broker's retry backoff is delivered again, and counts as an attempt. A small
        `prefetch` is for consumers of very uneven speed; 1 fetches nothing ahead.

        Raises `ValueError` for a topic, QoS or prefetch that cannot be.
        """
        encoded(topic)
        if prefetch < 1:
            raise ValueError(f"prefetch {prefetch!r}; expected 1 or more")
        return Subscription(topic, checked_qos(qos), prefetch, feeds=self._feeds)

    async def ping(self) -> None:
        """A round trip: returns when the broker has looked at everything sent before.

        Its answer also waits for QoS 1 messages of this client that are not committed yet.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        await self._connection.request(encoder.ping, PONG)

    @property
    def refusals(self) -> Refusals:
        """Counts of what the broker refused without a call that waited for the answer."""
        return self._connection.refusals


def open_client(
    url_: str,
    /,
    *,
    api_key: str,
    connect_timeout_ms: int = CONNECT_TIMEOUT_MS,
    close_timeout_ms: int = CLOSE_TIMEOUT_MS,
) -> AbstractAsyncContextManager[Client]:
    """Connects to the broker at `blipmq://HOST[:PORT]` (port 5555) for an `async with` block.

    Raises `ValueError` at once for a URL that is none or a key that cannot be, and `TypeError`
    for a key that is no text. Entering the block raises
    `ConnectionLost`, with the address, when the broker cannot be reached or does not answer
    within `connect_timeout_ms`, and `AuthenticationFailed` when it does not know the key. For the
    block and its end see `connect_stream`.
    """
    address = url.parse(url_)
    handshake.encoded(api_key)
    return _connect(address, api_key, connect_timeout_ms, close_timeout_ms)


@asynccontextmanager
async def _connect(
    address: url.Address, api_key: str, connect_timeout_ms: int, close_timeout_ms: int
) -> AsyncIterator[Client]:
    with trio.move_on_after(connect_timeout_ms / 1000) as patience:
        try:
            stream = await trio.open_tcp_stream(address.host, address.port)
        except (OSError, UnicodeError) as error:  # Trio's IDNA is stricter than Python's
            raise ConnectionLost(f"cannot connect to {address}: {_reason(error)}") from error
    if patience.cancelled_caught:
        raise ConnectionLost(f"cannot connect to {address} within {connect_timeout_ms} ms")
    async with connect_stream(
        stream,
        api_key=api_key,
        name=str(address),
        connect_timeout_ms=connect_timeout_ms,
        close_timeout_ms=close_timeout_ms,
    ) as client:
        yield client


def _reason(error: OSError | UnicodeError) -> str:
    """What went wrong at each of the addresses that the host has."""
    cause = error.__cause__
    if isinstance(cause, BaseExceptionGroup):
        return "; ".join(str(each) for each in cause.exceptions)
    return str(error)


@asynccontextmanager
async def connect_stream(
    stream: trio.abc.Stream,
    *,
    api_key: str,
    name: str = "the broker",
    connect_timeout_ms: int = CONNECT_TIMEOUT_MS,
    close_timeout_ms: int = CLOSE_TIMEOUT_MS,
) -> AsyncIterator[Client]:
    """A client over any stream to a broker, for an `async with` block; `name` is for errors.

    The client's tasks end with the block, and the stream is closed. Exceptions of the block
    come out as they are. Losing the connection raises `ConnectionLost` from the calls that
    need it, and does not cancel the block.

    Leaving the block, also by an exception, first sends what waits and lets the broker answer:
    acceptances and QoS 0 messages have arrived then, QoS 1 messages are committed. That
    takes at most `close_timeout_ms`, cannot be cancelled, and raises `ConnectionLost` if it is in
    doubt and the block raised nothing: accepted messages may come again then.
    """
    connection = Connection(stream, name)
    try:
        key = handshake.encoded(api_key)
        with unwrapped():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(connection.run)
                try:
                    version = await _authenticated(connection, key, connect_timeout_ms)
                    try:
                        yield Client(
                            version,
                            connection=connection,
                            feeds=Feeds(connection, nursery),
                            confirms=Confirms(connection),
                        )
                    finally:
                        await connection.leave(close_timeout_ms / 1000)
                    if connection.told:
                        raise ConnectionLost(
                            f"the last acceptances and QoS 0 messages may not have reached {name}"
                        )
                finally:
                    connection.stop()
                    nursery.cancel_scope.cancel()
    finally:
        with trio.move_on_after(close_timeout_ms / 1000, shield=True):
            await stream.aclose()


async def _authenticated(connection: Connection, key: bytes, timeout_ms: int) -> int:
    with trio.move_on_after(timeout_ms / 1000):
        return await handshake.shake_hands(connection, key)
    raise ConnectionLost(f"{connection.name} did not answer within {timeout_ms} ms")
