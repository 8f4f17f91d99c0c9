"""When the daemon wakes by itself: at deadlines, and at no other time."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from blipmq.broker.limits import Retention
from blipmq.broker.stats import DropReason
from blipmq.config import WalSettings
from blipmq.wal.policy import FsyncPolicy
from tests.nursery.daemon import serving
from tests.nursery.wakings import wakings
from tests.peer import bodies


@pytest.mark.parametrize("policy", ["always", "every_n:64", "interval_ms:10", "none"])
async def test_an_idle_daemon_sleeps(autojump_clock: MockClock, policy: str) -> None:
    async with serving(fsync_policy=FsyncPolicy.parse(policy)) as daemon:
        peer = await daemon.client()
        subscription = await peer.subscribe("demo")
        await peer.publish("demo", b"a", b"b")
        await peer.settle(subscription, *await peer.poll(subscription))
        await trio.sleep(10)
        with wakings() as woken:
            await trio.sleep(86_400)
        assert woken.times == []


async def test_it_wakes_once_for_each_deadline_of_a_retry(autojump_clock: MockClock) -> None:
    async with serving(retry_backoff_ms=1_000, max_retries=10, wal_path="") as daemon:
        peer = await daemon.client()
        subscription = await peer.subscribe("demo")
        await peer.publish("demo", b"a")
        await trio.sleep(10)
        start = trio.current_time()
        for attempt in range(3):
            assert bodies(await peer.poll(subscription)) == [b"a"]
            with wakings() as woken:
                await trio.sleep(60)
            assert set(woken.times) == {start + 60 * attempt + 2**attempt}
            assert len(woken.times) == 1
        assert daemon.stats.redelivered == 2


async def test_an_earlier_deadline_wakes_it_earlier(autojump_clock: MockClock) -> None:
    async with serving(retry_backoff_ms=10_000) as daemon:
        peer = await daemon.client()
        subscription = await peer.subscribe("demo")
        await peer.publish("demo", b"a", b"b")
        assert bodies(await peer.poll(subscription)) == [b"a"]
        await trio.sleep(10)
        assert bodies(await peer.poll(subscription, 2)) == [b"b", b"a"]
        # Now the second attempt of a is due in 20 seconds, and the first of b in 10.
        await trio.sleep(10)
        assert bodies(await peer.poll(subscription)) == [b"b"]


async def test_a_parked_subscription_ends_when_nobody_came_for_it(
    autojump_clock: MockClock,
) -> None:
    async with serving(retention=Retention(session_expiry_ms=60_000)) as daemon:
        peer = await daemon.client()
        await peer.subscribe("demo")
        await peer.publish("demo", b"a", b"b")
        await trio.sleep(1)
        await peer.aclose()
        await trio.sleep(59)
        assert daemon.stats.subscriptions_parked == 1
        await trio.sleep(1.001)
        assert daemon.stats.subscriptions == 0
        assert daemon.stats.dropped[DropReason.SUBSCRIPTION_EXPIRED] == 2


async def test_settlements_are_logged_together_within_their_time(
    autojump_clock: MockClock,
) -> None:
    async with serving(wal=WalSettings(settle_flush_ms=50)) as daemon:
        first, second = await daemon.client(), await daemon.client()
        subscription = await first.subscribe("demo")
        await first.publish("demo", *[b"a"] * 4)
        deliveries = await first.poll(subscription, 4)
        await trio.sleep(0.06)
        appends = daemon.disk.count("append")
        await first.settle(subscription, deliveries[0])
        await trio.sleep(0.04)
        await second.settle(subscription, deliveries[2], deliveries[3])
        assert daemon.disk.count("append") == appends
        await trio.sleep(0.0101)
        assert daemon.disk.count("append") == appends + 1
        survivors = daemon.disk.after_kill()
    async with serving(disk=survivors) as daemon:
        peer = await daemon.client()
        subscription = await peer.subscribe("demo")
        left = await peer.poll(subscription, 4)
        assert [delivery.correlation_id for delivery in left] == [deliveries[1].correlation_id]


async def test_settlements_go_with_a_publish_that_comes_before_their_time(
    autojump_clock: MockClock,
) -> None:
    async with serving(wal=WalSettings(settle_flush_ms=50)) as daemon:
        peer = await daemon.client()
        subscription = await peer.subscribe("demo")
        await peer.publish("demo", b"a")
        deliveries = await peer.poll(subscription)
        await trio.sleep(1)
        appends = daemon.disk.count("append")
        await peer.settle(subscription, *deliveries)
        await peer.publish("demo", b"b")
        assert daemon.disk.count("append") == appends + 1
        await trio.sleep(1)
        assert daemon.disk.count("append") == appends + 1


async def test_a_retry_that_falls_due_while_the_disk_is_slow_comes_after_all(
    autojump_clock: MockClock,
) -> None:
    async with serving(retry_backoff_ms=100, wal=WalSettings(queue_batches=1)) as daemon:
        peer = await daemon.client()
        subscription = await peer.subscribe("demo")
        await peer.publish("demo", b"a")
        assert bodies(await peer.poll(subscription)) == [b"a"]
        daemon.runner.seconds = 1
        await peer.publish("demo", b"b")
        await wait_all_tasks_blocked()
        assert sorted(bodies(await peer.poll(subscription, 2))) == [b"a", b"b"]
