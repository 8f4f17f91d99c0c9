"""What waits to be exported: spans, in a bounded queue that a thread of OpenTelemetry empties."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from threading import Timer
from typing import Final

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor
from opentelemetry.sdk.trace.export import (
    BatchSpanProcessor,
    ConsoleSpanExporter,
    SpanExporter,
    SpanExportResult,
)
from structlog.typing import FilteringBoundLogger

from blipmq.broker.stats import Stats
from blipmq.config.settings import TracingSettings
from blipmq.logs import RateLimited

QUEUE_SPANS: Final = 8_192
"""So many spans wait to be exported; those beyond are dropped, counted."""
_BATCH_SPANS: Final = 512
_PAUSE_MS: Final = 1_000
_EXPORT_SECONDS: Final = 5.0
_CLOSE_SECONDS: Final = 2.0
"""How long what waits may take at the end."""


class _Counting(SpanExporter):
    """Counts what an exporter is done with, and what it failed to export. In the thread."""

    def __init__(self, inner: SpanExporter, stats: Stats) -> None:
        self.done = 0
        self._inner = inner
        self._stats = stats

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = SpanExportResult.FAILURE
        try:
            result = self._inner.export(spans)
        finally:
            if result is not SpanExportResult.SUCCESS:
                self._stats.trace_spans_failed += len(spans)
            self.done += len(spans)
        return result

    def shutdown(self) -> None:
        self._inner.shutdown()


class SpanQueue(SpanProcessor):
    """Takes spans on Trio's thread, and never waits there. What does not fit is counted."""

    def __init__(
        self, exporter: SpanExporter, stats: Stats, queue_spans: int = QUEUE_SPANS
    ) -> None:
        self._exporter = _Counting(exporter, stats)
        self._stats = stats
        self._queue_spans = queue_spans
        self._taken = 0
        self._inner = BatchSpanProcessor(
            self._exporter,
            max_queue_size=queue_spans,
            schedule_delay_millis=_PAUSE_MS,
            max_export_batch_size=min(_BATCH_SPANS, queue_spans),
        )

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        self._inner.on_start(span, parent_context)

    def on_end(self, span: ReadableSpan) -> None:
        if self._taken - self._exporter.done >= self._queue_spans:
            self._stats.trace_spans_dropped += 1
            return
        self._taken += 1
        self._inner.on_end(span)

    def shutdown(self) -> None:
        """Export what waits. Blocks, until that takes too long."""
        hurry = Timer(_CLOSE_SECONDS, self._exporter.shutdown)
        hurry.daemon = True
        hurry.start()
        try:
            self._inner.shutdown()  # type: ignore[no-untyped-call]
        finally:
            hurry.cancel()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._inner.force_flush(timeout_millis)


def new_exporter(settings: TracingSettings) -> SpanExporter:
    """Where the settings say that spans go."""
    if settings.exporter == "console":
        return ConsoleSpanExporter(service_name=settings.service_name)
    return OTLPSpanExporter(endpoint=settings.endpoint, timeout=_EXPORT_SECONDS)


class ExportLog(logging.Handler):
    """Writes what OpenTelemetry complains of into the log of the daemon, at a bounded rate."""

    def __init__(self, log: FilteringBoundLogger, monotonic: Callable[[], float]) -> None:
        super().__init__(logging.WARNING)
        self._lines = RateLimited(log, lines_per_second=1)
        self._monotonic = monotonic

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        self._lines.warning("tracing", "tracing", now=self._monotonic(), error=text)

    def install(self) -> None:
        logger = logging.getLogger("opentelemetry")
        logger.addHandler(self)
        logger.propagate = False

    def remove(self) -> None:
        logger = logging.getLogger("opentelemetry")
        logger.removeHandler(self)
        logger.propagate = True
