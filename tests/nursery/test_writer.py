"""What is sent when, and by whom: at once from the step that it comes of, or by a task.

Over TCP on the loopback interface, and on the real clock: how much the kernel takes is the point.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Protocol

import attrs
import trio
from trio.testing import wait_all_tasks_blocked

from blipmq.protocol import encoder
from blipmq.protocol.attach_properties import AttachProperties, encode_attach_properties
from blipmq.protocol.frames import ACK, DELIVER, HEADER_BYTES, INFO, PONG, U64, Frame
from tests.nursery.daemon import Daemon, serving
from tests.peer import KEY, PATIENCE_SECONDS, Peer, body

BODY_BYTES = 8 * 1024
SMALL_BUFFER = 16 * 1024


class Connect(Protocol):
    """Connects a peer and authenticates it; the kernel takes about `buffer` bytes at once."""

    async def __call__(self, *, buffer: int | None = None, version: int = 1) -> Peer: ...


@asynccontextmanager
async def daemon_on_tcp() -> AsyncIterator[tuple[Daemon, Connect]]:
    """A daemon without a log, and a way to connect to it."""
    async with AsyncExitStack() as streams, serving(wal_path="") as daemon:

        async def connect(*, buffer: int | None = None, version: int = 1) -> Peer:
            stream = await daemon.network.connect_tcp(send_buffer=buffer)
            peer = Peer(await streams.enter_async_context(stream))
            answers = await peer.ask(encoder.hello(1, version), encoder.auth(2, KEY.encode()))
            assert [answer.type for answer in answers if answer.type != INFO] == [ACK, ACK]
            return peer

        yield daemon, connect


async def attach(peer: Peer, topic: bytes, qos: int = 0) -> None:
    properties = encode_attach_properties(AttachProperties(prefetch=10_000))
    (answer,) = await peer.ask(encoder.attach(3, topic, qos, properties))
    assert answer.type == ACK


async def delivered(peer: Peer, count: int) -> list[bytes]:
    """The bodies of the next `count` messages that are pushed."""
    got: list[bytes] = []
    while len(got) < count:
        frame = await peer.receive()
        assert frame is not None
        assert frame.type == DELIVER
        got += [body(inner) for inner in inner_frames(frame.payload)]
    return got


def inner_frames(payload: bytes) -> list[Frame]:
    frames = []
    while payload:
        size = int.from_bytes(payload[:4])
        inner, payload = payload[: 4 + size], payload[4 + size :]
        (correlation_id,) = U64.unpack_from(inner, 5)
        frames.append(Frame(inner[4], correlation_id, inner[HEADER_BYTES:]))
    return frames


@attrs.define(eq=False)
class Steps(trio.abc.Instrument):
    """The names of the tasks that ran."""

    names: list[str] = attrs.Factory(list)

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.names.append(task.name.rpartition(".")[2])


async def test_what_the_kernel_takes_needs_no_other_task() -> None:
    async with daemon_on_tcp() as (_daemon, client):
        subscriber, publisher = [await client(version=2) for _ in range(2)]
        await attach(subscriber, b"demo")
        await wait_all_tasks_blocked()
        steps = Steps()
        trio.lowlevel.add_instrument(steps)
        await publisher.send(encoder.publish(1, 0, b"demo", b"a"))
        got = await delivered(subscriber, 1)
        trio.lowlevel.remove_instrument(steps)
        assert got == [b"a"]
        assert "_send" not in steps.names


async def test_requests_that_come_together_are_answered_with_one_segment() -> None:
    async with daemon_on_tcp() as (_daemon, client):
        peer = await client()
        pings = [encoder.ping(number) for number in range(100)]
        await peer.send(*pings)
        data = await peer.stream.receive_some(1 << 16)
        assert data == b"".join(encoder.pong(number) for number in range(100))


async def test_what_the_kernel_does_not_take_follows_in_order() -> None:
    async with daemon_on_tcp() as (_daemon, client):
        subscriber = await client(buffer=SMALL_BUFFER, version=2)
        publisher = await client()
        await attach(subscriber, b"demo")
        messages = [b"%6d" % number + bytes(BODY_BYTES) for number in range(200)]
        for message in messages:
            assert await publisher.publish("demo", message, qos=0) == []
        assert await delivered(subscriber, len(messages)) == messages


async def test_replies_and_deliveries_keep_their_order_when_the_client_reads_late() -> None:
    async with daemon_on_tcp() as (_daemon, client):
        peer = await client(buffer=SMALL_BUFFER, version=2)
        await attach(peer, b"demo")
        for number in range(100):
            publish = encoder.publish(number, 0, b"demo", b"%d" % number + bytes(BODY_BYTES))
            await peer.send(publish, encoder.ping(number))
        pongs: list[int] = []
        bodies = 0
        while len(pongs) < 100:
            frame = await peer.receive()
            assert frame is not None
            if frame.type == PONG:
                pongs.append(frame.correlation_id)
            else:
                for inner in inner_frames(frame.payload):
                    assert body(inner).startswith(b"%d\0" % bodies)
                    bodies += 1
        assert pongs == list(range(100))
        assert bodies + len(await delivered(peer, 100 - bodies)) == 100


async def test_memory_is_given_back_when_what_was_sent_in_parts_is_sent() -> None:
    async with daemon_on_tcp() as (daemon, client):
        subscriber = await client(buffer=SMALL_BUFFER, version=2)
        publisher = await client()
        await attach(subscriber, b"demo")
        before = daemon.stats.memory_bytes
        for _ in range(200):
            await publisher.publish("demo", bytes(BODY_BYTES), qos=0)
        assert daemon.stats.memory_bytes > before + 10 * BODY_BYTES
        await delivered(subscriber, 200)
        await subscriber.ask()
        assert daemon.stats.memory_bytes < before + BODY_BYTES


async def test_a_connection_that_ends_with_a_part_unsent_gives_its_memory_back() -> None:
    async with daemon_on_tcp() as (daemon, client):
        before = daemon.stats.memory_bytes
        subscriber = await client(buffer=SMALL_BUFFER, version=2)
        publisher = await client()
        await attach(subscriber, b"demo")
        for _ in range(200):
            await publisher.publish("demo", bytes(BODY_BYTES), qos=0)
        await trio.aclose_forcefully(subscriber.stream)
        await publisher.send_eof()
        assert await publisher.rest() == []
        with trio.fail_after(PATIENCE_SECONDS):
            while daemon.stats.connections:
                await wait_all_tasks_blocked()
        assert daemon.stats.memory_bytes == before


async def test_a_subscriber_that_is_gone_is_no_matter_to_the_publisher() -> None:
    async with daemon_on_tcp() as (_daemon, client):
        gone, subscriber, publisher = [await client(version=2) for _ in range(3)]
        await attach(gone, b"demo")
        await attach(subscriber, b"demo")
        linger = trio.SocketStream.setsockopt
        assert isinstance(gone.stream, trio.SocketStream)
        linger(gone.stream, socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        await trio.aclose_forcefully(gone.stream)  # the daemon has not seen the reset yet
        messages = [b"%d" % number for number in range(50)]
        for message in messages:
            assert await publisher.publish("demo", message, qos=0) == []
        assert await delivered(subscriber, 50) == messages


async def test_all_subscribers_of_a_large_fan_out_get_all_messages() -> None:
    async with daemon_on_tcp() as (_daemon, client):
        subscribers = [await client(version=2) for _ in range(40)]
        for subscriber in subscribers:
            await attach(subscriber, b"demo")
        publisher = await client()
        messages = [b"%d" % number for number in range(20)]
        for message in messages:
            await publisher.send(encoder.publish(1, 0, b"demo", message))
        for subscriber in subscribers:
            assert await delivered(subscriber, 20) == messages
