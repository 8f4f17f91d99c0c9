"""Latencies as an HDR histogram: microseconds to an hour, to three digits."""

from __future__ import annotations

import attrs
from hdrh.histogram import HdrHistogram

_LOWEST_NS = 1
_HIGHEST_NS = 3_600 * 10**9
_DIGITS = 3


@attrs.frozen
class Percentiles:
    """In microseconds. `count` is of the messages that had a time stamp."""

    count: int
    p50_us: float
    p95_us: float
    p99_us: float
    p99_9_us: float
    max_us: float


class Latencies:
    """Gathers nanoseconds; the histogram is filled when it is asked for, not while measuring."""

    def __init__(self) -> None:
        self._waiting: list[tuple[int, int]] = []

    def add(self, latency_ns: int, messages: int = 1) -> None:
        self._waiting.append((latency_ns, messages))

    def encoded(self) -> bytes:
        """For another process; `percentiles` reads it."""
        histogram = _histogram()
        for latency_ns, messages in self._waiting:
            histogram.record_value(min(max(latency_ns, _LOWEST_NS), _HIGHEST_NS), messages)
        return bytes(histogram.encode())


def percentiles(encoded: list[bytes]) -> Percentiles | None:
    """Of all of them together; None when there is not one latency."""
    histogram = _histogram()
    for each in encoded:
        histogram.decode_and_add(each)
    count = int(histogram.get_total_count())
    if not count:
        return None
    p50, p95, p99, p99_9 = (
        histogram.get_value_at_percentile(share) / 1e3 for share in (50, 95, 99, 99.9)
    )
    return Percentiles(count, p50, p95, p99, p99_9, histogram.get_max_value() / 1e3)


def _histogram() -> HdrHistogram:
    return HdrHistogram(_LOWEST_NS, _HIGHEST_NS, _DIGITS)
