from __future__ import annotations

import pytest
import trio
from trio.testing import memory_stream_pair, wait_all_tasks_blocked

from blipmq.client.line import Line


def sockets() -> tuple[trio.SocketStream, trio.SocketStream]:
    ours, theirs = trio.socket.socketpair()
    return trio.SocketStream(ours), trio.SocketStream(theirs)


async def received(stream: trio.abc.Stream, size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += await stream.receive_some()
    return data


async def test_what_a_socket_takes_is_sent_without_waiting() -> None:
    ours, theirs = sockets()
    async with ours, theirs:
        assert Line(ours).send_now(b"hello") == 5
        assert await theirs.receive_some() == b"hello"


async def test_a_full_socket_takes_nothing_more() -> None:
    ours, theirs = sockets()
    async with ours, theirs:
        line, sent = Line(ours), 0
        while taken := line.send_now(bytes(1 << 20)):
            sent += taken
        assert len(await received(theirs, sent)) == sent


async def test_send_waits_until_everything_is_sent(nursery: trio.Nursery) -> None:
    ours, theirs = sockets()
    data = bytes(range(256)) * (1 << 14)
    async with ours, theirs:
        nursery.start_soon(Line(ours).send, data)
        await wait_all_tasks_blocked()
        assert await received(theirs, len(data)) == data


async def test_receive_waits_for_bytes_and_for_the_end() -> None:
    ours, theirs = sockets()
    async with ours, theirs:
        line = Line(ours)
        with trio.move_on_after(0) as scope:
            await line.receive()
        assert scope.cancelled_caught
        await theirs.send_all(b"hello")
        assert await line.receive() == b"hello"
        await theirs.aclose()
        assert await line.receive() == b""


async def test_a_broken_socket_is_a_broken_resource() -> None:
    ours, theirs = sockets()
    async with ours, theirs:
        line = Line(ours)
        await line.send(b"unread")
        await theirs.aclose()
        with pytest.raises(trio.BrokenResourceError):
            await line.receive()
        assert line.send_now(b"hello") == 0
        with pytest.raises(trio.BrokenResourceError):
            await line.send(b"hello")


async def test_a_closed_socket_takes_nothing() -> None:
    ours, theirs = sockets()
    async with ours, theirs:
        line = Line(ours)
        await ours.aclose()
        assert line.send_now(b"hello") == 0


async def test_other_streams_are_used_as_they_are() -> None:
    ours, theirs = memory_stream_pair()
    line = Line(ours)
    assert line.send_now(b"hello") == 0
    await line.send(b"hello")
    assert await theirs.receive_some() == b"hello"
    await theirs.send_all(b"hello yourself")
    assert await line.receive() == b"hello yourself"
