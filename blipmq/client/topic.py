"""Topics as text, which programs use, and as bytes, which the wire carries.

A topic that is not UTF-8 comes as text with surrogate escapes, and goes out as it came.
"""

from __future__ import annotations

from typing import Final

TOPIC_BYTES_MAX: Final = 65_535


def encoded(topic: str) -> bytes:
    """Raises `ValueError` when it is empty or longer than 65 535 bytes."""
    if not topic:
        raise ValueError("empty topic")
    data = topic.encode(errors="surrogateescape")
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
