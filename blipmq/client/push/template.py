"""Frames of one topic without properties of their own, from what they have in common."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Sequence
from struct import Struct
from typing import Final, TypeGuard, cast

from blipmq.protocol.frames import CORRELATION_ID_AT, LENGTH_MIN, MESSAGE, PUBLISH, U16, U64
from blipmq.protocol.properties import MESSAGE_ID

QOS0_ID = 2**63 - 1
"""The correlation id of all publishes at QoS 0; those at QoS 1 count up from 1."""
SMALL_BYTES: Final = 1024 * 1024
"""A body for which, whatever the topic, no check of the size is needed."""


class Template:
    """All of a frame but its numbers and its body. It takes `size` bytes.

    With the `prefix` of message ids it is a MESSAGE at QoS 1, whose number is its correlation id
    and the end of its message id; without, a PUBLISH at QoS 0.
    """

    __slots__ = ("_fixed", "_lead", "_pack", "_qos0_body", "_qos0_head", "size", "topic")

    def __init__(self, topic: bytes, prefix: bytes | None) -> None:
        self.topic = topic
        lead = U16.pack(len(topic)) + topic
        if prefix is None:
            self._lead = b"\x00" + lead
            self._pack = Struct(f">IBQ{len(self._lead)}s").pack
        else:
            message_id = bytes((MESSAGE_ID,)) + U16.pack(len(prefix) + U64.size) + prefix
            self._lead = b"\x01" + lead + U16.pack(len(message_id) + U64.size) + message_id
            self._pack = Struct(f">IBQ{len(self._lead)}sQ").pack
        self._fixed = LENGTH_MIN + len(self._lead) + (0 if prefix is None else U64.size)
        self.size = self._fixed + 4
        self._qos0_body, self._qos0_head = -1, b""

    def frame(self, number: int, body: bytes) -> bytes:
        """A frame at QoS 1."""
        return self._pack(self._fixed + len(body), MESSAGE, number, self._lead, number) + body

    def qos0_head(self, body_bytes: int) -> bytes:
        """All of a frame at QoS 0 before its body."""
        if body_bytes != self._qos0_body:
            head = self._pack(self._fixed + body_bytes, PUBLISH, QOS0_ID, self._lead)
            self._qos0_body, self._qos0_head = body_bytes, head
        return self._qos0_head

    def qos0_frames(self, bodies: Sequence[bytes]) -> bytes:
        """Frames at QoS 0, end to end; the bodies have one size."""
        head = self.qos0_head(len(bodies[0]))
        return head + head.join(bodies)

    def frames(self, first: int, bodies: Sequence[bytes]) -> bytearray:
        """Frames at QoS 1 with numbers from `first` on, end to end; the bodies have one size."""
        head = self._pack(self._fixed + len(bodies[0]), MESSAGE, 0, self._lead, 0)
        data = bytearray(head)
        data += head.join(bodies)
        stride = len(head) + len(bodies[0])
        numbers = array("Q", range(first, first + len(bodies)))
        if sys.byteorder == "little":
            numbers.byteswap()
        columns = numbers.tobytes()
        for place in (CORRELATION_ID_AT, len(head) - U64.size):
            for i in range(U64.size):
                data[place + i :: stride] = columns[i :: U64.size]
        return data


def alike(bodies: Sequence[object]) -> TypeGuard[Sequence[bytes]]:
    """Whether they are bytes of one size."""
    if set(map(type, bodies)) != {bytes}:
        return False
    return len(set(map(len, cast(Sequence[bytes], bodies)))) == 1
