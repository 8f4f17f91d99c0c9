"""Properties of a MESSAGE: what each may hold, not what it does."""

from __future__ import annotations

import re
from collections.abc import Container
from typing import Final

import attrs

from blipmq.errors import BadRequest
from blipmq.protocol.frames import U16, U64
from blipmq.protocol.property_fields import (
    PROPERTIES_BYTES_MAX,
    PROPERTY_HEAD_BYTES,
    bounded,
    encode_unsigned,
    joined,
    places,
    property_bytes,
    text,
    unsigned,
    values,
    within,
)

TTL: Final = 1
DELAY: Final = 2
MESSAGE_ID: Final = 3
KEY: Final = 4
REPLY_TO: Final = 5
CONTENT_TYPE: Final = 6
TRACE_CONTEXT: Final = 7
HEADER: Final = 8
TIMESTAMP: Final = 9
ATTEMPT: Final = 16
DEAD_LETTER: Final = 17

MESSAGE_ID_BYTES_MAX: Final = 128
KEY_BYTES_MAX: Final = 1024
DURATION_MS_MAX: Final = 2**53
"""Of ttl and delay: whole milliseconds up to here are exact in any arithmetic."""

_BY_CLIENT: Final = frozenset(range(TTL, TIMESTAMP + 1))
_BY_BROKER: Final = _BY_CLIENT | {ATTEMPT, DEAD_LETTER}
_DEAD_LETTER: Final = re.compile(rb"([^\0]*)\0(.*?)\0([0-9]{1,20})\0(.*)", re.DOTALL)


@attrs.frozen
class DeadLetter:
    """Why a message was given up, and where: its topic, its number there, the subscription."""

    reason: str
    topic: bytes
    tag: int
    subscription: bytes


@attrs.frozen
class MessageProperties:
    """What a MESSAGE says besides its topic and body.

    `ttl_ms` 0: never expires; None: as the topic has it. `timestamp_ms` is since the epoch.
    `attempt` counts deliveries from 1.
    """

    ttl_ms: int | None = None
    delay_ms: int = 0
    message_id: bytes | None = None
    key: bytes | None = None
    reply_to: bytes | None = None
    content_type: str | None = None
    trace_context: str | None = None
    headers: tuple[tuple[str, bytes], ...] = ()
    timestamp_ms: int | None = None
    attempt: int = 1
    dead_letter: DeadLetter | None = None


NO_PROPERTIES: Final = MessageProperties()


def parse_message_properties(data: bytes, *, from_client: bool) -> MessageProperties:
    """The properties of a MESSAGE.

    Raises BadRequest: `invalid MESSAGE payload`, or else `unknown property`, which from a client
    those of the broker are too.
    """
    properties, known = read_message_properties(data, from_client=from_client)
    if not known:
        raise BadRequest(400, "unknown property")
    return properties


def read_message_properties(data: bytes, *, from_client: bool) -> tuple[MessageProperties, bool]:
    """The known properties of a MESSAGE, and whether all are known.

    Raises BadRequest `invalid MESSAGE payload`.
    """
    try:
        ids = _BY_CLIENT if from_client else _BY_BROKER
        found, headers, known = values(data, ids, HEADER)
        return _message_properties(found, headers), known
    except ValueError:
        raise BadRequest(400, "invalid MESSAGE payload") from None


def _message_properties(found: dict[int, bytes], headers: list[bytes]) -> MessageProperties:
    get = found.get
    ttl, delay, timestamp = get(TTL), get(DELAY), get(TIMESTAMP)
    content_type, trace_context = get(CONTENT_TYPE), get(TRACE_CONTEXT)
    attempt, dead_letter = get(ATTEMPT), get(DEAD_LETTER)
    return MessageProperties(
        None if ttl is None else _duration_ms(ttl),
        0 if delay is None else _duration_ms(delay),
        bounded(get(MESSAGE_ID), MESSAGE_ID_BYTES_MAX),
        within(get(KEY), KEY_BYTES_MAX),
        text(get(REPLY_TO)),
        None if content_type is None else content_type.decode(),
        None if trace_context is None else trace_context.decode(),
        tuple(map(_header, headers)) if headers else (),
        None if timestamp is None else unsigned(timestamp, U64.size),
        1 if attempt is None else unsigned(attempt, U16.size),
        None if dead_letter is None else _dead_letter(dead_letter),
    )


def _duration_ms(value: bytes) -> int:
    duration_ms = unsigned(value, U64.size)
    if duration_ms > DURATION_MS_MAX:
        raise ValueError(f"{duration_ms} ms is too long")
    return duration_ms


def _header(value: bytes) -> tuple[str, bytes]:
    if not value or value[0] >= len(value):
        raise ValueError("a header's name is longer than the header")
    stop = 1 + value[0]
    return value[1:stop].decode(), value[stop:]


def _dead_letter(value: bytes) -> DeadLetter:
    # A topic or name may hold NUL; the tag between them is what tells where they end.
    match = _DEAD_LETTER.fullmatch(value)
    if match is None:
        raise ValueError("no dead letter property")
    reason, topic, tag, subscription = match.groups()
    return DeadLetter(reason.decode(), topic, int(tag), subscription)


def routing(data: bytes, from_client: bool) -> tuple[int | None, int, bytes | None, bytes | None]:
    """What the broker acts on: ttl and delay in ms, message id and key.

    Checks all of the properties, and raises as `parse_message_properties`.
    """
    if not data:
        return None, 0, None, None
    lone = _LONE_MESSAGE_ID.get(len(data))
    if lone is not None and data.startswith(lone):
        return None, 0, data[PROPERTY_HEAD_BYTES:], None
    parsed = parse_message_properties(data, from_client=from_client)
    return parsed.ttl_ms, parsed.delay_ms, parsed.message_id, parsed.key


_LONE_MESSAGE_ID: Final = {
    PROPERTY_HEAD_BYTES + size: bytes((MESSAGE_ID, 0, size))
    for size in range(1, MESSAGE_ID_BYTES_MAX + 1)
}
"""By the size of all properties: how they begin when a message id is all there is."""


def attempt_property(attempt: int) -> bytes:
    """How often the message was delivered; what u16 cannot hold is its largest."""
    return property_bytes(ATTEMPT, U16.pack(min(attempt, 0xFFFF)))


def dead_letter_property(letter: DeadLetter) -> bytes:
    """Raises ValueError when it is too long to be a property."""
    tag = str(letter.tag).encode()
    value = b"\0".join((letter.reason.encode(), letter.topic, tag, letter.subscription))
    return property_bytes(DEAD_LETTER, value)


def _header_property(name: str, value: bytes) -> bytes:
    encoded = name.encode()
    if len(encoded) > 255:
        raise ValueError(f"the name of a header has {len(encoded)} bytes")
    return property_bytes(HEADER, bytes((len(encoded),)) + encoded + value)


def encode_message_properties(properties: MessageProperties) -> bytes:
    """The bytes of a MESSAGE's properties, in the order of their ids.

    Raises ValueError for what the other side would refuse.
    """
    p = properties
    parts: list[bytes] = []
    if p.ttl_ms is not None:
        parts.append(property_bytes(TTL, _encode_duration(p.ttl_ms)))
    if p.delay_ms:
        parts.append(property_bytes(DELAY, _encode_duration(p.delay_ms)))
    for id_, value in (
        (MESSAGE_ID, bounded(p.message_id, MESSAGE_ID_BYTES_MAX)),
        (KEY, within(p.key, KEY_BYTES_MAX)),
        (REPLY_TO, text(p.reply_to)),
        (CONTENT_TYPE, None if p.content_type is None else p.content_type.encode()),
        (TRACE_CONTEXT, None if p.trace_context is None else p.trace_context.encode()),
    ):
        if value is not None:
            parts.append(property_bytes(id_, value))
    parts.extend(_header_property(*header) for header in p.headers)
    if p.timestamp_ms is not None:
        parts.append(property_bytes(TIMESTAMP, encode_unsigned(p.timestamp_ms, U64.size)))
    if p.attempt != 1:
        parts.append(attempt_property(p.attempt))
    if p.dead_letter is not None:
        parts.append(dead_letter_property(p.dead_letter))
    return joined(parts)


def _encode_duration(duration_ms: int) -> bytes:
    if duration_ms > DURATION_MS_MAX:
        raise ValueError(f"{duration_ms} ms is too long")
    return encode_unsigned(duration_ms, U64.size)


def edit_properties(
    data: bytes, remove: Container[int], add: bytes = b"", bytes_max: int = PROPERTIES_BYTES_MAX
) -> bytes:
    """Well-formed properties without those of these ids, and with `add` at the end.

    Where that is longer than `bytes_max`, headers are left out from the last one on, and when that
    is not enough the others, from the last one on too; never `add`.
    """
    kept = [
        (id_, data[start - PROPERTY_HEAD_BYTES : end])
        for id_, start, end in places(data)
        if id_ not in remove
    ]
    size = sum(len(part) for _, part in kept) + len(add)
    for headers_only in (True, False):
        for at in reversed(range(len(kept))):
            if size <= bytes_max:
                break
            if kept[at][0] == HEADER or not headers_only:
                size -= len(kept.pop(at)[1])
    return b"".join([*(part for _, part in kept), add])
