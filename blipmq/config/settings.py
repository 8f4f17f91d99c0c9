"""Every setting: its name, type, default and unit. What values it may have is in `checks`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal, get_type_hints

import attrs

from blipmq.broker.limits import Limits, MiB, Retention, Retries
from blipmq.wal.policy import FsyncPolicy

ENVIRONMENT_PREFIX: Final = "BLIPMQ_"


@attrs.frozen
class WalSettings:
    """How the write-ahead log is written."""

    segment_bytes: int = 64 * MiB
    """Size at which a segment ends and the next one begins."""
    reserve_bytes: int = 16 * MiB
    """Disk space kept for acknowledgements and checkpoints on a full disk; 0: none.

    At most an eighth of what is free at the start.
    """
    settle_flush_ms: int = 50
    """How long settlements may wait for others before they are written."""
    fsync_max_delay_ms: int = 200
    """Under `every_n`: the longest that a written message waits for its fsync."""
    queue_batches: int = 64
    """Batches that wait for the writer before readers have to."""


@attrs.frozen
class ShutdownSettings:
    """How long a graceful shutdown takes at most."""

    drain_timeout_ms: int = 2_000
    """How long clients may still settle what they hold."""
    linger_timeout_ms: int = 2_000
    """How long the last replies and deliveries may take to be sent."""


@attrs.frozen
class LoggingSettings:
    """What is logged, and in which form."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """The least severe lines that are written."""
    format: Literal["console", "json"] = "console"
    """For people, or one JSON object a line."""


@attrs.frozen
class MetricsSettings:
    """What the metrics endpoint reports."""

    max_labelled_subscriptions: int = 100
    """Subscriptions that have a series of their own; those beyond are summed up in one."""


@attrs.frozen
class TlsSettings:
    """A second port for clients, on which they speak TLS."""

    certificate: str = ""
    """PEM file of the certificate and those that lead to its root; empty: no such port."""
    key: str = ""
    """PEM file of its private key; empty: it is in the same file."""
    address: str = "127.0.0.1"
    """Address that clients connect to."""
    port: int = 5556
    """TCP port; 0 picks a free one."""


@attrs.frozen
class WebSocketSettings:
    """A port for clients that speak the protocol in the messages of a WebSocket."""

    enabled: bool = False
    address: str = "127.0.0.1"
    """Address that clients connect to."""
    port: int = 5557
    """TCP port; 0 picks a free one."""
    tls: bool = False
    """Whether it is `wss://`, with the certificate of `[tls]`."""
    path: str = "/"
    """The one path that is answered."""
    allowed_origins: tuple[str, ...] = ()
    """Origins whose pages may connect; `*`: all. Who sends no Origin is no page, and may."""
    max_message_bytes: int = 32 * MiB
    """The largest message that is taken; frames of the protocol may be cut anywhere."""
    ping_ms: int = 30_000
    """Silence after which a ping is sent; twice that ends the connection. 0: off."""


@attrs.frozen
class AdminSettings:
    """Who may change things over HTTP."""

    allowed_keys: tuple[str, ...] = attrs.field(default=(), repr=False)
    """Admin keys, of at least 16 bytes each; with none the API is read only."""


@attrs.frozen
class TracingSettings:
    """Spans of messages that carry a sampled trace context; needs the extra `otel`."""

    enabled: bool = False
    exporter: Literal["otlp", "console"] = "otlp"
    """To a collector, by OTLP over HTTP, or as JSON to standard output."""
    endpoint: str = "http://127.0.0.1:4318/v1/traces"
    """The URL of the collector."""
    service_name: str = "blipmq"
    sample_ratio: float = 1.0
    """Of the traces that publishers sample: the part of which spans are made."""
    max_spans_per_second: int = 1_000
    """Spans beyond are not made, but counted."""


@attrs.frozen
class Config:
    """All settings of a daemon, validated if they come from `load_config`."""

    bind_addr: str = "127.0.0.1"
    """Address that clients connect to."""
    port: int = 5555
    """TCP port of the broker; 0 picks a free one."""
    metrics_addr: str = "127.0.0.1"
    """Address of the metrics and health endpoint."""
    metrics_port: int = 9100
    """TCP port of the metrics and health endpoint; 0 picks a free one."""
    wal_path: str = "blipmq.wal"
    """Directory of the write-ahead log; empty: no log, everything in memory."""
    fsync_policy: FsyncPolicy = FsyncPolicy("always")
    """When the log is fsynced."""
    max_retries: int = 3
    """Deliveries of a QoS 1 message in all; 0 and 1 both mean a single one."""
    retry_backoff_ms: int = 100
    """Pause before the first redelivery; doubled with every further one."""
    ack_wait_ms: int = 30_000
    """How long an attachment may take to settle a message, unless it says else."""
    allowed_api_keys: tuple[str, ...] = attrs.field(default=(), repr=False)
    """The API keys that clients may present; with none nobody gets in."""
    enable_trio_console: bool = False
    """Whether the daemon watches its own tasks, for `blipmq console`; it costs."""
    limits: Limits = Limits()
    retention: Retention = Retention()
    wal: WalSettings = WalSettings()
    shutdown: ShutdownSettings = ShutdownSettings()
    logging: LoggingSettings = LoggingSettings()
    metrics: MetricsSettings = MetricsSettings()
    tls: TlsSettings = TlsSettings()
    websocket: WebSocketSettings = WebSocketSettings()
    admin: AdminSettings = AdminSettings()
    tracing: TracingSettings = TracingSettings()

    @property
    def retries(self) -> Retries:
        """The retry settings, as the broker takes them."""
        return Retries(self.max_retries, self.retry_backoff_ms, self.ack_wait_ms)


OLDER_NAMES: Final = {"enable_tokio_console": "enable_trio_console"}
"""Keys that are still accepted, with what they are called now."""


def tables(table: type) -> dict[str, type]:
    """The tables that are settings of `table`, by their names."""
    return {
        name: its_type
        for name, its_type in get_type_hints(table).items()
        if attrs.has(its_type) and its_type is not FsyncPolicy
    }


def settings() -> dict[str, type]:
    """Every setting by its key, `table.key` inside a table, with its type."""
    return dict(_settings(Config, ""))


def _settings(table: type, prefix: str) -> Iterator[tuple[str, type]]:
    inner = tables(table)
    for name, its_type in get_type_hints(table).items():
        if name in inner:
            yield from _settings(its_type, f"{name}.")
        else:
            yield prefix + name, its_type


def environment_variable(key: str) -> str:
    """The variable that sets `key`: `BLIPMQ_LIMITS_MAX_TOPICS` for `limits.max_topics`."""
    return ENVIRONMENT_PREFIX + key.replace(".", "_").upper()
