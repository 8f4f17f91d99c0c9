"""Spans: one trace from a publisher through the broker to its consumer, on the mock clock."""

from __future__ import annotations

import errno
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from trio.testing import MockClock

from blipmq import Client, NotPermitted, PublishFailed, connect_stream, otel
from blipmq.broker.broker import Broker
from blipmq.config.settings import TracingSettings
from blipmq.errors import ConfigError
from blipmq.nursery import root
from blipmq.nursery.outside import Outside
from blipmq.protocol import encoder
from tests.nursery.daemon import Daemon, new_disk, serving, settings
from tests.peer import KEY

ON = TracingSettings(enabled=True)
SAMPLED = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
NOT_SAMPLED = SAMPLED[:-1] + "0"


@asynccontextmanager
async def client_of(daemon: Daemon, *, traced: bool = False) -> AsyncIterator[Client]:
    context = otel.current_context if traced else None
    stream = daemon.connect().stream
    async with connect_stream(stream, api_key=KEY, trace_context=context) as client:
        yield client


def tracer_of(daemon: Daemon) -> trace.Tracer:
    """For programs: what it records ends up where the spans of the daemon do."""
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(daemon.spans))
    return provider.get_tracer("test")


def spans(daemon: Daemon) -> list[ReadableSpan]:
    """All that were made but for that of the start, in the order in which they began."""
    made = [span for span in daemon.spans.get_finished_spans() if span.name != "recovery"]
    return sorted(made, key=lambda span: span.start_time or 0)


def names(daemon: Daemon) -> set[str]:
    return {span.name for span in spans(daemon)}


def one(daemon: Daemon, name: str) -> ReadableSpan:
    (found,) = [span for span in daemon.spans.get_finished_spans() if span.name == name]
    return found


def attributes(span: ReadableSpan) -> dict[str, object]:
    return dict(span.attributes or {})


async def exchange(client: Client, context: str | None, *, qos: int = 1) -> None:
    """One message from a publisher to a consumer, which accepts it."""
    async with client.subscribe("t", qos=qos) as messages:
        await client.publish("t", b"body", qos=qos, trace_context=context)
        async for message in messages:
            assert message.trace_context == context
            async with message:
                break


async def test_one_trace_spans_publisher_broker_and_consumer(autojump_clock: MockClock) -> None:
    async with serving(tracing=ON) as daemon, client_of(daemon, traced=True) as client:
        tracer = tracer_of(daemon)
        async with client.subscribe("t", name="workers") as messages:
            with tracer.start_as_current_span("order"):
                await client.publish("t", b"body")
            async for message in messages:
                with otel.consumer_span(message, tracer):
                    await message.accept()
                break
        await client.ping()
        found = {span.name: span for span in spans(daemon)}
        assert set(found) == {
            "order", "publish t", "commit t", "deliver t", "process t", "settle t"
        }  # fmt: skip
        root_span = found.pop("order").context
        assert root_span is not None
        for span in found.values():
            assert span.context is not None
            assert span.context.trace_id == root_span.trace_id
            assert span.parent is not None
            assert span.parent.span_id == root_span.span_id
        deliver, settle = attributes(found["deliver t"]), attributes(found["settle t"])
        assert deliver["messaging.destination.subscription.name"] == "workers"
        assert deliver["blipmq.tag"] == settle["blipmq.tag"] == str(message.tag)
        assert deliver["blipmq.attempt"] == 1
        assert settle["blipmq.outcome"] == "accept"


async def test_a_commit_lasts_until_the_log_has_the_message(autojump_clock: MockClock) -> None:
    async with serving(tracing=ON) as daemon, client_of(daemon) as client:
        daemon.runner.seconds = 2.0
        await client.publish("t", b"body", trace_context=SAMPLED)
        commit = one(daemon, "commit t")
        assert commit.start_time is not None
        assert commit.end_time is not None
        assert commit.end_time - commit.start_time == pytest.approx(2e9, rel=1e-6)


async def test_a_commit_that_fails_is_an_error(autojump_clock: MockClock) -> None:
    disk = new_disk()
    async with serving(disk=disk, tracing=ON) as daemon, client_of(daemon) as client:
        disk.break_down("append", errno.ENOSPC)
        with pytest.raises(PublishFailed):
            await client.publish("t", b"body", trace_context=SAMPLED)
        commit = one(daemon, "commit t")
        assert commit.status.status_code is trace.StatusCode.ERROR
        disk.heal()


async def test_a_publish_that_is_refused_is_an_error(autojump_clock: MockClock) -> None:
    async with serving(tracing=ON) as daemon, client_of(daemon) as client:
        with pytest.raises(NotPermitted):
            await client.publish("$dead.t", b"body", trace_context=SAMPLED)
        status = one(daemon, "publish $dead.t").status
        assert status.status_code is trace.StatusCode.ERROR
        assert status.description == "not permitted (code 403)"


@pytest.mark.parametrize("context", [None, NOT_SAMPLED, "no traceparent"])
async def test_messages_without_a_sampled_context_are_not_traced(
    autojump_clock: MockClock, context: str | None
) -> None:
    async with serving(tracing=ON) as daemon, client_of(daemon) as client:
        await exchange(client, context)
        assert spans(daemon) == []


async def test_messages_at_qos_0_are_published_and_delivered(autojump_clock: MockClock) -> None:
    async with serving(tracing=ON) as daemon, client_of(daemon) as client:
        await exchange(client, SAMPLED, qos=0)
        assert names(daemon) == {"publish t", "deliver t"}


async def test_messages_of_version_1_subscriptions_are_delivered_and_settled(
    autojump_clock: MockClock,
) -> None:
    async with serving(tracing=ON) as daemon, client_of(daemon) as client:
        peer = await daemon.client()
        id_ = await peer.subscribe("t")
        await client.publish("t", b"body", trace_context=SAMPLED)
        (delivery,) = await peer.ask(encoder.poll(7, id_))
        assert await peer.ask(encoder.ack(delivery.correlation_id, id_)) == []
        assert names(daemon) == {"publish t", "commit t", "deliver t", "settle t"}


async def test_a_redelivery_has_its_attempt(autojump_clock: MockClock) -> None:
    async with serving(tracing=ON) as daemon, client_of(daemon) as client:
        async with client.subscribe("t") as messages:
            await client.publish("t", b"body", trace_context=SAMPLED)
            async for message in messages:
                if message.attempt == 2:
                    await message.accept()
                    break
                await message.retry(1.0)
        delivered = [span for span in spans(daemon) if span.name == "deliver t"]
        assert [attributes(span)["blipmq.attempt"] for span in delivered] == [1, 2]


async def test_a_message_from_before_a_restart_is_in_its_trace(autojump_clock: MockClock) -> None:
    disk = new_disk()
    async with serving(disk=disk, tracing=ON) as daemon, client_of(daemon) as client:
        async with client.subscribe("t", name="workers"):
            pass
        await client.publish("t", b"body", trace_context=SAMPLED)
    async with serving(disk=disk, tracing=ON) as daemon, client_of(daemon) as client:
        async with client.subscribe("t", name="workers") as messages:
            async for message in messages:
                await message.accept()
                break
        await client.ping()
        assert names(daemon) == {"deliver t", "settle t"}
        assert {span.context.trace_id for span in spans(daemon) if span.context} == {
            int(SAMPLED[3:35], 16)
        }


async def test_the_recovery_is_a_trace_of_its_own(autojump_clock: MockClock) -> None:
    disk = new_disk()
    async with serving(disk=disk) as daemon, client_of(daemon) as client:
        await client.publish("t", b"kept")
    async with serving(disk=disk, tracing=ON) as daemon:
        span = one(daemon, "recovery")
        assert span.parent is None
        assert attributes(span)["blipmq.messages"] == 1


async def test_a_ratio_of_0_makes_no_spans_of_messages(autojump_clock: MockClock) -> None:
    none = TracingSettings(enabled=True, sample_ratio=0.0)
    async with serving(tracing=none) as daemon, client_of(daemon) as client:
        await exchange(client, SAMPLED)
        assert spans(daemon) == []
        assert daemon.stats.trace_spans_dropped == 0


@pytest.mark.parametrize(("low", "traced"), [("0" * 16, True), ("f" * 16, False)])
async def test_the_ratio_takes_or_leaves_a_whole_trace_by_its_id(
    autojump_clock: MockClock, low: str, traced: bool
) -> None:
    half = TracingSettings(enabled=True, sample_ratio=0.5)
    async with serving(tracing=half) as daemon, client_of(daemon) as client:
        await exchange(client, f"00-{'a' * 16}{low}-{'b' * 16}-01")
        assert bool(spans(daemon)) == traced


async def test_spans_beyond_the_limit_of_a_second_are_counted(autojump_clock: MockClock) -> None:
    few = TracingSettings(enabled=True, max_spans_per_second=3)
    async with serving(tracing=few) as daemon, client_of(daemon) as client:
        async with client.open_publisher("t") as publisher:
            for _ in range(5):
                await publisher.send(b"", trace_context=SAMPLED)
        assert len(spans(daemon)) == 3
        assert daemon.stats.trace_spans_dropped == 7
        await trio.sleep(1)
        await client.publish("t", b"", trace_context=SAMPLED)
        assert len(spans(daemon)) == 5


async def test_a_topic_of_any_length_makes_a_name_of_bounded_length(
    autojump_clock: MockClock,
) -> None:
    async with serving(tracing=ON) as daemon, client_of(daemon) as client:
        await client.publish("t" * 10_000, b"", trace_context=SAMPLED)
        assert max(map(len, names(daemon))) < 300


async def test_a_daemon_that_does_not_trace_has_a_plain_broker(autojump_clock: MockClock) -> None:
    async with serving() as daemon, client_of(daemon) as client:
        await exchange(client, SAMPLED)
        assert type(daemon.state.broker) is Broker
        assert daemon.spans.get_finished_spans() == ()


async def test_without_opentelemetry_a_start_says_what_to_install(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "blipmq.nursery.tracing", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(ConfigError, match=r"^tracing.enabled: .*pip install 'blipmq\[otel\]'"):
        await root.serve(settings(tracing=ON), outside=Outside())
