"""The simulated network does what networks do."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.simulation.network import KEEPALIVE_SECONDS, End, Line, Link, Network


async def connected(link: Link) -> tuple[Network, Line, End, End]:
    """The network, a connection, and its ends: the client's and the daemon's."""
    network = Network(link, 1, lambda line: lambda data: None)
    await network.listen("", 1)
    assert network.listener is not None
    client = await network.connect("c")
    server = await network.listener.accept()
    return network, network.lines[0], client, server


async def everything(end: End) -> bytes:
    data = b""
    while part := await end.receive_some():
        data += part
    return data


async def test_bytes_arrive_in_order_however_they_are_cut_and_late(
    autojump_clock: MockClock,
) -> None:
    _, _, client, server = await connected(Link(delay=0.1, piece=3, window=7))
    sent = bytes(range(100))
    async with trio.open_nursery() as nursery:

        async def send() -> None:
            await client.send_all(sent)
            await client.send_eof()

        nursery.start_soon(send)
        assert await everything(server) == sent
    assert trio.current_time() > 0.1


async def test_a_reset_reaches_both_ends(autojump_clock: MockClock) -> None:
    _, line, client, server = await connected(Link())
    await client.send_all(b"on its way")
    line.reset()
    for end in (client, server):
        with pytest.raises(trio.BrokenResourceError):
            await end.receive_some()
        with pytest.raises(trio.BrokenResourceError):
            await end.send_all(b"x")


async def test_of_a_half_open_connection_nobody_hears_for_a_while(
    autojump_clock: MockClock,
) -> None:
    network, line, client, server = await connected(Link())
    line.lose()
    await client.send_all(b"into the void")
    with trio.move_on_after(KEEPALIVE_SECONDS - 1) as silence:
        await server.receive_some()
    network.keepalive()
    assert silence.cancelled_caught
    await trio.sleep(1)
    network.keepalive()
    with pytest.raises(trio.BrokenResourceError):
        await server.receive_some()


async def test_a_partition_heals(autojump_clock: MockClock) -> None:
    network, _, client, server = await connected(Link())
    network.partition(["c"], 5.0)
    await client.send_all(b"late")
    assert await server.receive_some() == b"late"
    assert trio.current_time() == 5.0


async def test_who_does_not_read_holds_up_who_sends(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    _, line, client, server = await connected(Link(window=10))
    line.stall(5.0, up=False)
    sent = trio.Event()

    async def send() -> None:
        await server.send_all(bytes(11))
        sent.set()

    nursery.start_soon(send)
    nursery.start_soon(everything, client)
    await wait_all_tasks_blocked()
    assert not sent.is_set()
    await sent.wait()
    assert trio.current_time() == 5.0


async def test_what_a_killed_daemon_has_sent_arrives_and_nothing_else(
    autojump_clock: MockClock,
) -> None:
    network, _, client, server = await connected(Link())
    await server.send_all(b"last words")
    network.killed(power=False)
    with pytest.raises(trio.ClosedResourceError):
        await server.send_all(b"too late")
    assert await everything(client) == b"last words"
    with pytest.raises(ConnectionRefusedError):
        await network.connect("c")
