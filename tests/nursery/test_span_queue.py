"""Spans on their way out: bounded, counted, and no reason to stop late."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence

import pytest
import structlog
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SpanExporter, SpanExportResult

from blipmq.broker.stats import Stats
from blipmq.config.settings import TracingSettings
from blipmq.nursery import span_queue
from blipmq.nursery.span_queue import ExportLog, SpanQueue, new_exporter


class Collector(SpanExporter):
    """Takes nothing until `open`; then says `result` of each batch."""

    def __init__(self, result: SpanExportResult = SpanExportResult.SUCCESS) -> None:
        self.open = threading.Event()
        self.result = result
        self.exported: list[str] = []

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.open.wait()
        self.exported += [span.name for span in spans]
        return self.result

    def shutdown(self) -> None:
        self.open.set()


def made(exporter: SpanExporter, stats: Stats, count: int, queue_spans: int) -> TracerProvider:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SpanQueue(exporter, stats, queue_spans))
    for number in range(count):
        provider.get_tracer("test").start_span(str(number)).end()
    return provider


def test_what_the_queue_has_no_room_for_is_counted_and_the_rest_exported() -> None:
    stats, collector = Stats(), Collector()
    provider = made(collector, stats, 15, 10)
    assert stats.trace_spans_dropped == 5
    collector.open.set()
    provider.shutdown()
    assert collector.exported == [str(number) for number in range(10)]
    assert stats.trace_spans_failed == 0


def test_what_a_collector_does_not_take_is_counted() -> None:
    stats, collector = Stats(), Collector(SpanExportResult.FAILURE)
    collector.open.set()
    made(collector, stats, 3, 10).shutdown()
    assert stats.trace_spans_failed == 3


def test_an_exporter_that_hangs_is_shut_down_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(span_queue, "_CLOSE_SECONDS", 0.0)
    collector = Collector()
    made(collector, Stats(), 1, 10).shutdown()
    assert collector.open.is_set()


def test_what_opentelemetry_complains_of_is_logged_at_a_bounded_rate() -> None:
    with structlog.testing.capture_logs() as lines:
        log = ExportLog(structlog.get_logger(), lambda: 0.0)
        log.install()
        try:
            for _ in range(3):
                logging.getLogger("opentelemetry.test").warning("no %s", "collector")
        finally:
            log.remove()
    assert [(line["event"], line["error"]) for line in lines] == [("tracing", "no collector")]


def test_the_settings_say_where_spans_go() -> None:
    console = new_exporter(TracingSettings(exporter="console"))
    assert isinstance(console, ConsoleSpanExporter)
    otlp = new_exporter(TracingSettings(endpoint="http://collector.example:4318/v1/traces"))
    assert type(otlp).__name__ == "OTLPSpanExporter"
    otlp.shutdown()
