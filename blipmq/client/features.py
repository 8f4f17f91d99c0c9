"""What protocol version 1 does not have, by the names that errors and programs use."""

from __future__ import annotations

from typing import Final

from blipmq.errors import UnsupportedByBroker
from blipmq.protocol.properties import MessageProperties

NAMES: Final = "named subscriptions"
PATTERNS: Final = "patterns"
START: Final = "start of a subscription"
ACK_WAIT: Final = "ack wait"
MAX_ATTEMPTS: Final = "max attempts"
RETRY_DELAY: Final = "retry with a delay"
REJECT: Final = "reject"
RELEASE: Final = "release"
EXTEND: Final = "extend"
REQUESTS: Final = "request and reply"
RECONNECTING: Final = "reconnecting"
TTL: Final = "ttl"
DELAY: Final = "delay"
MESSAGE_ID: Final = "message id"
KEY: Final = "key"
REPLY_TO: Final = "reply to"
CONTENT_TYPE: Final = "content type"
TRACE_CONTEXT: Final = "trace context"
HEADERS: Final = "headers"
TIMESTAMP: Final = "timestamp"

MISSING_ON_1: Final = (
    NAMES,
    PATTERNS,
    START,
    ACK_WAIT,
    MAX_ATTEMPTS,
    RETRY_DELAY,
    REJECT,
    RELEASE,
    EXTEND,
    REQUESTS,
    RECONNECTING,
    TTL,
    DELAY,
    MESSAGE_ID,
    KEY,
    REPLY_TO,
    CONTENT_TYPE,
    TRACE_CONTEXT,
    HEADERS,
    TIMESTAMP,
)


def missing(version: int) -> tuple[str, ...]:
    """What a broker that speaks this version leaves out."""
    return MISSING_ON_1 if version == 1 else ()


def not_on_1(feature: str) -> UnsupportedByBroker:
    return UnsupportedByBroker(feature, 1)


def check_properties(properties: MessageProperties | None) -> None:
    """Raises `UnsupportedByBroker` for the first property that version 1 cannot carry."""
    if properties is None:
        return
    p = properties
    for feature, value in (
        (TTL, p.ttl_ms is not None),
        (DELAY, p.delay_ms),
        (MESSAGE_ID, p.message_id),
        (KEY, p.key is not None),
        (REPLY_TO, p.reply_to),
        (CONTENT_TYPE, p.content_type is not None),
        (TRACE_CONTEXT, p.trace_context is not None),
        (HEADERS, p.headers),
        (TIMESTAMP, p.timestamp_ms is not None),
    ):
        if value:
            raise not_on_1(feature)
