"""The frame format once more, read frame by frame: what the decoder is held against."""

from __future__ import annotations

import struct

import attrs

from blipmq.protocol.frames import Frame
from blipmq.protocol.run import Run

KNOWN_TYPES = range(1, 10)
PUBLISH = 3
MIB = 1024 * 1024


@attrs.frozen
class Read:
    """One frame. `message`: a PUBLISH that is well-formed, so that it belongs to a run."""

    type: int
    correlation_id: int
    payload: bytes
    message: bool = False

    @property
    def data(self) -> bytes:
        return struct.pack(">IBQ", 9 + len(self.payload), self.type, self.correlation_id) + (
            self.payload
        )


def _is_message(type_: int, payload: bytes) -> bool:
    if type_ != PUBLISH or len(payload) < 3 or 9 + len(payload) > 16 * MIB - 4096:
        return False
    qos, topic_length = struct.unpack_from(">BH", payload)
    topic = payload[3 : 3 + topic_length]
    try:
        topic.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return bool(qos <= 1 and 0 < topic_length == len(topic))


def read(data: bytes, length_max: int = 16 * MIB) -> tuple[list[Read], bool]:
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
        if type_ not in KNOWN_TYPES:
            return frames, True
        payload = data[at + 13 : at + 4 + length]
        frames.append(Read(type_, correlation_id, payload, _is_message(type_, payload)))
        at += 4 + length
    return frames, False


def read_run(run: Run) -> list[Read]:
    """The messages of a run, by its offset table; each is checked to be one whole frame of it."""
    messages: list[Read] = []
    for index in range(run.count):
        (message,), broken = read(bytes(run.data(index, index + 1)))
        head = struct.pack(">BH", run.qos, len(run.topic)) + run.topic
        assert not broken
        assert message.payload == head + run.body(index)
        messages.append(message)
    return messages


def read_item(item: Run | Frame) -> list[Read]:
    """What the decoder gave, as frames."""
    if isinstance(item, Run):
        return read_run(item)
    return [Read(item.type, item.correlation_id, item.payload)]
