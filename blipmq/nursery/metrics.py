"""What the daemon measures: the names of the metrics, and `/metrics`, `/healthz` and `/readyz`.

Reads the counters of the broker at the moment of a scrape and decides nothing. `docs/metrics.md`
is the reference of the names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final

import attrs
from prometheus_client import (
    CollectorRegistry,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from blipmq.broker.stats import Backlog, Stats
from blipmq.nursery.http_app import Handler, Request, Response, Routes

PREFIX: Final = "blipmq_"
REST: Final = "rest"
"""The `subscription` label of all that have no row of their own; its `topic` is empty, which that
of a subscription never is."""
LABEL_CHARACTERS: Final = 128
"""A label value that a client chose is cut to this length."""

FSYNC_BUCKETS_SECONDS: Final = (
    0.00005, 0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005,
    0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0,
)  # fmt: skip

_EXPOSITION: Final = b"text/plain; version=0.0.4; charset=utf-8"

Backlogs = Callable[[int], Iterable[Backlog]]
"""Called with how many rows get labels of their own; gives those with the most messages first. Rows
beyond that many are added up, so one more may sum up all others. It must not walk messages."""

Readiness = Callable[[], str | None]
"""None when the daemon takes messages, else the reason why it does not."""

_GAUGES: Final[tuple[tuple[str, str, Callable[[Stats], int]], ...]] = (
    ("topics", "Topics that exist.", lambda stats: stats.topics),
    ("subscriptions", "Subscriptions, parked ones included.", lambda stats: stats.subscriptions),
    (
        "subscriptions_parked",
        "Version 1 QoS 1 subscriptions that wait to be taken over.",
        lambda stats: stats.subscriptions_parked,
    ),
    ("attachments", "Members of version 2 subscriptions.", lambda stats: stats.attachments),
    (
        "subscriptions_behind",
        "Places of subscriptions in topics that are read from the log.",
        lambda stats: stats.behind,
    ),
    ("messages_delayed", "Messages that wait to be published.", lambda stats: stats.delayed),
    ("connections", "Connections of clients.", lambda stats: stats.connections),
    (
        "messages_inflight",
        "QoS 1 deliveries that are not settled yet.",
        lambda stats: stats.inflight,
    ),
    (
        "memory_bytes",
        "Bytes of messages, topics, receive buffers and replies held in memory.",
        lambda stats: stats.memory_bytes,
    ),
    (
        "kept_messages",
        "QoS 1 messages kept until a QoS 1 subscription comes.",
        lambda stats: stats.kept_messages,
    ),
    ("kept_bytes", "Bytes of the messages that are kept.", lambda stats: stats.kept_bytes),
    ("wal_segments", "Segments of the log.", lambda stats: stats.wal_segments),
)

_COUNTERS: Final[tuple[tuple[str, str, Callable[[Stats], int]], ...]] = (
    (
        "messages_redelivered",
        "Deliveries of a message that was delivered before.",
        lambda stats: stats.redelivered,
    ),
    ("messages_expired", "Messages whose TTL ended.", lambda stats: stats.expired),
    (
        "messages_dead_lettered",
        "Messages that were moved to dead letter topics.",
        lambda stats: stats.dead_letters,
    ),
    (
        "messages_duplicate",
        "Publishes dropped because their message id was seen before.",
        lambda stats: stats.duplicates,
    ),
    ("auth_failures", "AUTHs that failed.", lambda stats: stats.auth_failures),
    (
        "framing_errors",
        "Connections closed because what came was no frame.",
        lambda stats: stats.framing_errors,
    ),
    (
        "log_lines_suppressed",
        "Log lines left out to bound their rate.",
        lambda stats: stats.log_lines_suppressed,
    ),
    (
        "trace_spans_dropped",
        "Spans left out because there were too many.",
        lambda stats: stats.trace_spans_dropped,
    ),
    (
        "trace_spans_failed",
        "Spans that could not be exported.",
        lambda stats: stats.trace_spans_failed,
    ),
    ("wal_appends", "Records appended to the log.", lambda stats: stats.wal_appends),
    ("wal_bytes", "Bytes appended to the log.", lambda stats: stats.wal_bytes),
    (
        "wal_torn_tails",
        "Incomplete last records cut off at the start.",
        lambda stats: stats.wal_torn_tails,
    ),
    (
        "wal_replayed_messages",
        "Messages read back from the log at the start.",
        lambda stats: stats.wal_replayed_messages,
    ),
)

_LabelledRead = Callable[[Stats], Iterable[tuple[object, int]]]

_LABELLED_GAUGES: Final[tuple[tuple[str, str, str, _LabelledRead], ...]] = (
    (
        "connections_by_listener",
        "Connections of clients, by what they connected to.",
        "listener",
        lambda stats: stats.connections_by_listener.items(),
    ),
)

_LABELLED_COUNTERS: Final[tuple[tuple[str, str, str, _LabelledRead], ...]] = (
    (
        "messages_published",
        "Publishes accepted.",
        "qos",
        lambda stats: enumerate(stats.published),
    ),
    (
        "messages_delivered",
        "Deliveries, redeliveries included.",
        "qos",
        lambda stats: enumerate(stats.delivered),
    ),
    (
        "messages_dropped",
        "Accepted messages that a subscription lost, or that were kept no longer.",
        "reason",
        lambda stats: stats.dropped.items(),
    ),
    ("nack", "NACKs sent.", "code", lambda stats: stats.nacks.items()),
    (
        "connections_refused",
        "Connections that the daemon refused or closed.",
        "reason",
        lambda stats: stats.connections_refused.items(),
    ),
    (
        "connections_accepted",
        "Connections of clients that were accepted.",
        "listener",
        lambda stats: stats.connections_accepted.items(),
    ),
)


def label(text: str) -> str:
    """The text as a label value: bounded, of printable characters, and one that encodes."""
    if len(text) > LABEL_CHARACTERS:
        text = text[: LABEL_CHARACTERS - 1] + "…"
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


@attrs.frozen(eq=False)
class StatsCollector(Collector):
    """Reads the counters, and the backlogs of a bounded number of subscriptions, at each scrape.

    A series never comes twice, whatever clients name their topics: rows that have the same labels
    are added up.
    """

    stats: Stats
    backlogs: Backlogs
    max_labelled_subscriptions: int

    def collect(self) -> Iterator[Metric]:
        for name, text, read in _GAUGES:
            yield GaugeMetricFamily(PREFIX + name, text, value=read(self.stats))
        for name, text, read in _COUNTERS:
            yield CounterMetricFamily(PREFIX + name, text, value=read(self.stats))
        for name, text, key, read_all in _LABELLED_GAUGES:
            gauge = GaugeMetricFamily(PREFIX + name, text, labels=[key])
            for value, count in read_all(self.stats):
                gauge.add_metric([str(value)], count)
            yield gauge
        for name, text, key, read_all in _LABELLED_COUNTERS:
            counter = CounterMetricFamily(PREFIX + name, text, labels=[key])
            for value, count in read_all(self.stats):
                counter.add_metric([str(value)], count)
            yield counter
        yield from self._collect_backlogs()

    def _collect_backlogs(self) -> Iterator[Metric]:
        labels = ["subscription", "topic"]
        messages = GaugeMetricFamily(
            PREFIX + "subscription_backlog",
            "Messages of the subscription that wait or are not settled.",
            labels=labels,
        )
        size = GaugeMetricFamily(
            PREFIX + "subscription_backlog_bytes",
            "Bytes of the messages of the subscription that wait or are not settled.",
            labels=labels,
        )
        oldest = GaugeMetricFamily(
            PREFIX + "subscription_oldest_seconds",
            "Age of the oldest message of the subscription; 0 without one.",
            labels=labels,
        )
        members = GaugeMetricFamily(
            PREFIX + "subscription_members",
            "Attachments, or the connection, that take messages from the subscription.",
            labels=labels,
        )
        for row in self._rows():
            values = [row.subscription, row.topic]
            members.add_metric(values, row.members)
            messages.add_metric(values, row.messages)
            size.add_metric(values, row.bytes)
            oldest.add_metric(values, row.oldest_age_seconds)
        yield messages
        yield size
        yield oldest
        yield members

    def _rows(self) -> Iterable[Backlog]:
        rows: dict[tuple[str, str], Backlog] = {}
        limit = self.max_labelled_subscriptions
        for position, row in enumerate(self.backlogs(limit)):
            own = position < limit
            labels = (label(row.subscription), label(row.topic)) if own else (REST, "")
            same = rows.get(labels)
            rows[labels] = Backlog(
                *labels,
                messages=row.messages + (same.messages if same else 0),
                bytes=row.bytes + (same.bytes if same else 0),
                oldest_age_seconds=max(
                    row.oldest_age_seconds, same.oldest_age_seconds if same else 0.0
                ),
                members=row.members + (same.members if same else 0),
            )
        return rows.values()


@attrs.frozen(eq=False)
class Metrics:
    """All that is measured about one daemon, with a Prometheus registry of its own."""

    stats: Stats
    backlogs: Backlogs
    readiness: Readiness
    max_labelled_subscriptions: int
    registry: CollectorRegistry = attrs.field(init=False, factory=CollectorRegistry)
    _fsync_seconds: Histogram = attrs.field(init=False)

    @_fsync_seconds.default
    def _make_fsync_seconds(self) -> Histogram:
        return Histogram(
            PREFIX + "wal_fsync_seconds",
            "Time that an fsync of the log took.",
            buckets=FSYNC_BUCKETS_SECONDS,
            registry=self.registry,
        )

    def __attrs_post_init__(self) -> None:
        self.registry.register(
            StatsCollector(self.stats, self.backlogs, self.max_labelled_subscriptions)
        )
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)

    def observe_fsync(self, seconds: float) -> None:
        """Counts one fsync. May be called from any thread."""
        self._fsync_seconds.observe(seconds)

    def render(self) -> bytes:
        """The metrics of this moment in Prometheus' text format."""
        return generate_latest(self.registry)


def metrics_routes(metrics: Metrics) -> Routes:
    """`/metrics`, `/healthz` and `/readyz`, read only."""

    async def scrape(request: Request) -> Response:
        return Response(200, metrics.render(), _EXPOSITION)

    async def health(request: Request) -> Response:
        return Response(200, b"ok")

    async def readiness(request: Request) -> Response:
        reason = metrics.readiness()
        if reason is None:
            return Response(200, b"ready")
        return Response(503, reason.encode("utf-8", "replace"))

    handlers: dict[str, Handler] = {
        "/metrics": scrape,
        "/healthz": health,
        "/readyz": readiness,
    }
    return {path: {"GET": handler} for path, handler in handlers.items()}
