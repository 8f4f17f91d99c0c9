"""What a connection holds, and does, while nothing comes on it."""

from __future__ import annotations

import gc
from weakref import ref

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from blipmq.broker.limits import Limits
from blipmq.protocol import encoder
from tests.nursery.daemon import serving
from tests.nursery.wakings import wakings

MIB = 1024 * 1024


def tasks() -> int:
    return trio.lowlevel.current_statistics().tasks_living


async def test_an_idle_connection_is_one_task(autojump_clock: MockClock) -> None:
    async with serving() as daemon:
        await wait_all_tasks_blocked()
        before = tasks()
        peers = [await daemon.client() for _ in range(5)]
        await wait_all_tasks_blocked()
        assert tasks() == before + 5
        assert await peers[0].ask() == []


async def test_who_does_not_read_costs_a_task_more_until_it_does(
    autojump_clock: MockClock,
) -> None:
    async with serving() as daemon:
        peer = daemon.connect(bounded=True)
        await wait_all_tasks_blocked()
        before = tasks()
        await peer.send(encoder.hello(1, 1))
        await wait_all_tasks_blocked()
        assert tasks() == before + 1
        await peer.receive()
        await wait_all_tasks_blocked()
        assert tasks() == before


async def test_a_connection_that_was_busy_holds_no_memory(autojump_clock: MockClock) -> None:
    async with serving() as daemon:
        peer = await daemon.client()
        await peer.send(encoder.publish(1, 0, b"nobody", bytes(4 * MIB)))
        await wait_all_tasks_blocked()
        assert daemon.stats.memory_bytes == 0


async def test_an_unfinished_frame_is_counted_while_its_client_is_idle(
    autojump_clock: MockClock,
) -> None:
    async with serving() as daemon:
        peer = await daemon.client()
        await peer.send(encoder.publish(1, 0, b"nobody", bytes(4 * MIB))[:-1])
        await wait_all_tasks_blocked()
        assert daemon.stats.memory_bytes > 4 * MIB
        await peer.aclose()
        await wait_all_tasks_blocked()
        assert daemon.stats.memory_bytes == 0


async def test_idle_connections_do_not_wake_the_daemon(autojump_clock: MockClock) -> None:
    async with serving(limits=Limits(heartbeat_ms=0)) as daemon:
        for _ in range(5):
            await daemon.client()
        await wait_all_tasks_blocked()
        with wakings() as woken:
            await trio.sleep(86_400)
        assert woken.times == []


async def test_a_closed_connection_does_not_wait_for_the_garbage_collector(
    autojump_clock: MockClock,
) -> None:
    async with serving() as daemon:
        peer = await daemon.client()
        (connection,) = map(ref, daemon.state.connections)
        gc.disable()
        try:
            await peer.aclose()
            await wait_all_tasks_blocked()
            assert connection() is None
        finally:
            gc.enable()
