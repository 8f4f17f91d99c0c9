"""A PUBLISH frame from the broker, taken apart."""

from __future__ import annotations

import attrs

from blipmq.errors import FramingError
from blipmq.protocol.frames import QOS_AT, TOPIC_AT, TOPIC_LENGTH_AT, U16, Frame

_HEADER_BYTES = QOS_AT
_PREFIX_BYTES = TOPIC_AT - QOS_AT


@attrs.frozen
class Delivery:
    """A message on its way in. At QoS 1 its correlation id is its delivery tag."""

    correlation_id: int
    qos: int
    topic: bytes
    body: bytes

    @property
    def tag(self) -> int | None:
        return self.correlation_id if self.qos else None


def parse(frame: Frame) -> Delivery:
    """The message in a PUBLISH frame. Raises `FramingError` when there is none."""
    payload = frame.payload
    if len(payload) < _PREFIX_BYTES:
        raise FramingError("a PUBLISH without a topic")
    (topic_bytes,) = U16.unpack_from(payload, TOPIC_LENGTH_AT - _HEADER_BYTES)
    body_at = _PREFIX_BYTES + topic_bytes
    if len(payload) < body_at or payload[0] > 1:
        raise FramingError("a malformed PUBLISH")
    return Delivery(
        frame.correlation_id, payload[0], payload[_PREFIX_BYTES:body_at], payload[body_at:]
    )
