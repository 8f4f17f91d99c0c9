"""Topics as text, which programs use, and as bytes, which the wire carries.

The protocol wants UTF-8. A topic that came as something else is shown with surrogate escapes,
and cannot be sent.
"""

from __future__ import annotations

from typing import Final

TOPIC_BYTES_MAX: Final = 65_535


def encoded(topic: str) -> bytes:
    """Raises `ValueError` when it is empty, longer than 65 535 bytes or not to be had as UTF-8."""
    if not topic:
        raise ValueError("empty topic")
    try:
        data = topic.encode()
    except UnicodeEncodeError:
        raise ValueError(f"there is half of a surrogate pair in the topic {topic!r}") from None
    if len(data) > TOPIC_BYTES_MAX:
        raise ValueError(f"a topic of {len(data)} bytes; at most {TOPIC_BYTES_MAX} fit")
    return data


def decoded(topic: bytes) -> str:
    return topic.decode(errors="surrogateescape")


def checked_qos(qos: int) -> int:
    """Raises `ValueError` unless it is 0 or 1."""
    if qos not in (0, 1):
        raise ValueError(f"invalid QoS value {qos!r}; expected 0 or 1")
    return int(qos)
