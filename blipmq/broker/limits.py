"""What the operator may bound. Sizes are in bytes, times in milliseconds, the rest are counts."""

from __future__ import annotations

from typing import Literal

import attrs

MiB = 1024 * 1024


@attrs.frozen
class Limits:
    """Bounds on what clients may hold or ask for; every one is counted when it is met."""

    max_connections: int = 10_000
    """Connections open at once; one more is closed as soon as it is accepted."""
    max_auth_failures: int = 10
    """Failed AUTHs on one connection before it is closed."""
    handshake_timeout_ms: int = 10_000
    """From the accepted connection to the accepted AUTH."""
    max_topics: int = 100_000
    max_subscriptions: int = 100_000
    """Subscriptions of the whole broker, parked ones included."""
    max_subscriptions_per_connection: int = 1_024
    queue_capacity: int = 1_024
    """Messages, waiting and unsettled together, that a version 1 subscription holds."""
    queue_bytes: int = 64 * MiB
    """Bytes of waiting messages that a version 1 subscription holds."""
    max_memory_bytes: int = 1_024 * MiB
    """Bytes of messages, topics, receive buffers and replies held in memory.

    Messages and topics may take seven eighths of it; a publish that would pass that is refused.
    """
    max_attachments_per_connection: int = 1_024
    """Attachments of one version 2 connection."""
    max_patterns: int = 1_024
    """Subscriptions to patterns; every new topic is compared with each."""
    max_properties_bytes: int = 16_384
    """Bytes of properties that one message or ATTACH has."""
    max_backlog_bytes: int = 8_192 * MiB
    """Bytes that a version 2 subscription at QoS 1 has not settled before it is full."""
    backlog_full: Literal["refuse", "drop_oldest"] = "refuse"
    """What happens to a publish when a subscription is full."""
    attachment_bytes: int = 16 * MiB
    """Bytes of unsettled messages that one attachment holds, whatever its prefetch."""
    window_bytes: int = 8 * MiB
    """Waiting bytes of a subscription that are kept in memory; what is more is on disk alone."""
    qos0_window_bytes: int = 64 * MiB
    """Bytes that a QoS 0 attachment leaves unsent before its oldest messages are dropped."""
    slow_consumer_wait_ms: int = 2_000
    """How long publishers are slowed down for a QoS 0 attachment before messages are dropped."""
    key_lookahead: int = 1_024
    """Messages with keys of busy members that a shared subscription puts aside."""
    heartbeat_ms: int = 30_000
    """Silence after which a version 2 client sends a PING; twice that ends it. 0: off."""
    output_buffer_bytes: int = 1 * MiB
    """Replies waiting to be sent on a connection before its requests are no longer read."""

    @property
    def drop_oldest(self) -> bool:
        return self.backlog_full == "drop_oldest"

    @property
    def max_message_bytes(self) -> int:
        """The rest is for connections: who is to take messages out must be able to connect."""
        return self.max_memory_bytes - self.max_memory_bytes // 8


@attrs.frozen
class Retention:
    """How long messages and subscriptions are kept."""

    kept_messages: int = 1_024
    """QoS 1 messages kept per topic while no QoS 1 subscription exists."""
    kept_bytes: int = 256 * MiB
    """Bytes of QoS 1 messages kept in all topics together."""
    session_expiry_ms: int = 3_600_000
    """How long a parked version 1 QoS 1 subscription waits to be taken over."""
    message_ttl_ms: int = 0
    """Age at which an unsettled message expires that has no ttl of its own; 0: never."""
    settled_ms: int = 0
    """How long the log keeps settled messages, for who wants to start from earlier ones."""
    dead_letters: bool = True
    """Whether QoS 1 messages that are given up go to `$dead.` topics."""
    dedup_window_ms: int = 120_000
    """How long a message id is remembered."""
    dedup_messages: int = 10_000
    """How many message ids are remembered of one topic."""
    dedup_messages_total: int = 100_000
    """How many message ids are remembered of all topics."""


@attrs.frozen
class Retries:
    """How unsettled QoS 1 messages are retried."""

    max_retries: int = 3
    """Deliveries in all, the first included; 0 and 1 both mean a single one."""
    retry_backoff_ms: int = 100
    """Doubled with every attempt after the first."""
    ack_wait_ms: int = 30_000
    """How long an attachment may take to settle a message, unless its subscription says else."""
