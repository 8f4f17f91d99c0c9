"""A client of protocol version 1 that sends what it is told to and shows every reply."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import count
from typing import Final, Self

import attrs
import trio

from blipmq.client.splitter import Splitter
from blipmq.protocol import encoder
from blipmq.protocol.frames import ACK, NACK, PONG, PUBLISH, U16, U64, Frame
from tools.chaos.daemon import KEY

NO_SUBSCRIPTION: Final = 2**64 - 1
ANSWER_SECONDS: Final = 60.0


class Lost(Exception):
    """The connection ended."""


class Refused(Exception):
    """A request was answered by a NACK, or not as the protocol says.

    `replies` is what the broker said; the requests that are not in it were carried out.
    """

    def __init__(self, text: str, replies: Sequence[Frame] = ()) -> None:
        super().__init__(text)
        self.replies = replies


@attrs.frozen
class Delivery:
    """A message as it was delivered. At QoS 0 its tag is nothing to settle."""

    tag: int
    body: bytes
    qos: int = 1


@attrs.define(eq=False)
class Connection(trio.abc.AsyncResource):
    """An authenticated connection. One task at a time uses it."""

    stream: trio.SocketStream
    _splitter: Splitter = attrs.Factory(Splitter)
    _ids: count[int] = attrs.Factory(lambda: count(1))

    @classmethod
    async def open(cls, address: tuple[str, int]) -> Self:
        """Raises Lost or Refused."""
        try:
            connection = cls(await trio.open_tcp_stream(*address))
        except OSError as error:
            raise Lost(str(error)) from None
        try:
            for request in (encoder.hello(0, 1), encoder.auth(0, KEY.encode())):
                await connection.send(request)
                (reply,) = await connection.receive()
                if reply.type != ACK:
                    raise Refused(f"the handshake was answered by {_text(reply)}")
        except BaseException:
            await connection.aclose()
            raise
        return connection

    async def aclose(self) -> None:
        """Close it at once."""
        await trio.aclose_forcefully(self.stream)

    async def send(self, data: bytes) -> None:
        try:
            await self.stream.send_all(data)
        except trio.BrokenResourceError as error:
            raise Lost(str(error)) from None

    async def receive(self) -> list[Frame]:
        """The frames that come next, one or more. Raises Lost, or trio.TooSlowError."""
        frames: list[Frame] = []
        with trio.fail_after(ANSWER_SECONDS):
            while not frames:
                try:
                    data = await self.stream.receive_some()
                except trio.BrokenResourceError as error:
                    raise Lost(str(error)) from None
                if not data:
                    raise Lost("closed by the broker")
                frames += self._splitter.split(bytes(data))
        return frames

    async def exchange(self, *requests: bytes) -> list[Frame]:
        """Send requests and return all replies to them.

        A POLL and what comes behind it waits for the commit of the publishes before it; so when
        this returns they are committed. Raises Lost.
        """
        barrier = next(self._ids)
        poll = encoder.poll(barrier, NO_SUBSCRIPTION)
        await self.send(b"".join((*requests, poll, encoder.ping(barrier))))
        frames = await self.receive()
        while frames[-1].type != PONG:
            frames += await self.receive()
        return frames[:-1]

    async def publish(self, topic: bytes, bodies: Iterable[bytes]) -> None:
        """At QoS 1; returns when they are committed. Raises Lost or Refused."""
        await self.publish_each(topic, [(1, body) for body in bodies])

    async def publish_each(self, topic: bytes, messages: Iterable[tuple[int, bytes]]) -> None:
        """Each at its QoS; returns when those of QoS 1 are committed. Raises Lost or Refused."""
        ids = self._ids
        _none(await self.exchange(*(encoder.publish(next(ids), q, topic, b) for q, b in messages)))

    async def refusal(self, topic: bytes, body: bytes) -> str:
        """Publish one at QoS 1; what it was refused with, or nothing. Raises Lost."""
        try:
            await self.publish(topic, [body])
        except Refused as error:
            return _text(error.replies[0])
        return ""

    async def subscribe(self, topic: bytes, qos: int = 1) -> int:
        """The subscription id. Raises Lost or Refused."""
        (reply,) = await self.exchange(encoder.subscribe(next(self._ids), topic, qos))
        if reply.type != ACK:
            raise Refused(f"SUBSCRIBE was answered by {_text(reply)}", [reply])
        return int(U64.unpack(reply.payload)[0])

    async def poll(self, subscription: int, polls: int) -> list[Delivery]:
        """Up to `polls` messages. Raises Lost or Refused."""
        requests = (encoder.poll(next(self._ids), subscription) for _ in range(polls))
        return [_delivery(frame) for frame in await self.exchange(*requests)]

    async def accept(self, subscription: int, tags: list[int]) -> None:
        """Returns when the broker has taken note. Raises Lost or Refused."""
        _none(await self.exchange(*(encoder.ack(tag, subscription) for tag in tags)))


def _none(replies: list[Frame]) -> None:
    if replies:
        raise Refused(f"answered by {_text(replies[0])}", replies)


def _text(frame: Frame) -> str:
    if frame.type != NACK:
        return str(frame)
    return f"NACK {U16.unpack_from(frame.payload)[0]} {frame.payload[4:].decode()}"


def _delivery(frame: Frame) -> Delivery:
    if frame.type != PUBLISH:
        raise Refused(f"a POLL was answered by {_text(frame)}", [frame])
    (length,) = U16.unpack_from(frame.payload, 1)
    return Delivery(frame.correlation_id, frame.payload[3 + length :], frame.payload[0])
