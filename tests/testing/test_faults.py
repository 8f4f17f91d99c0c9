from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair, wait_all_tasks_blocked

from blipmq.testing import FaultyStream


def faulty() -> tuple[FaultyStream, trio.abc.Stream]:
    ours, theirs = memory_stream_pair()
    return FaultyStream(ours), theirs


async def test_without_faults_it_passes_everything_on() -> None:
    stream, other = faulty()
    await stream.send_all(b"hello")
    assert await other.receive_some() == b"hello"
    await other.send_all(b"and back")
    assert await stream.receive_some() == b"and back"
    await other.aclose()
    assert await stream.receive_some() == b""


async def test_it_can_cut_everything_into_parts() -> None:
    stream, other = faulty()
    stream.part_bytes = 2
    await other.send_all(b"hello")
    assert [await stream.receive_some() for _ in range(3)] == [b"he", b"ll", b"o"]
    await stream.send_all(b"hello")
    assert await other.receive_some() == b"hello"


async def test_it_can_be_late(autojump_clock: MockClock) -> None:
    stream, other = faulty()
    stream.delay = 3
    begin = trio.current_time()
    await stream.send_all(b"hello")
    await other.receive_some()
    assert trio.current_time() - begin == 3


async def test_it_breaks_after_so_many_bytes_sent() -> None:
    stream, other = faulty()
    stream.cut_sent = 7
    await stream.send_all(b"hello")
    with pytest.raises(trio.BrokenResourceError):
        await stream.send_all(b"hello")
    assert await other.receive_some() == b"hellohe"
    assert await other.receive_some() == b""
    with pytest.raises(trio.BrokenResourceError):
        await stream.receive_some()


async def test_it_breaks_after_so_many_bytes_received() -> None:
    stream, other = faulty()
    stream.cut_received = 3
    await other.send_all(b"hello")
    assert await stream.receive_some() == b"hel"
    with pytest.raises(trio.BrokenResourceError):
        await stream.receive_some()
    assert stream.broken


async def test_a_reset_ends_who_waits(nursery: trio.Nursery) -> None:
    stream, other = faulty()
    broken = trio.Event()

    async def receive() -> None:
        with pytest.raises(trio.BrokenResourceError):
            await stream.receive_some()
        broken.set()

    nursery.start_soon(receive)
    await wait_all_tasks_blocked()
    await stream.reset()
    await broken.wait()
    assert await other.receive_some() == b""


async def test_while_it_is_silent_nothing_arrives(autojump_clock: MockClock) -> None:
    stream, other = faulty()
    stream.silent = True
    await stream.send_all(b"lost")
    await other.send_all(b"lost too")
    with trio.move_on_after(100) as scope:
        await stream.receive_some()
    assert scope.cancelled_caught
    stream.silent = False
    await stream.send_all(b"hello")
    assert await other.receive_some() == b"hello"
