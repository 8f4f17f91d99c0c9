"""What outlives a daemon that is killed, and one that is asked to end."""

from __future__ import annotations

import signal

import pytest

from blipmq.protocol import encoder
from tests.daemon.process import Processes
from tests.peer import bodies, nack

PATIENT = {"BLIPMQ_RETRY_BACKOFF_MS": 600_000, "BLIPMQ_SHUTDOWN_DRAIN_TIMEOUT_MS": 600_000}
"""No unsettled message comes back by itself, and a shutdown waits for each."""


@pytest.mark.parametrize("policy", ["always", "every_n:64", "interval_ms:1000", "none"])
async def test_what_was_confirmed_comes_back_after_a_kill(
    processes: Processes, policy: str
) -> None:
    payloads = [b"%d" % number for number in range(500)]
    daemon = await processes.start(BLIPMQ_FSYNC_POLICY=policy)
    async with daemon.client() as peer:
        await peer.subscribe("demo")
        assert await peer.publish("demo", *payloads) == []
        await daemon.kill()
    daemon = await processes.start(**PATIENT, BLIPMQ_FSYNC_POLICY=policy)
    async with daemon.client() as peer:
        subscription = await peer.subscribe("demo")
        assert bodies(await peer.poll(subscription, 501)) == payloads


async def test_what_was_published_before_anybody_subscribed_comes_after_a_kill(
    processes: Processes,
) -> None:
    daemon = await processes.start()
    async with daemon.client() as peer:
        assert await peer.publish("demo", b"a", b"b") == []
        await daemon.kill()
    daemon = await processes.start()
    async with daemon.client() as peer:
        assert bodies(await peer.poll(await peer.subscribe("demo"), 3)) == [b"a", b"b"]


async def test_what_was_acknowledged_and_logged_does_not_come_back_after_a_kill(
    processes: Processes,
) -> None:
    daemon = await processes.start(**PATIENT)
    async with daemon.client() as peer:
        subscription = await peer.subscribe("demo")
        await peer.publish("demo", *[b"%d" % number for number in range(10)])
        deliveries = await peer.poll(subscription, 10)
        appends = await daemon.metric("blipmq_wal_appends_total")
        assert await peer.settle(subscription, *deliveries[::2]) == []
        while await daemon.metric("blipmq_wal_appends_total") == appends:
            pass
        await daemon.kill()
    daemon = await processes.start(**PATIENT)
    async with daemon.client() as peer:
        subscription = await peer.subscribe("demo")
        left = bodies(await peer.poll(subscription, 11))
        assert left == [b"1", b"3", b"5", b"7", b"9"]


async def test_numbers_are_never_used_again_after_kills(processes: Processes) -> None:
    tags: list[int] = []
    for _ in range(3):
        daemon = await processes.start()
        async with daemon.client() as peer:
            subscription = await peer.subscribe("demo")
            await peer.publish("demo", b"a", b"b")
            deliveries = await peer.poll(subscription, 2)
            tags += [delivery.correlation_id for delivery in deliveries]
            await peer.settle(subscription, *deliveries)
            await peer.publish("other", b"carries the settlements into the log")
            await daemon.kill()
    assert len(tags) == len(set(tags)) == 6


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_it_with_0_and_everything_is_kept(
    processes: Processes, number: signal.Signals
) -> None:
    daemon = await processes.start(BLIPMQ_FSYNC_POLICY="none")
    async with daemon.client() as peer:
        subscription = await peer.subscribe("demo")
        await peer.publish("demo", b"a", b"b", b"c")
        (first,) = await peer.poll(subscription)
        assert await peer.settle(subscription, first) == []
        daemon.signal(number)
        assert await peer.rest() == []
    assert await daemon.status() == 0
    assert [line["event"] for line in daemon.lines] == ["starting", "ready", "draining", "stopped"]
    daemon = await processes.start()
    async with daemon.client() as peer:
        subscription = await peer.subscribe("demo")
        assert bodies(await peer.poll(subscription, 4)) == [b"b", b"c"]


async def test_while_it_drains_it_refuses_publishes_and_takes_settlements(
    processes: Processes,
) -> None:
    daemon = await processes.start(**PATIENT)
    async with daemon.client() as peer:
        subscription = await peer.subscribe("demo")
        await peer.publish("demo", b"a")
        (delivery,) = await peer.poll(subscription)
        daemon.signal(signal.SIGTERM)
        await daemon.logged("draining")
        assert await daemon.get("/readyz") == (503, "draining")
        assert await daemon.get("/healthz") == (200, "ok")
        (refused,) = await peer.publish("demo", b"b")
        assert nack(refused) == (503, "draining")
        await peer.send(encoder.ack(delivery.correlation_id, subscription))
        assert await peer.rest() == []
    assert await daemon.status() == 0


async def test_a_second_signal_ends_the_wait_for_settlements(processes: Processes) -> None:
    daemon = await processes.start(**PATIENT)
    async with daemon.client() as peer:
        subscription = await peer.subscribe("demo")
        await peer.publish("demo", b"a")
        assert bodies(await peer.poll(subscription)) == [b"a"]
        daemon.signal(signal.SIGTERM)
        await daemon.logged("draining")
        assert await peer.ask() == []
        daemon.signal(signal.SIGTERM)
        assert await peer.rest() == []
    assert await daemon.status() == 0
    daemon = await processes.start()
    async with daemon.client() as peer:
        assert bodies(await peer.poll(await peer.subscribe("demo"))) == [b"a"]


async def test_without_a_log_nothing_is_kept(processes: Processes) -> None:
    for _ in range(2):
        daemon = await processes.start(BLIPMQ_WAL_PATH="")
        async with daemon.client() as peer:
            subscription = await peer.subscribe("demo")
            assert await peer.poll(subscription) == []
            await peer.publish("demo", b"a")
            assert bodies(await peer.poll(subscription)) == [b"a"]
        assert await daemon.terminate() == 0
