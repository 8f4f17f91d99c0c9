"""How a daemon ends: in which order, what it still does meanwhile, and what it leaves behind."""

from __future__ import annotations

import errno
from unittest import mock

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from blipmq.broker.broker import Broker
from blipmq.broker.session import Session
from blipmq.config import ShutdownSettings
from blipmq.errors import LogError
from blipmq.protocol import encoder
from blipmq.protocol.frames import PONG, Frame
from blipmq.wal.policy import FsyncPolicy
from tests.nursery.daemon import Daemon, serving
from tests.nursery.network import MemoryPeer
from tests.nursery.timed_disk import TimedDisk
from tests.peer import bodies, nack

DRAIN = ShutdownSettings(drain_timeout_ms=2_000, linger_timeout_ms=1_000)


async def holding(daemon: Daemon, *payloads: bytes) -> tuple[MemoryPeer, int, list[Frame]]:
    """A client that published these and holds them unsettled: it, its subscription, they."""
    peer = await daemon.client()
    subscription = await peer.subscribe("demo")
    assert await peer.publish("demo", *payloads) == []
    return peer, subscription, await peer.poll(subscription, len(payloads))


async def backlog(disk: TimedDisk) -> list[bytes]:
    """What a daemon that is started on this disk has for the subscription to `demo`."""
    async with serving(disk=disk) as daemon:
        peer = await daemon.client()
        return bodies(await peer.poll(await peer.subscribe("demo"), 10))


def assert_closed(disk: TimedDisk) -> None:
    """The log is synced and given back."""
    assert disk.unsynced == set()
    assert disk.open_files == 0
    assert not disk.locked


async def test_idle_it_ends_at_once_with_the_log_closed(autojump_clock: MockClock) -> None:
    async with serving(retry_backoff_ms=60_000) as daemon:
        daemon.signal()
        await daemon.end()
        assert trio.current_time() == 0
        assert daemon.events() == ["ready", "draining", "stopped"]
    assert_closed(daemon.disk)


async def test_it_turns_unready_and_takes_no_more_connections(autojump_clock: MockClock) -> None:
    async with serving(retry_backoff_ms=60_000, shutdown=DRAIN) as daemon:
        await holding(daemon, b"a")
        assert daemon.metrics.readiness() is None
        daemon.signal()
        await wait_all_tasks_blocked()
        assert daemon.metrics.readiness() == "draining"
        with pytest.raises(ConnectionRefusedError):
            daemon.connect()


@pytest.mark.parametrize("qos", [0, 1])
async def test_while_it_drains_publishes_are_refused(autojump_clock: MockClock, qos: int) -> None:
    async with serving(retry_backoff_ms=60_000) as daemon:
        peer, _, _ = await holding(daemon, b"a")
        daemon.signal()
        await wait_all_tasks_blocked()
        answers = await peer.publish("demo", b"b", b"c", qos=qos)
        assert [answer.correlation_id for answer in answers] == [1, 2]
        assert [nack(answer) for answer in answers] == [(503, "draining")] * 2


async def test_it_waits_until_the_last_delivery_is_settled(autojump_clock: MockClock) -> None:
    async with serving(retry_backoff_ms=60_000, shutdown=DRAIN) as daemon:
        peer, subscription, (first, second) = await holding(daemon, b"a", b"b")
        daemon.signal()
        await trio.sleep(1)
        assert await peer.settle(subscription, first) == []
        await trio.sleep(0.5)
        assert not daemon.ended.is_set()
        await peer.send(encoder.ack(second.correlation_id, subscription))
        assert await peer.rest() == []
        await peer.aclose()
        await daemon.end()
        assert trio.current_time() == 1.5
    assert await backlog(daemon.disk) == []


async def test_it_waits_no_longer_than_its_drain_timeout(autojump_clock: MockClock) -> None:
    async with serving(retry_backoff_ms=60_000, shutdown=DRAIN) as daemon:
        peer, _, _ = await holding(daemon, b"a")
        daemon.signal()
        assert await peer.rest() == []
        assert trio.current_time() == 2
        await peer.aclose()
        await daemon.end()
        assert trio.current_time() == 2
    assert await backlog(daemon.disk) == [b"a"]


async def test_it_does_not_wait_for_a_client_that_has_gone(autojump_clock: MockClock) -> None:
    async with serving(retry_backoff_ms=60_000, shutdown=DRAIN) as daemon:
        peer, _, _ = await holding(daemon, b"a")
        daemon.signal()
        await trio.sleep(1)
        await peer.reset()
        await daemon.end()
        assert trio.current_time() == 1
    assert await backlog(daemon.disk) == [b"a"]


async def test_a_second_signal_skips_the_wait_and_nothing_else(autojump_clock: MockClock) -> None:
    async with serving(
        retry_backoff_ms=60_000, shutdown=DRAIN, fsync_policy=FsyncPolicy("none")
    ) as daemon:
        peer, _, _ = await holding(daemon, b"a")
        daemon.signal()
        await trio.sleep(0.5)
        await peer.send(encoder.ping(7))
        daemon.signal()
        assert await peer.rest() == [Frame(PONG, 7, b"")]
        await peer.aclose()
        await daemon.end()
        assert trio.current_time() == 0.5
        assert daemon.events()[-1] == "stopped"
    assert_closed(daemon.disk)
    assert await backlog(daemon.disk) == [b"a"]


async def test_an_acknowledgement_just_before_the_end_is_logged(autojump_clock: MockClock) -> None:
    async with serving(retry_backoff_ms=60_000) as daemon:
        peer, subscription, deliveries = await holding(daemon, b"a", b"b")
        await peer.settle(subscription, *deliveries)
        await peer.aclose()
        daemon.signal()
        await daemon.end()
        assert trio.current_time() == 0
    assert await backlog(daemon.disk) == []


async def test_replies_that_wait_are_sent_before_the_connection_is_closed(
    autojump_clock: MockClock,
) -> None:
    async with serving() as daemon:
        peer = daemon.connect(bounded=True)
        await peer.send(encoder.hello(1, 1), encoder.ping(2), encoder.ping(3))
        await wait_all_tasks_blocked()
        daemon.signal()
        await wait_all_tasks_blocked()
        assert [frame.correlation_id for frame in await peer.rest()] == [1, 2, 3]
        await peer.aclose()
        await daemon.end()


async def test_a_client_that_does_not_read_holds_it_up_for_its_linger_timeout(
    autojump_clock: MockClock,
) -> None:
    async with serving(shutdown=DRAIN) as daemon:
        peer = daemon.connect(bounded=True)
        await peer.send(encoder.hello(1, 1))
        daemon.signal()
        await daemon.end()
        assert trio.current_time() == 1


async def test_what_waits_for_a_slow_disk_is_committed_before_the_end(
    autojump_clock: MockClock,
) -> None:
    async with serving() as daemon:
        peer = await daemon.client()
        await peer.subscribe("demo")
        daemon.runner.hold()
        for payload in (b"a", b"b", b"c"):
            await peer.send(encoder.publish(1, 1, b"demo", payload))
            await wait_all_tasks_blocked()
        await peer.aclose()
        daemon.signal()
        await wait_all_tasks_blocked()
        assert not daemon.ended.is_set()
        daemon.runner.release()
        await daemon.end()
    assert_closed(daemon.disk)
    assert await backlog(daemon.disk) == [b"a", b"b", b"c"]


async def test_a_publisher_learns_that_its_last_publish_failed(autojump_clock: MockClock) -> None:
    async with serving() as daemon:
        peer = await daemon.client()
        daemon.runner.hold()
        daemon.disk.break_down("append", errno.ENOSPC)
        await peer.send(encoder.publish(9, 1, b"demo", b"a"))
        await wait_all_tasks_blocked()
        daemon.signal()
        await wait_all_tasks_blocked()
        daemon.runner.release()
        (answer,) = await peer.rest()
        assert answer.correlation_id == 9
        assert nack(answer) == (500, "durable publish failed: No space left on device")


async def test_cancelled_it_ends_at_once_with_the_log_synced(autojump_clock: MockClock) -> None:
    async with serving(retry_backoff_ms=60_000, fsync_policy=FsyncPolicy("none")) as daemon:
        await holding(daemon, b"a")
        assert daemon.disk.unsynced
        daemon.scope.cancel()
        await daemon.end()
        assert trio.current_time() == 0
        assert daemon.scope.cancelled_caught
    assert_closed(daemon.disk)
    assert await backlog(daemon.disk) == [b"a"]


@pytest.mark.parametrize(
    ("owner", "method"), [(Broker, "tick"), (Broker, "committed"), (Session, "advance")]
)
async def test_a_bug_in_a_task_ends_the_daemon_with_the_log_synced(
    autojump_clock: MockClock, owner: type, method: str
) -> None:
    async with serving(fsync_policy=FsyncPolicy("none")) as daemon:
        peer, _, _ = await holding(daemon, b"a")
        with mock.patch.object(owner, method, side_effect=RuntimeError("a bug")):
            await peer.send(encoder.publish(1, 1, b"demo", b"b"))
            (error,) = await daemon.failure()
        assert str(error) == "a bug"
    assert_closed(daemon.disk)
    assert (await backlog(daemon.disk))[0] == b"a"


async def test_a_log_that_cannot_be_synced_at_the_end_is_an_error(
    autojump_clock: MockClock,
) -> None:
    async with serving(fsync_policy=FsyncPolicy("none")) as daemon:
        peer = await daemon.client()
        await peer.publish("demo", b"a")
        await peer.aclose()
        daemon.disk.break_down("sync", errno.EIO)
        daemon.signal()
        (error,) = await daemon.failure()
        assert isinstance(error, LogError)
        assert str(error) == "fsync failed: Input/output error"
    assert not daemon.disk.locked
