"""The shape of a frame: types, sizes and bounds. `docs/protocol.md` is the specification.

A frame is a big-endian u32 length of what follows it, a u8 type, a u64 correlation id and
a payload; so it takes `length + 4` bytes, 13 of them before the payload.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Final

import attrs

HELLO: Final = 0x01
AUTH: Final = 0x02
PUBLISH: Final = 0x03
SUBSCRIBE: Final = 0x04
ACK: Final = 0x05
NACK: Final = 0x06
PING: Final = 0x07
PONG: Final = 0x08
POLL: Final = 0x09
INFO: Final = 0x10
DELIVER: Final = 0x11
CONFIRM: Final = 0x12
MESSAGE: Final = 0x13
ATTACH: Final = 0x14
DETACH: Final = 0x15
SETTLE: Final = 0x16

TYPES: Final = {
    HELLO: "HELLO",
    AUTH: "AUTH",
    PUBLISH: "PUBLISH",
    SUBSCRIBE: "SUBSCRIBE",
    ACK: "ACK",
    NACK: "NACK",
    PING: "PING",
    PONG: "PONG",
    POLL: "POLL",
}
"""What version 1 knows."""

TYPES_V2: Final = {
    **TYPES,
    INFO: "INFO",
    DELIVER: "DELIVER",
    CONFIRM: "CONFIRM",
    MESSAGE: "MESSAGE",
    ATTACH: "ATTACH",
    DETACH: "DETACH",
    SETTLE: "SETTLE",
}
"""What version 2 knows: all of them."""


class Outcome(IntEnum):
    """What a SETTLE says of the messages it names."""

    ACCEPT = 0
    RETRY = 1
    REJECT = 2
    EXTEND = 3
    RELEASE = 4


HEADER: Final = struct.Struct(">IBQ")
U16: Final = struct.Struct(">H")
U32: Final = struct.Struct(">I")
U64: Final = struct.Struct(">Q")
SETTLE_ROW: Final = struct.Struct(">BQQI")
"""Outcome, first tag, last tag, delay in ms."""

HEADER_BYTES: Final = 13
LENGTH_BYTES: Final = 4
LENGTH_MIN: Final = 9
LENGTH_MAX: Final = 16_777_216
LENGTH_MAX_UNAUTHENTICATED: Final = 65_546
"""The largest AUTH frame; all that is accepted before authentication."""
LENGTH_MAX_PUBLISH: Final = LENGTH_MAX - 4096
"""The longest PUBLISH or MESSAGE of a client; leaves room for what a delivery may add to it."""

TYPE_AT: Final = 4
CORRELATION_ID_AT: Final = 5
QOS_AT: Final = 13
TOPIC_LENGTH_AT: Final = 14
TOPIC_AT: Final = 16


@attrs.define
class Frame:
    """One frame that is not part of a run: a request, a reply, or a message that is malformed.

    `length` is the frame's length field, in bytes.
    """

    type: int
    correlation_id: int
    payload: bytes

    @property
    def length(self) -> int:
        return LENGTH_MIN + len(self.payload)
