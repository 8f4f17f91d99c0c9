"""Spans of what the broker does, by OpenTelemetry: imported only when tracing is enabled."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from typing import Final

import attrs
import structlog
from opentelemetry import context, trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

from blipmq.broker.stats import Stats
from blipmq.broker.tracing import Step, Traced
from blipmq.config.settings import TracingSettings
from blipmq.nursery.outside import Outside
from blipmq.nursery.span_queue import ExportLog, SpanQueue, new_exporter

_TOPIC_CHARACTERS: Final = 256
_NS: Final = 1_000_000_000


@attrs.define(eq=False)
class Tracing:
    """A `Tracer` of the broker. At most `max_spans_per_second` are made, others are counted."""

    settings: TracingSettings
    stats: Stats
    _now: Callable[[], int]
    _provider: TracerProvider
    _tracer: trace.Tracer
    _on_close: Callable[[], None]
    _second: int = 0
    _made: int = 0
    _below: int = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._below = round(self.settings.sample_ratio * 2**64)

    @classmethod
    def open(
        cls,
        settings: TracingSettings,
        stats: Stats,
        now: Callable[[], int],
        processor: SpanProcessor,
        on_close: Callable[[], None] = lambda: None,
    ) -> Tracing:
        """Spans go to `processor`. `now` is the time of day in nanoseconds."""
        software = version("blipmq")
        resource = Resource.create(
            {"service.name": settings.service_name, "service.version": software}
        )
        provider = TracerProvider(ALWAYS_ON, resource, shutdown_on_exit=False)
        provider.add_span_processor(processor)
        tracer = provider.get_tracer("blipmq", software)
        return cls(settings, stats, now, provider, tracer, on_close)

    def now(self) -> int:
        return self._now()

    def ended(
        self,
        step: Step,
        began: int,
        topic: bytes,
        messages: Sequence[Traced],
        *,
        error: str | None = None,
        attributes: Mapping[str, str | int] | None = None,
    ) -> None:
        name = topic.decode(errors="replace")[:_TOPIC_CHARACTERS]
        ended = max(began, self._now())
        for message in messages:
            # As TraceIdRatioBased decides: every daemon of the same ratio takes the same traces.
            if message.context.trace_id % 2**64 >= self._below:
                continue
            if not self._may_make(ended):
                self.stats.trace_spans_dropped += 1
                continue
            self._make(step, began, ended, name, message, error, attributes)

    def _may_make(self, now: int) -> bool:
        second = now // _NS
        if second != self._second:
            self._second, self._made = second, 0
        self._made += 1
        return self._made <= self.settings.max_spans_per_second

    def _make(
        self,
        step: Step,
        began: int,
        ended: int,
        topic: str,
        message: Traced,
        error: str | None,
        attributes: Mapping[str, str | int] | None,
    ) -> None:
        remote = trace.SpanContext(
            message.context.trace_id,
            message.context.span_id,
            is_remote=True,
            trace_flags=trace.TraceFlags(trace.TraceFlags.SAMPLED),
        )
        parent = trace.set_span_in_context(trace.NonRecordingSpan(remote))
        values: dict[str, str | int] = {
            "messaging.system": "blipmq",
            "messaging.operation.name": step.value,
            "messaging.destination.name": topic,
        }
        if message.tag:
            values["blipmq.tag"] = str(message.tag)
        if step is Step.DELIVER:
            values["blipmq.attempt"] = message.attempt
        span = self._tracer.start_span(
            f"{step.value} {topic}",
            parent,
            attributes=values | dict(attributes or {}),
            start_time=began,
        )
        if error is not None:
            span.set_status(trace.Status(trace.StatusCode.ERROR, error))
        span.end(ended)

    @contextmanager
    def recovery(self) -> Iterator[None]:
        """Around the reading of the log: a trace of its own, whatever the sample ratio."""
        span = self._tracer.start_span("recovery", context.Context(), start_time=self._now())
        try:
            yield
        except BaseException as error:
            span.set_status(
                trace.Status(trace.StatusCode.ERROR, f"{type(error).__name__}: {error}")
            )
            raise
        finally:
            span.set_attribute("blipmq.messages", self.stats.wal_replayed_messages)
            span.set_attribute("blipmq.torn_tails", self.stats.wal_torn_tails)
            span.set_attribute("blipmq.segments", self.stats.wal_segments)
            span.end(self._now())

    def close(self) -> None:
        """Export what waits. Blocks, for a few seconds at most."""
        try:
            self._provider.shutdown()
        finally:
            self._on_close()


def open_tracing(settings: TracingSettings, stats: Stats, outside: Outside) -> Tracing:
    """Spans go where `outside` says, or else the settings."""
    if outside.span_processor is not None:
        return Tracing.open(settings, stats, outside.time_ns, outside.span_processor())
    export_log = ExportLog(structlog.get_logger("blipmq"), outside.monotonic)
    export_log.install()
    queue = SpanQueue(new_exporter(settings), stats)
    return Tracing.open(settings, stats, outside.time_ns, queue, export_log.remove)
