"""What the broker and the daemon count: plain numbers, changed where the thing happens.

Knows nothing of Prometheus, of tasks or of time. Counters only grow; gauges are set, or moved up
and down, by whoever owns what they measure. Every dict holds all of its keys from the start, so
a count of something that has no key is a `KeyError`, not a new label.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import attrs


class DropReason(StrEnum):
    """Why a message that was accepted is not delivered to a subscription, or is kept no longer."""

    CAPACITY = "capacity"
    """The subscription held as many messages as it may; its oldest went."""
    BYTES = "bytes"
    """The subscription held as many bytes as it may; its oldest went."""
    KEPT = "kept"
    """No QoS 1 subscription came for it before newer messages took its place."""
    MAX_RETRIES = "max_retries"
    """Delivered as often as allowed, and never settled."""
    REJECTED = "rejected"
    """A consumer rejected it."""
    BEHIND = "behind"
    """QoS 0, and the subscription was so far behind that it was read from the log."""
    QOS0_WINDOW = "qos0_window"
    """A QoS 0 subscription left more unsent than it may; its oldest went."""
    BACKLOG = "backlog"
    """A full shared subscription that drops its oldest rather than to refuse new ones."""
    DEAD_LETTER = "dead_letter"
    """It was given up in a dead letter topic, or there was no room for a dead letter."""
    MEMORY = "memory"
    """QoS 0, and the broker held as many bytes of messages as it may."""
    COMMIT_FAILED = "commit_failed"
    """The log did not take it; a QoS 1 publish is answered by a NACK as well."""
    NO_SUBSCRIBER = "no_subscriber"
    """QoS 0, and nobody subscribed to the topic."""
    DISCONNECTED = "disconnected"
    """It waited in a subscription that ended with its connection."""
    DELETED = "deleted"
    """It waited in a named subscription that was deleted."""
    PURGED = "purged"
    """An operator purged the backlog that it waited in, or dropped it from the dead letters."""
    SUBSCRIPTION_EXPIRED = "subscription_expired"
    """It waited in a parked subscription that nobody took over in time."""


class CloseReason(StrEnum):
    """Why the daemon closed a connection: a limit, its key, or what came before it was one."""

    LIMIT = "limit"
    """It was one more than `max_connections`."""
    HANDSHAKE_TIMEOUT = "handshake_timeout"
    """It had not authenticated within `handshake_timeout_ms`."""
    HEARTBEAT = "heartbeat"
    """A version 2 client that was silent for twice `heartbeat_ms`."""
    MEMORY = "memory"
    """Its unfinished frame did not fit into `max_memory_bytes`."""
    AUTH_FAILURES = "auth_failures"
    """It sent more than `max_auth_failures` AUTHs that failed."""
    TLS_HANDSHAKE = "tls_handshake"
    """It did not agree on TLS."""
    UPGRADE = "upgrade"
    """Its HTTP request was none for a WebSocket that is served here."""
    ORIGIN = "origin"
    """A page that may not connect to the WebSocket listener."""
    TEXT = "text"
    """It sent a text message, where bytes are due."""
    MESSAGE_SIZE = "message_size"
    """It sent a WebSocket message that was larger than `max_message_bytes`."""
    WEBSOCKET_FRAMING = "websocket_framing"
    """It did not keep to the rules of WebSocket."""
    PING = "ping"
    """A WebSocket that was silent for twice `ping_ms`."""
    KEY_REMOVED = "key_removed"
    """Its API key was taken out of the configuration, which was loaded again."""


class Listener(StrEnum):
    """What a client connected to."""

    TCP = "tcp"
    TLS = "tls"
    WEBSOCKET = "websocket"


NACK_CODES: Final = (400, 401, 403, 404, 413, 426, 429, 500, 503)
"""Every code that a NACK of this broker carries; `blipmq.errors` says what each means."""


def _by_qos() -> list[int]:
    return [0, 0]


def _by_drop_reason() -> dict[DropReason, int]:
    return dict.fromkeys(DropReason, 0)


def _by_close_reason() -> dict[CloseReason, int]:
    return dict.fromkeys(CloseReason, 0)


def _by_listener() -> dict[Listener, int]:
    return dict.fromkeys(Listener, 0)


def _by_nack_code() -> dict[int, int]:
    return dict.fromkeys(NACK_CODES, 0)


@attrs.define
class Stats:
    """The counters and gauges of one broker. A plural noun that can fall is a gauge."""

    topics: int = 0
    subscriptions: int = 0
    """Subscriptions that exist, parked ones included."""
    subscriptions_parked: int = 0
    connections: int = 0
    connections_by_listener: dict[Listener, int] = attrs.field(factory=_by_listener)
    connections_accepted: dict[Listener, int] = attrs.field(factory=_by_listener)
    attachments: int = 0
    """Members of shared subscriptions."""
    delayed: int = 0
    """Messages that wait to be published."""
    behind: int = 0
    """Cursors that are to be read from the log."""
    inflight: int = 0
    """Deliveries of QoS 1 that are not settled yet, of all subscriptions."""
    memory_bytes: int = 0
    """Bytes of messages, topics, receive buffers and replies held in memory."""
    kept_messages: int = 0
    """QoS 1 messages kept until a QoS 1 subscription comes."""
    kept_bytes: int = 0

    published: list[int] = attrs.field(factory=_by_qos)
    """Publishes accepted, indexed by the publisher's QoS."""
    delivered: list[int] = attrs.field(factory=_by_qos)
    """Deliveries, redeliveries included, indexed by their QoS."""
    redelivered: int = 0
    expired: int = 0
    dead_letters: int = 0
    """Messages that were moved to dead letter topics."""
    duplicates: int = 0
    """Publishes that were dropped because their message id was seen before."""
    dropped: dict[DropReason, int] = attrs.field(factory=_by_drop_reason)

    nacks: dict[int, int] = attrs.field(factory=_by_nack_code)
    """NACKs sent, by code."""
    auth_failures: int = 0
    framing_errors: int = 0
    connections_refused: dict[CloseReason, int] = attrs.field(factory=_by_close_reason)
    log_lines_suppressed: int = 0
    trace_spans_dropped: int = 0
    """Spans that were not made, or not kept, because there were too many."""
    trace_spans_failed: int = 0
    """Spans that could not be exported."""

    wal_appends: int = 0
    """Records appended to the log."""
    wal_bytes: int = 0
    """Bytes appended to the log."""
    wal_segments: int = 0
    """Segments that exist now: a gauge."""
    wal_torn_tails: int = 0
    """Incomplete last records that were cut off at the start."""
    wal_replayed_messages: int = 0
    """Messages that were read back from the log at the start."""


@attrs.frozen
class Backlog:
    """What one subscription has not settled yet: the waiting messages and the unsettled ones.

    `subscription` and `topic` may hold anything that a client chose. `members` counts who is there
    to take them.
    """

    subscription: str
    topic: str
    messages: int
    bytes: int
    oldest_age_seconds: float
    members: int = 0
