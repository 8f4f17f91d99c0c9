"""The other end of a connection to a daemon: sends bytes as they are, and reads frames."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import trio

from blipmq.protocol import encoder
from blipmq.protocol.frames import (
    ACK,
    HEADER,
    HEADER_BYTES,
    LENGTH_BYTES,
    NACK,
    PONG,
    PUBLISH,
    TOPIC_AT,
    TYPE_AT,
    U16,
    U64,
    Frame,
)

KEY = "dev-key-1"
PATIENCE_SECONDS = 30.0
"""How long a test waits for what must come: only ever reached when it fails."""
NO_SUBSCRIPTION = 2**64 - 1
_BARRIER = 2**63
"""Correlation ids from here on are those of a peer's own PINGs."""


def nack(frame: Frame) -> tuple[int, str]:
    """Code and message of a NACK."""
    assert frame.type == NACK, frame
    code, length = U16.unpack_from(frame.payload)[0], U16.unpack_from(frame.payload, 2)[0]
    assert len(frame.payload) == 4 + length
    return code, frame.payload[4:].decode()


def body(frame: Frame) -> bytes:
    """The body of a delivery."""
    assert frame.type == PUBLISH, frame
    (length,) = U16.unpack_from(frame.payload, 1)
    return frame.payload[TOPIC_AT - HEADER_BYTES + length :]


def bodies(frames: list[Frame]) -> list[bytes]:
    """The bodies of the deliveries among the frames."""
    return [body(frame) for frame in frames if frame.type == PUBLISH]


@attrs.define(eq=False)
class Peer:
    """A client that does what it is told and nothing else."""

    stream: trio.abc.Stream
    _received: bytearray = attrs.Factory(bytearray)
    _barriers: int = 0

    async def send(self, *frames: bytes) -> None:
        """In one write."""
        with trio.fail_after(PATIENCE_SECONDS):
            await self.stream.send_all(b"".join(frames))

    async def receive(self) -> Frame | None:
        """The next frame; None when the daemon has sent its last.

        Raises trio.BrokenResourceError when the connection was cut off.
        """
        with trio.fail_after(PATIENCE_SECONDS):
            while (frame := self._take()) is None:
                data = await self.stream.receive_some(1 << 16)
                if not data:
                    assert not self._received, "the last frame is incomplete"
                    return None
                self._received += data
            return frame

    def _take(self) -> Frame | None:
        data = self._received
        if len(data) < HEADER_BYTES:
            return None
        length, type_, correlation_id = HEADER.unpack_from(data)
        end = LENGTH_BYTES + length
        if len(data) < end:
            return None
        assert type_ == data[TYPE_AT]
        frame = Frame(type_, correlation_id, bytes(data[HEADER_BYTES:end]))
        del data[:end]
        return frame

    async def send_eof(self) -> None:
        """Send no more, on a stream that can end in one direction."""
        assert isinstance(self.stream, trio.abc.HalfCloseableStream)
        await self.stream.send_eof()

    async def rest(self) -> list[Frame]:
        """Every frame up to the end of the stream."""
        frames: list[Frame] = []
        while (frame := await self.receive()) is not None:
            frames.append(frame)
        return frames

    async def ask(self, *frames: bytes) -> list[Frame]:
        """Send the frames and a PING in one write; all that is answered before the PONG."""
        self._barriers += 1
        barrier = _BARRIER + self._barriers
        await self.send(*frames, encoder.ping(barrier))
        answers: list[Frame] = []
        while (frame := await self.receive()) != Frame(PONG, barrier, b""):
            assert frame is not None, f"the connection ended after {answers}"
            answers.append(frame)
        return answers

    async def greet(self, key: str = KEY) -> None:
        """HELLO and AUTH."""
        answers = await self.ask(encoder.hello(1, 1), encoder.auth(2, key.encode()))
        assert answers == [Frame(ACK, 1, bytes(8)), Frame(ACK, 2, bytes(8))]

    async def subscribe(self, topic: str, qos: int = 1) -> int:
        """The id of a new subscription."""
        (answer,) = await self.ask(encoder.subscribe(3, topic.encode(), qos))
        assert (answer.type, answer.correlation_id) == (ACK, 3)
        return int(U64.unpack(answer.payload)[0])

    async def publish(self, topic: str, *payloads: bytes, qos: int = 1) -> list[Frame]:
        """Publish, and wait until QoS 1 is committed or refused; the NACKs."""
        publishes = [
            encoder.publish(number, qos, topic.encode(), payload)
            for number, payload in enumerate(payloads, 1)
        ]
        return await self.ask(*publishes, encoder.poll(0, NO_SUBSCRIPTION))

    async def poll(self, subscription: int, count: int = 1) -> list[Frame]:
        """The answers to so many POLLs."""
        return await self.ask(*[encoder.poll(4, subscription)] * count)

    async def settle(self, subscription: int, *deliveries: Frame) -> list[Frame]:
        """ACK deliveries; the NACKs."""
        acks = [encoder.ack(frame.correlation_id, subscription) for frame in deliveries]
        return await self.ask(*acks)

    async def aclose(self) -> None:
        await self.stream.aclose()


@asynccontextmanager
async def connected(address: tuple[str, int]) -> AsyncIterator[Peer]:
    """A peer on a TCP connection."""
    with trio.fail_after(PATIENCE_SECONDS):
        stream = await trio.open_tcp_stream(*address)
    try:
        yield Peer(stream)
    finally:
        await trio.aclose_forcefully(stream)
