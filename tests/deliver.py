"""The messages of a DELIVER as a test reads them: frame by frame, with nothing left over."""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from blipmq.protocol.frames import (
    HEADER,
    LENGTH_BYTES,
    MESSAGE,
    PUBLISH,
    QOS_AT,
    TOPIC_LENGTH_AT,
    U16,
)


@attrs.frozen
class Inner:
    """One inner frame; `properties` are None in a PUBLISH."""

    tag: int
    qos: int
    topic: bytes
    properties: bytes | None
    body: bytes


def inner_frames(payload: bytes) -> Iterator[Inner]:
    """Raises AssertionError, or struct.error, where they do not fit."""
    assert payload
    while payload:
        length, type_, tag = HEADER.unpack_from(payload)
        frame, payload = payload[: LENGTH_BYTES + length], payload[LENGTH_BYTES + length :]
        assert len(frame) == LENGTH_BYTES + length
        assert type_ in (PUBLISH, MESSAGE)
        topic, rest = _counted(frame[TOPIC_LENGTH_AT:])
        properties = None
        if type_ == MESSAGE:
            properties, rest = _counted(rest)
        yield Inner(tag, frame[QOS_AT], topic, properties, rest)


def _counted(data: bytes) -> tuple[bytes, bytes]:
    """What a u16 says the length of, and what is behind it."""
    end = U16.size + int(U16.unpack_from(data)[0])
    assert end <= len(data)
    return data[U16.size : end], data[end:]
