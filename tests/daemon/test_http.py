"""The metrics endpoint of a running daemon."""

from __future__ import annotations

from tests.daemon.process import Processes


async def test_health_and_readiness_and_nothing_else(processes: Processes) -> None:
    daemon = await processes.start()
    assert await daemon.get("/healthz") == (200, "ok")
    assert await daemon.get("/readyz") == (200, "ready")
    assert await daemon.get("/") == (404, "not found")


async def test_metrics_tell_what_happened(processes: Processes) -> None:
    daemon = await processes.start(BLIPMQ_RETRY_BACKOFF_MS=60_000)
    async with daemon.client() as peer:
        subscription = await peer.subscribe("demo")
        await peer.publish("demo", b"a", b"b", b"c")
        await peer.publish("demo", b"d", qos=0)
        assert len(await peer.poll(subscription, 2)) == 2
        assert len(await peer.poll(0)) == 1
        assert await daemon.metric("blipmq_connections") == 1
        assert await daemon.metric("blipmq_topics") == 1
        assert await daemon.metric("blipmq_subscriptions") == 1
        assert await daemon.metric("blipmq_messages_published_total", qos="1") == 3
        assert await daemon.metric("blipmq_messages_published_total", qos="0") == 1
        assert await daemon.metric("blipmq_messages_delivered_total", qos="1") == 2
        assert await daemon.metric("blipmq_messages_inflight") == 2
        assert await daemon.metric("blipmq_nack_total", code="400") == 1
        labels = {"subscription": str(subscription), "topic": "demo"}
        assert await daemon.metric("blipmq_subscription_backlog", **labels) == 4
        assert await daemon.metric("blipmq_wal_appends_total") >= 2
        assert await daemon.metric("blipmq_wal_fsync_seconds_count") >= 1
        assert await daemon.metric("blipmq_wal_segments") == 1
