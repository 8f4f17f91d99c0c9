"""Clients that mean harm, or are broken: the others are served, and memory stays bounded."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
import trio

from blipmq.protocol import encoder
from blipmq.protocol.frames import LENGTH_MAX, U32
from tests.daemon.process import Process, Processes
from tests.peer import Peer, bodies

MB = 1_000_000


@asynccontextmanager
async def served(daemon: Process) -> AsyncIterator[Peer]:
    """A client that publishes and polls before the block, and can still do so at its end."""
    async with daemon.client() as peer:
        subscription = await peer.subscribe("served")
        for payload in (b"before", b"after"):
            assert await peer.publish("served", payload) == []
            deliveries = await peer.poll(subscription)
            assert bodies(deliveries) == [payload]
            assert await peer.settle(subscription, *deliveries) == []
            if payload == b"before":
                yield peer


async def memory(daemon: Process) -> float:
    """Bytes that the process has in memory."""
    return await daemon.metric("process_resident_memory_bytes")


@pytest.mark.parametrize("seed", range(3))
async def test_random_bytes(processes: Processes, seed: int) -> None:
    generator = random.Random(seed)  # noqa: S311, repeatable on purpose
    daemon = await processes.start(BLIPMQ_SHUTDOWN_LINGER_TIMEOUT_MS=100)
    async with served(daemon):
        for authenticated in [True, False] * 20:
            async with daemon.client() if authenticated else daemon.peer() as peer:
                noise = generator.randbytes(generator.randrange(1, 5_000))
                frames = [encoder.frame(generator.randrange(12), 1, noise), noise]
                await peer.send(*frames[generator.randrange(2) :])
                await peer.send_eof()
                while await peer.stream.receive_some():
                    pass
    assert await daemon.metric("blipmq_framing_errors_total") > 0
    assert await daemon.terminate() == 0


async def test_huge_frames_that_are_announced_and_never_sent(processes: Processes) -> None:
    daemon = await processes.start()
    async with AsyncExitStack() as stack, served(daemon):
        before = await memory(daemon)
        for _ in range(100):
            peer = await stack.enter_async_context(daemon.client())
            await peer.send(U32.pack(LENGTH_MAX), b"\x03")
        assert await memory(daemon) - before < 20 * MB
        assert await daemon.metric("blipmq_connections") == 101


async def test_replies_before_a_bad_frame_arrive_though_the_client_goes_on_sending(
    processes: Processes,
) -> None:
    daemon = await processes.start()
    async with daemon.client() as peer:
        await peer.send(encoder.ping(1), encoder.ping(2), bytes(4), bytes(3 * MB))
        assert [frame.correlation_id for frame in await peer.rest()] == [1, 2]


async def test_a_flood_of_connections(processes: Processes) -> None:
    daemon = await processes.start(BLIPMQ_LIMITS_MAX_CONNECTIONS=20)
    async with AsyncExitStack() as stack, served(daemon):
        for _ in range(100):
            await stack.enter_async_context(daemon.peer())
        while await daemon.metric("blipmq_connections_refused_total", reason="limit") < 81:
            pass
        assert await daemon.metric("blipmq_connections") == 20
    assert 1 <= sum(line["event"] == "too many connections" for line in daemon.lines) <= 20


async def test_a_client_that_never_reads(processes: Processes) -> None:
    daemon = await processes.start(BLIPMQ_SHUTDOWN_LINGER_TIMEOUT_MS=100)
    async with daemon.client() as silent, served(daemon):
        before = await memory(daemon)
        pings = b"".join(encoder.ping(number) for number in range(5_000))
        sent = 0
        while sent < 200 * MB:
            with trio.move_on_after(0.5) as waiting:
                await silent.stream.send_all(pings)
            if waiting.cancelled_caught:
                break
            sent += len(pings)
        assert sent < 200 * MB, "it was never held up"
        assert await memory(daemon) - before < 20 * MB
    assert await daemon.terminate() == 0
