"""What the broker sends unasked on version 2, as a client reads it."""

from __future__ import annotations

import json

from blipmq.errors import FramingError
from blipmq.protocol.frames import U16, U64


def parse_detached(payload: bytes) -> tuple[int, str]:
    """Subscription id and reason of a broker's DETACH. Raises FramingError."""
    head = U64.size + U16.size
    if len(payload) < head or len(payload) != head + U16.unpack_from(payload, U64.size)[0]:
        raise FramingError("a malformed DETACH")
    return U64.unpack_from(payload)[0], payload[head:].decode(errors="replace")


def parse_info(payload: bytes) -> dict[str, object]:
    """The document of an INFO. Raises FramingError."""
    try:
        document = json.loads(payload)
    except (ValueError, RecursionError):
        raise FramingError("an INFO that is no JSON") from None
    if not isinstance(document, dict):
        raise FramingError("an INFO that is no JSON object")
    return document
