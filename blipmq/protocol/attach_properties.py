"""Properties of an ATTACH: what each may hold, not what it does."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

import attrs

from blipmq.errors import BadRequest
from blipmq.protocol.frames import U16, U32, U64
from blipmq.protocol.property_fields import (
    bounded,
    encode_unsigned,
    joined,
    property_bytes,
    text,
    unsigned,
    values,
)

NAME: Final = 32
PREFETCH: Final = 33
START: Final = 34
ACK_WAIT: Final = 35
MAX_ATTEMPTS: Final = 36
PATTERN: Final = 37

NAME_BYTES_MAX: Final = 128

_KNOWN: Final = frozenset(range(NAME, PATTERN + 1))


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


def parse_attach_properties(data: bytes) -> AttachProperties:
    """The properties of an ATTACH.

    Raises BadRequest: `invalid ATTACH payload`, or else `unknown property`.
    """
    try:
        found, _, known = values(data, _KNOWN)
        properties = _attach_properties(found)
    except ValueError:
        raise BadRequest(400, "invalid ATTACH payload") from None
    if not known:
        raise BadRequest(400, "unknown property")
    return properties


def _attach_properties(found: dict[int, bytes]) -> AttachProperties:
    get = found.get
    prefetch, start, ack_wait = get(PREFETCH), get(START), get(ACK_WAIT)
    max_attempts, pattern = get(MAX_ATTEMPTS), get(PATTERN)
    if pattern:
        raise ValueError("the pattern property has a value")
    return AttachProperties(
        text(bounded(get(NAME), NAME_BYTES_MAX)),
        0 if prefetch is None else unsigned(prefetch, U32.size),
        None if start is None else _start(start),
        None if ack_wait is None else unsigned(ack_wait, U32.size),
        None if max_attempts is None else unsigned(max_attempts, U16.size),
        pattern is not None,
    )


def _start(value: bytes) -> Start:
    if not value:
        raise ValueError("an empty start")
    kind = StartKind(value[0])
    if kind in (StartKind.TAG, StartKind.TIME):
        return Start(kind, unsigned(value[1:], U64.size))
    if len(value) != 1:
        raise ValueError("a start that has no value has one")
    return Start(kind)


def encode_attach_properties(properties: AttachProperties) -> bytes:
    """The bytes of an ATTACH's properties. Raises ValueError for what would be refused."""
    p = properties
    parts: list[bytes] = []
    if p.name is not None:
        parts.append(property_bytes(NAME, text(bounded(p.name, NAME_BYTES_MAX)) or b""))
    if p.prefetch:
        parts.append(property_bytes(PREFETCH, encode_unsigned(p.prefetch, U32.size)))
    if p.start is not None:
        valued = p.start.kind in (StartKind.TAG, StartKind.TIME)
        value = encode_unsigned(p.start.value, U64.size) if valued else b""
        parts.append(property_bytes(START, bytes((p.start.kind,)) + value))
    if p.ack_wait_ms is not None:
        parts.append(property_bytes(ACK_WAIT, encode_unsigned(p.ack_wait_ms, U32.size)))
    if p.max_attempts is not None:
        parts.append(property_bytes(MAX_ATTEMPTS, encode_unsigned(p.max_attempts, U16.size)))
    if p.pattern:
        parts.append(property_bytes(PATTERN, b""))
    return joined(parts)
