"""One connection from accept to close, whatever becomes of its bytes."""

from __future__ import annotations

import errno

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from blipmq.config import ShutdownSettings
from blipmq.protocol import encoder
from blipmq.protocol.frames import PONG, Frame
from tests.nursery.daemon import Daemon, serving
from tests.nursery.network import MemoryPeer
from tests.peer import KEY, NO_SUBSCRIPTION, bodies, nack

PUBLISH = encoder.publish(9, 1, b"demo", b"a")


async def test_bytes_that_come_one_by_one_are_answered_alike(autojump_clock: MockClock) -> None:
    async with serving() as daemon:
        peer = await daemon.client(cut=1)
        subscription = await peer.subscribe("demo")
        assert await peer.publish("demo", b"a", b"b") == []
        deliveries = await peer.poll(subscription, 3)
        assert bodies(deliveries) == [b"a", b"b"]
        assert await peer.settle(subscription, *deliveries) == []


async def test_who_closes_its_sending_side_gets_its_replies(autojump_clock: MockClock) -> None:
    async with serving() as daemon:
        peer = await daemon.client()
        subscription = await peer.subscribe("demo")
        await peer.send(PUBLISH, encoder.poll(1, subscription), encoder.ping(2))
        await peer.send_eof()
        delivery, pong = await peer.rest()
        assert bodies([delivery]) == [b"a"]
        assert pong == Frame(PONG, 2, b"")
        assert trio.current_time() == 0


async def test_who_closes_its_sending_side_learns_that_its_publish_failed(
    autojump_clock: MockClock,
) -> None:
    async with serving() as daemon:
        peer = await daemon.client()
        await refuse_slowly(daemon)
        await peer.send(PUBLISH)
        await peer.send_eof()
        await assert_refused(daemon, peer)


async def test_who_sends_a_bad_frame_learns_that_the_publish_before_it_failed(
    autojump_clock: MockClock,
) -> None:
    async with serving() as daemon:
        peer = await daemon.client()
        await refuse_slowly(daemon)
        await peer.send(PUBLISH, bytes(4))
        await assert_refused(daemon, peer)


async def refuse_slowly(daemon: Daemon) -> None:
    """Let the next commits take long, and fail in the end."""
    daemon.runner.seconds = 10
    daemon.disk.break_down("append", errno.ENOSPC)
    await wait_all_tasks_blocked()


async def assert_refused(daemon: Daemon, peer: MemoryPeer) -> None:
    (answer,) = await peer.rest()
    assert answer.correlation_id == 9
    assert nack(answer) == (500, "durable publish failed: No space left on device")
    assert trio.current_time() == 10


async def test_who_goes_on_sending_after_a_bad_frame_is_listened_to_for_a_while(
    autojump_clock: MockClock,
) -> None:
    async with serving(shutdown=ShutdownSettings(linger_timeout_ms=1_000)) as daemon:
        peer = await daemon.client()
        await peer.send(bytes(4))
        assert await peer.rest() == []
        await trio.sleep(0.9)
        # If it were closed, the reset for these bytes could overtake the last replies.
        received = peer.server.received
        await peer.send(encoder.ping(1))
        await wait_all_tasks_blocked()
        assert peer.server.received == received + len(encoder.ping(1))
        await trio.sleep(0.2)
        assert daemon.stats.connections == 0


async def test_a_poll_and_what_follows_waits_for_the_commit_of_what_was_published(
    autojump_clock: MockClock,
) -> None:
    async with serving() as daemon:
        peer, other = await daemon.client(), await daemon.client()
        subscription = await peer.subscribe("demo")
        daemon.runner.seconds = 10
        await peer.send(PUBLISH, encoder.ping(1), encoder.poll(2, subscription), encoder.ping(3))
        assert await peer.receive() == Frame(PONG, 1, b"")
        assert await other.ask(encoder.poll(1, NO_SUBSCRIPTION)) == []
        assert trio.current_time() == 0
        delivery = await peer.receive()
        assert trio.current_time() == 10
        assert delivery is not None
        assert bodies([delivery]) == [b"a"]
        assert await peer.receive() == Frame(PONG, 3, b"")


async def test_what_a_lost_connection_held_comes_back_at_once(autojump_clock: MockClock) -> None:
    async with serving(retry_backoff_ms=60_000) as daemon:
        lost = await daemon.client()
        subscription = await lost.subscribe("demo")
        await lost.publish("demo", b"a")
        assert bodies(await lost.poll(subscription)) == [b"a"]
        other = await daemon.client()
        assert await other.poll(subscription) == []
        await lost.reset()
        await wait_all_tasks_blocked()
        assert bodies(await other.poll(subscription)) == [b"a"]
        assert trio.current_time() == 0


async def test_what_was_published_on_a_connection_that_is_lost_is_committed(
    autojump_clock: MockClock,
) -> None:
    async with serving() as daemon:
        other = await daemon.client()
        subscription = await other.subscribe("demo")
        lost = await daemon.client()
        daemon.runner.seconds = 10
        await lost.send(PUBLISH)
        await wait_all_tasks_blocked()
        await lost.reset()
        await wait_all_tasks_blocked()
        assert daemon.stats.connections == 1
        await trio.sleep(10)
        assert bodies(await other.poll(subscription)) == [b"a"]


@pytest.mark.parametrize("ending", ["close", "reset"])
async def test_a_connection_dropped_at_any_byte_leaves_the_daemon_serving_others(
    autojump_clock: MockClock, ending: str
) -> None:
    async with serving() as daemon:
        other = await daemon.client()
        subscription = await other.subscribe("demo")
        session = b"".join(
            (
                encoder.hello(1, 1),
                encoder.auth(2, KEY.encode()),
                encoder.subscribe(3, b"own", 1),
                encoder.publish(4, 0, b"demo", b"0"),
                encoder.publish(5, 1, b"demo", b"1"),
                encoder.poll(6, subscription),
                encoder.ack(1, subscription),
                encoder.ping(7),
            )
        )
        for cut in range(len(session) + 1):
            peer = daemon.connect()
            await peer.send(session[:cut])
            if cut % 2:
                await wait_all_tasks_blocked()
            await (peer.reset() if ending == "reset" else peer.aclose())
            assert await other.ask() == []
        await wait_all_tasks_blocked()
        assert daemon.stats.connections == 1
        assert daemon.stats.framing_errors == 0
        assert await other.publish("demo", b"last") == []
        assert bodies(await other.poll(subscription, 1_000))[-1] == b"last"
