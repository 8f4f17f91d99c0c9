"""OpenTelemetry for programs that publish and consume: one trace from one to the other.

Needs the extra `blipmq[otel]`; nothing else of the client library imports this.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry import trace

from blipmq.client.message import Message
from blipmq.protocol.trace_context import TraceContext

__all__ = ["consumer_span", "current_context", "link", "span_context"]


def current_context() -> str | None:
    """The traceparent of the current span, for `open_client(trace_context=...)`; None without."""
    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return None
    return str(TraceContext(context.trace_id, context.span_id, context.trace_flags.sampled))


def span_context(message: Message) -> trace.SpanContext | None:
    """The span that the message was published in; None when it does not say so."""
    text = message.trace_context
    context = None if text is None else TraceContext.parse(text)
    if context is None:
        return None
    flags = trace.TraceFlags(trace.TraceFlags.SAMPLED if context.sampled else 0)
    return trace.SpanContext(context.trace_id, context.span_id, is_remote=True, trace_flags=flags)


def link(message: Message) -> trace.Link | None:
    """A link to the span that the message was published in, for a span that handles many."""
    context = span_context(message)
    return None if context is None else trace.Link(context)


@contextmanager
def consumer_span(message: Message, tracer: trace.Tracer | None = None) -> Iterator[trace.Span]:
    """A span for the handling of a message, in the trace that it was published in.

    Inside the block it is the current span. When the message has no context it is a child of the
    span that is current. An exception is recorded and raised; being cancelled is no failure.
    """
    remote = span_context(message)
    parent = None
    if remote is not None:
        parent = trace.set_span_in_context(trace.NonRecordingSpan(remote))
    attributes: dict[str, str | int] = {
        "messaging.system": "blipmq",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": message.topic,
        "messaging.message.body.size": len(message.body),
        "blipmq.attempt": message.attempt,
    }
    if message.tag is not None:
        attributes["blipmq.tag"] = str(message.tag)
    with (tracer or trace.get_tracer("blipmq")).start_as_current_span(
        f"process {message.topic}",
        parent,
        trace.SpanKind.CONSUMER,
        attributes,
        record_exception=False,
        set_status_on_exception=False,
    ) as span:
        try:
            yield span
        except Exception as error:
            span.record_exception(error)
            span.set_status(trace.Status(trace.StatusCode.ERROR, type(error).__name__))
            raise
