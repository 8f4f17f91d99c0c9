"""Properties of a MESSAGE and of an ATTACH: a run of u8 id, u16 n, n bytes.

Knows what each property may hold, not what it does. Ids from 64 up are carried along and not
looked at.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterator
from enum import IntEnum
from typing import Final

import attrs

from blipmq.errors import BadRequest
from blipmq.protocol.frames import U16, U32, U64

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
NAME: Final = 32
PREFETCH: Final = 33
START: Final = 34
ACK_WAIT: Final = 35
MAX_ATTEMPTS: Final = 36
PATTERN: Final = 37
IGNORED_FROM: Final = 64
"""Ids from here on mean nothing to this version."""

PROPERTIES_BYTES_MAX: Final = 65_535
PROPERTY_HEAD_BYTES: Final = 3
MESSAGE_ID_BYTES_MAX: Final = 128
KEY_BYTES_MAX: Final = 1024
NAME_BYTES_MAX: Final = 128
DURATION_MS_MAX: Final = 2**53
"""Of ttl and delay: whole milliseconds up to here are exact in any arithmetic."""

_BY_CLIENT: Final = frozenset(range(TTL, TIMESTAMP + 1))
_BY_BROKER: Final = _BY_CLIENT | {ATTEMPT, DEAD_LETTER}
_OF_ATTACH: Final = frozenset(range(NAME, PATTERN + 1))
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


class StartKind(IntEnum):
    """From where a new subscription reads: a TAG, or a TIME in ms since the epoch."""

    NEW = 0
    EARLIEST = 1
    TAG = 2
    TIME = 3


@attrs.frozen
class Start:
    """`value` is the tag or the time; 0 for the other kinds."""

    kind: StartKind
    value: int = 0


@attrs.frozen
class AttachProperties:
    """What an ATTACH asks for; None: as the broker has it. `max_attempts` 0: no limit."""

    name: bytes | None = None
    prefetch: int = 0
    start: Start | None = None
    ack_wait_ms: int | None = None
    max_attempts: int | None = None
    pattern: bool = False


def places(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Id, start and end of the value of each property. Raises ValueError where they do not fit."""
    at, end = 0, len(data)
    while at < end:
        start = at + PROPERTY_HEAD_BYTES
        if start > end:
            raise ValueError("a property is cut off")
        at = start + (data[start - 2] << 8 | data[start - 1])
        if at > end:
            raise ValueError("a property is longer than what is left")
        yield data[start - 3], start, at


def _values(data: bytes, known: Container[int]) -> tuple[dict[int, bytes], list[bytes], bool]:
    """The values by id, those of the headers in order, and whether all ids are known.

    Raises ValueError for a property that recurs.
    """
    values: dict[int, bytes] = {}
    headers: list[bytes] = []
    all_known = True
    for id_, start, end in places(data):
        if id_ >= IGNORED_FROM:
            continue
        if id_ not in known:
            all_known = False
        elif id_ == HEADER:
            headers.append(data[start:end])
        elif id_ in values:
            raise ValueError(f"property {id_} stands twice")
        else:
            values[id_] = data[start:end]
    return values, headers, all_known


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
        values, headers, known = _values(data, _BY_CLIENT if from_client else _BY_BROKER)
        return _message_properties(values, headers), known
    except ValueError:
        raise BadRequest(400, "invalid MESSAGE payload") from None


def _message_properties(values: dict[int, bytes], headers: list[bytes]) -> MessageProperties:
    get = values.get
    ttl, delay, timestamp = get(TTL), get(DELAY), get(TIMESTAMP)
    content_type, trace_context = get(CONTENT_TYPE), get(TRACE_CONTEXT)
    attempt, dead_letter = get(ATTEMPT), get(DEAD_LETTER)
    return MessageProperties(
        None if ttl is None else _duration_ms(ttl),
        0 if delay is None else _duration_ms(delay),
        _bounded(get(MESSAGE_ID), MESSAGE_ID_BYTES_MAX),
        _within(get(KEY), KEY_BYTES_MAX),
        _text(get(REPLY_TO)),
        None if content_type is None else content_type.decode(),
        None if trace_context is None else trace_context.decode(),
        tuple(map(_header, headers)) if headers else (),
        None if timestamp is None else _unsigned(timestamp, U64.size),
        1 if attempt is None else _unsigned(attempt, U16.size),
        None if dead_letter is None else _dead_letter(dead_letter),
    )


def _unsigned(value: bytes, size: int) -> int:
    if len(value) != size:
        raise ValueError(f"an integer of {size} bytes has {len(value)}")
    return int.from_bytes(value, "big")


def _duration_ms(value: bytes) -> int:
    duration_ms = _unsigned(value, U64.size)
    if duration_ms > DURATION_MS_MAX:
        raise ValueError(f"{duration_ms} ms is too long")
    return duration_ms


def _within(value: bytes | None, most: int) -> bytes | None:
    if value is not None and len(value) > most:
        raise ValueError(f"more than {most} bytes")
    return value


def _bounded(value: bytes | None, most: int) -> bytes | None:
    if value is not None and not value:
        raise ValueError("an empty value")
    return _within(value, most)


def _text(value: bytes | None) -> bytes | None:
    """UTF-8 that is not empty; UnicodeDecodeError is a ValueError."""
    if value is not None:
        value.decode()
        if not value:
            raise ValueError("an empty value")
    return value


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


def _property(id_: int, value: bytes) -> bytes:
    if len(value) > 0xFFFF:
        raise ValueError(f"property {id_} has {len(value)} bytes")
    return bytes((id_,)) + U16.pack(len(value)) + value


def attempt_property(attempt: int) -> bytes:
    """How often the message was delivered; what u16 cannot hold is its largest."""
    return _property(ATTEMPT, U16.pack(min(attempt, 0xFFFF)))


def dead_letter_property(letter: DeadLetter) -> bytes:
    """Raises ValueError when it is too long to be a property."""
    tag = str(letter.tag).encode()
    value = b"\0".join((letter.reason.encode(), letter.topic, tag, letter.subscription))
    return _property(DEAD_LETTER, value)


def _header_property(name: str, value: bytes) -> bytes:
    encoded = name.encode()
    if len(encoded) > 255:
        raise ValueError(f"the name of a header has {len(encoded)} bytes")
    return _property(HEADER, bytes((len(encoded),)) + encoded + value)


def encode_message_properties(properties: MessageProperties) -> bytes:
    """The bytes of a MESSAGE's properties, in the order of their ids.

    Raises ValueError for what the other side would refuse.
    """
    p = properties
    parts: list[bytes] = []
    if p.ttl_ms is not None:
        parts.append(_property(TTL, _encode_duration(p.ttl_ms)))
    if p.delay_ms:
        parts.append(_property(DELAY, _encode_duration(p.delay_ms)))
    for id_, value in (
        (MESSAGE_ID, _bounded(p.message_id, MESSAGE_ID_BYTES_MAX)),
        (KEY, _within(p.key, KEY_BYTES_MAX)),
        (REPLY_TO, _text(p.reply_to)),
        (CONTENT_TYPE, None if p.content_type is None else p.content_type.encode()),
        (TRACE_CONTEXT, None if p.trace_context is None else p.trace_context.encode()),
    ):
        if value is not None:
            parts.append(_property(id_, value))
    parts.extend(_header_property(*header) for header in p.headers)
    if p.timestamp_ms is not None:
        parts.append(_property(TIMESTAMP, _encode_unsigned(p.timestamp_ms, U64.size)))
    if p.attempt != 1:
        parts.append(attempt_property(p.attempt))
    if p.dead_letter is not None:
        parts.append(dead_letter_property(p.dead_letter))
    return _joined(parts)


def _joined(parts: list[bytes]) -> bytes:
    encoded = b"".join(parts)
    if len(encoded) > PROPERTIES_BYTES_MAX:
        raise ValueError(f"the properties have {len(encoded)} bytes")
    return encoded


def _encode_unsigned(value: int, size: int) -> bytes:
    if not 0 <= value < 1 << 8 * size:
        raise ValueError(f"{value} does not fit into {size} bytes")
    return value.to_bytes(size, "big")


def _encode_duration(duration_ms: int) -> bytes:
    if duration_ms > DURATION_MS_MAX:
        raise ValueError(f"{duration_ms} ms is too long")
    return _encode_unsigned(duration_ms, U64.size)


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


def parse_attach_properties(data: bytes) -> AttachProperties:
    """The properties of an ATTACH.

    Raises BadRequest: `invalid ATTACH payload`, or else `unknown property`.
    """
    try:
        values, _, known = _values(data, _OF_ATTACH)
        properties = _attach_properties(values)
    except ValueError:
        raise BadRequest(400, "invalid ATTACH payload") from None
    if not known:
        raise BadRequest(400, "unknown property")
    return properties


def _attach_properties(values: dict[int, bytes]) -> AttachProperties:
    get = values.get
    prefetch, start, ack_wait = get(PREFETCH), get(START), get(ACK_WAIT)
    max_attempts, pattern = get(MAX_ATTEMPTS), get(PATTERN)
    if pattern:
        raise ValueError("the pattern property has a value")
    return AttachProperties(
        _text(_bounded(get(NAME), NAME_BYTES_MAX)),
        0 if prefetch is None else _unsigned(prefetch, U32.size),
        None if start is None else _start(start),
        None if ack_wait is None else _unsigned(ack_wait, U32.size),
        None if max_attempts is None else _unsigned(max_attempts, U16.size),
        pattern is not None,
    )


def _start(value: bytes) -> Start:
    if not value:
        raise ValueError("an empty start")
    kind = StartKind(value[0])
    if kind in (StartKind.TAG, StartKind.TIME):
        return Start(kind, _unsigned(value[1:], U64.size))
    if len(value) != 1:
        raise ValueError("a start that has no value has one")
    return Start(kind)


def encode_attach_properties(properties: AttachProperties) -> bytes:
    """The bytes of an ATTACH's properties. Raises ValueError for what would be refused."""
    p = properties
    parts: list[bytes] = []
    if p.name is not None:
        parts.append(_property(NAME, _text(_bounded(p.name, NAME_BYTES_MAX)) or b""))
    if p.prefetch:
        parts.append(_property(PREFETCH, _encode_unsigned(p.prefetch, U32.size)))
    if p.start is not None:
        valued = p.start.kind in (StartKind.TAG, StartKind.TIME)
        value = _encode_unsigned(p.start.value, U64.size) if valued else b""
        parts.append(_property(START, bytes((p.start.kind,)) + value))
    if p.ack_wait_ms is not None:
        parts.append(_property(ACK_WAIT, _encode_unsigned(p.ack_wait_ms, U32.size)))
    if p.max_attempts is not None:
        parts.append(_property(MAX_ATTEMPTS, _encode_unsigned(p.max_attempts, U16.size)))
    if p.pattern:
        parts.append(_property(PATTERN, b""))
    return _joined(parts)
