"""What tracing costs where it is on: the search for contexts, and a span without its export."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Final

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from blipmq.broker.stats import Stats
from blipmq.broker.tracing import Step, Traced
from blipmq.config.settings import TracingSettings
from blipmq.nursery.span_queue import SpanQueue
from blipmq.nursery.tracing import Tracing
from blipmq.protocol import encoder
from blipmq.protocol.properties import MessageProperties, encode_message_properties
from blipmq.protocol.run import made_run
from blipmq.protocol.trace_context import TraceContext, sampled_contexts

MESSAGES: Final = 1000
ROUNDS: Final = 20


class _Nowhere(SpanExporter):
    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        pass


def seconds(call: Callable[[], object]) -> float:
    """Of processor time for each message, the median of all rounds."""
    took = []
    for _ in range(ROUNDS):
        start = time.process_time()
        call()
        took.append((time.process_time() - start) / MESSAGES)
    return median(took)


def search_seconds(body_bytes: int) -> float:
    """For a message without a context."""
    properties = encode_message_properties(MessageProperties(message_id=bytes(16)))
    frame = encoder.message(0, 1, b"topic", properties, bytes(body_bytes))
    run = made_run(b"topic", 1, [frame] * MESSAGES)
    return seconds(lambda: list(sampled_contexts(run)))


def span_seconds() -> float:
    settings = TracingSettings(enabled=True, max_spans_per_second=10**9)
    queue = SpanQueue(_Nowhere(), Stats(), MESSAGES * ROUNDS)
    tracing = Tracing.open(settings, Stats(), time.time_ns, queue)
    traced = [Traced(TraceContext(n, n, sampled=True), n) for n in range(1, MESSAGES + 1)]
    try:
        return seconds(lambda: tracing.ended(Step.DELIVER, tracing.now(), b"topic", traced))
    finally:
        tracing.close()


def main() -> None:
    for body_bytes in (16, 256, 4096):
        print(f"search, {body_bytes} bytes: {search_seconds(body_bytes) * 1e9:.0f} ns a message")
    print(f"span: {span_seconds() * 1e6:.1f} µs")


if __name__ == "__main__":
    main()
