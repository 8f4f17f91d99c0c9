"""The frame format once more, read frame by frame: what the decoder is held against."""

from __future__ import annotations

import struct
from collections.abc import Callable

import attrs

from blipmq.protocol.decoder import Item
from blipmq.protocol.run import Run
from blipmq.protocol.span import Span

KNOWN_TYPES = range(1, 10)
KNOWN_TYPES_V2 = [*KNOWN_TYPES, *range(0x10, 0x17)]
PUBLISH = 3
MESSAGE = 0x13
TTL, DELAY, MESSAGE_ID, KEY = 1, 2, 3, 4
MIB = 1024 * 1024


@attrs.frozen
class Read:
    """One frame. `message`: one that is well-formed, so that it belongs to a run."""

    type: int
    correlation_id: int
    payload: bytes
    message: bool = False

    @property
    def data(self) -> bytes:
        return struct.pack(">IBQ", 9 + len(self.payload), self.type, self.correlation_id) + (
            self.payload
        )

    @property
    def properties(self) -> bytes:
        """The encoded properties of a well-formed MESSAGE."""
        rest = self.payload[3 + int.from_bytes(self.payload[1:3], "big") :]
        return rest[2 : 2 + int.from_bytes(rest[:2], "big")]

    def value(self, id_: int) -> bytes | None:
        """Its value in a well-formed message."""
        if self.type == PUBLISH:
            return None
        return dict(property_list(self.properties) or []).get(id_)

    @property
    def shared(self) -> tuple[int, bytes, int | None, int]:
        """What the messages of a run share: type, QoS and topic, ttl and delay."""
        ttl, delay = self.value(TTL), self.value(DELAY)
        return (
            self.type,
            self.payload[: 3 + int.from_bytes(self.payload[1:3], "big")],
            None if ttl is None else int.from_bytes(ttl, "big"),
            int.from_bytes(delay or b"", "big"),
        )


def property_bytes(id_: int, value: bytes) -> bytes:
    return struct.pack(">BH", id_, len(value)) + value


def property_list(data: bytes) -> list[tuple[int, bytes]] | None:
    """Id and value of each property; None if they do not fill the data."""
    found: list[tuple[int, bytes]] = []
    while data:
        size = int.from_bytes(data[1:3], "big")
        if len(data) < 3 + size:
            return None
        found.append((data[0], data[3 : 3 + size]))
        data = data[3 + size :]
    return found


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _is_duration(value: bytes) -> bool:
    return len(value) == 8 and int.from_bytes(value, "big") <= 2**53


def _is_header(value: bytes) -> bool:
    return bool(value) and len(value) > value[0] and _is_utf8(value[1 : 1 + value[0]])


_ALLOWED: dict[int, Callable[[bytes], bool]] = {
    TTL: _is_duration,
    DELAY: _is_duration,
    MESSAGE_ID: lambda value: 1 <= len(value) <= 128,
    KEY: lambda value: len(value) <= 1024,
    5: lambda value: bool(value) and _is_utf8(value),
    6: _is_utf8,
    7: _is_utf8,
    8: _is_header,
    9: lambda value: len(value) == 8,
}
"""What a client may say in each property."""


def _are_properties(data: bytes, qos: int) -> bool:
    found = property_list(data)
    if found is None:
        return False
    looked_at = [(id_, value) for id_, value in found if id_ < 64]
    once = [id_ for id_, _ in looked_at if id_ != 8]
    return (
        all(id_ in _ALLOWED and _ALLOWED[id_](value) for id_, value in looked_at)
        and len(once) == len(set(once))
        and not (qos == 0 and dict(found).get(DELAY, bytes(8)) != bytes(8))
    )


def _is_message(type_: int, payload: bytes, properties_max: int) -> bool:
    if type_ not in (PUBLISH, MESSAGE) or len(payload) < 3 or 9 + len(payload) > 16 * MIB - 4096:
        return False
    qos, topic_length = struct.unpack_from(">BH", payload)
    topic, rest = payload[3 : 3 + topic_length], payload[3 + topic_length :]
    if not (qos <= 1 and 0 < topic_length == len(topic) and _is_utf8(topic)):
        return False
    if type_ == PUBLISH:
        return True
    size = int.from_bytes(rest[:2], "big")
    if not len(rest) >= 2 + size >= 2 or size > properties_max:
        return False
    return _are_properties(rest[2 : 2 + size], qos)


def read(
    data: bytes, length_max: int = 16 * MIB, version: int = 1, properties_max: int = 65_535
) -> tuple[list[Read], bool]:
    """The whole frames that `data` begins with, and whether a framing error ends them."""
    frames: list[Read] = []
    at = 0
    while len(data) - at >= 4:
        (length,) = struct.unpack_from(">I", data, at)
        if not 9 <= length <= length_max:
            return frames, True
        if len(data) - at < 4 + length:
            break
        type_, correlation_id = struct.unpack_from(">BQ", data, at + 4)
        if type_ not in (KNOWN_TYPES if version == 1 else KNOWN_TYPES_V2):
            return frames, True
        payload = data[at + 13 : at + 4 + length]
        message = _is_message(type_, payload, properties_max)
        frames.append(Read(type_, correlation_id, payload, message))
        at += 4 + length
    return frames, False


def read_run(run: Run) -> list[Read]:
    """The messages of a run, by its offset table; each is checked to be one whole frame of it."""
    messages: list[Read] = []
    for index in range(run.count):
        (message,), broken = read(bytes(run.data(index, index + 1)), version=2)
        head = struct.pack(">BH", run.qos, len(run.topic)) + run.topic
        assert not broken
        assert message.shared == (run.type, head, run.ttl_ms, run.delay_ms)
        if run.type == MESSAGE:
            head += struct.pack(">H", len(message.properties)) + message.properties
        assert message.payload == head + run.body(index)
        messages.append(message)
    for found, id_ in ((run.message_ids, MESSAGE_ID), (run.keys, KEY)):
        expected = [message.value(id_) for message in messages]
        assert found == (expected if any(value is not None for value in expected) else None)
    return messages


def read_span(span: Span) -> list[Read]:
    """The frames of a span; they are what it says they are."""
    messages = []
    frames = [bytes(span.data(i, i + 1)) for i in range(span.count)]
    assert b"".join(frames) == span.data() == span.at_qos0(0, span.count)
    assert len(set(span.topics)) > 1
    for frame, topic, id_ in zip(frames, span.topics, span.correlation_ids(), strict=True):
        (message,) = read(frame)[0]
        assert message.message
        assert message.type == PUBLISH
        assert message.payload.startswith(struct.pack(">BH", 0, len(topic)) + topic)
        assert message.correlation_id == id_
        messages.append(message)
    return messages


def read_item(item: Item) -> list[Read]:
    """What the decoder gave, as frames."""
    if isinstance(item, Run):
        return read_run(item)
    if isinstance(item, Span):
        return read_span(item)
    return [Read(item.type, item.correlation_id, item.payload)]
