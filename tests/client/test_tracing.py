"""Published messages carry the context that the program says, and consumers are offered it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from blipmq import Client, Message, otel
from blipmq.testing import open_broker
from tests.docs.markdown import Document

SAMPLED = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
OTHER = "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-00"


async def received(client: Client, count: int) -> list[Message]:
    found: list[Message] = []
    async with client.subscribe("t") as messages:
        async for message in messages:
            await message.accept()
            found.append(message)
            if len(found) == count:
                break
    return found


async def test_every_way_to_publish_puts_the_context_in() -> None:
    async with (
        open_broker() as broker,
        broker.client(trace_context=lambda: SAMPLED) as client,
    ):
        await client.publish("t", b"alone")
        await client.publish("t", b"with a header", headers={"name": b"value"})
        async with client.open_publisher("t") as publisher:
            await publisher.send(b"sent")
            publisher.send_nowait(b"sent at once")
            await publisher.send_many([b"two", b"two"])
            await publisher.flush()
            assert publisher.sent == 4
        assert {message.trace_context for message in await received(client, 6)} == {SAMPLED}


async def test_a_context_among_the_options_goes_before() -> None:
    async with (
        open_broker() as broker,
        broker.client(trace_context=lambda: SAMPLED) as client,
    ):
        await client.publish("t", b"", trace_context=OTHER)
        async with client.open_publisher("t") as publisher:
            await publisher.send(b"", trace_context=OTHER)
        assert {message.trace_context for message in await received(client, 2)} == {OTHER}


async def test_without_a_current_context_messages_carry_none() -> None:
    async with open_broker() as broker, broker.client(trace_context=lambda: None) as client:
        await client.publish("t", b"")
        async with client.open_publisher("t") as publisher:
            await publisher.send(b"")
        assert {message.trace_context for message in await received(client, 2)} == {None}


def recorder() -> tuple[trace.Tracer, InMemorySpanExporter]:
    exporter, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return provider.get_tracer("test"), exporter


async def one_message(context: str | None) -> Message:
    async with open_broker() as broker, broker.client() as client:
        await client.publish("t", b"", trace_context=context)
        (message,) = await received(client, 1)
    return message


async def test_the_program_of_the_page_prints_what_it_says(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = Document.read("docs/tracing.md")
    (program,), (output,) = page.blocks("python"), page.blocks("text")
    async with open_broker(api_key="dev-key-1") as broker:

        async def open_tcp_stream(host: str, port: int) -> trio.abc.Stream:
            return await broker.connect()

        monkeypatch.setattr(trio, "open_tcp_stream", open_tcp_stream)
        names: dict[str, Callable[[], Awaitable[None]]] = {}
        exec(program.text.removesuffix("\n\ntrio.run(main)\n"), names)  # noqa: S102
        await names["main"]()
    assert capsys.readouterr().out == output.text


async def test_the_current_context_is_that_of_the_current_span() -> None:
    tracer, _ = recorder()
    assert otel.current_context() is None
    with tracer.start_as_current_span("outer") as span:
        context = span.get_span_context()
        assert otel.current_context() == (f"00-{context.trace_id:032x}-{context.span_id:016x}-01")


async def test_a_consumer_span_is_current_and_in_the_trace_of_the_message() -> None:
    message = await one_message(SAMPLED)
    tracer, exporter = recorder()
    with otel.consumer_span(message, tracer) as span:
        assert trace.get_current_span() is span
    (found,) = exporter.get_finished_spans()
    assert found.kind is trace.SpanKind.CONSUMER
    assert found.parent is not None
    assert f"{found.parent.span_id:016x}" == SAMPLED[36:52]


async def test_an_exception_in_a_consumer_span_is_recorded_and_raised() -> None:
    message = await one_message(SAMPLED)
    tracer, exporter = recorder()
    with pytest.raises(KeyError), otel.consumer_span(message, tracer):
        raise KeyError("missing")
    (found,) = exporter.get_finished_spans()
    assert found.status.status_code is trace.StatusCode.ERROR
    assert [event.name for event in found.events] == ["exception"]


@pytest.mark.parametrize("context", [None, "no traceparent"])
async def test_without_a_context_a_consumer_span_is_below_the_current_one(
    context: str | None,
) -> None:
    message = await one_message(context)
    tracer, exporter = recorder()
    with tracer.start_as_current_span("outer") as outer, otel.consumer_span(message, tracer):
        pass
    inner = exporter.get_finished_spans()[0]
    assert inner.parent is not None
    assert inner.parent.span_id == outer.get_span_context().span_id
    assert otel.link(message) is None


async def test_a_link_leads_to_the_span_that_published() -> None:
    message = await one_message(OTHER)
    link = otel.link(message)
    assert link is not None
    assert f"{link.context.span_id:016x}" == "00f067aa0ba902b7"
    assert link.context.is_remote
    assert not link.context.trace_flags.sampled
