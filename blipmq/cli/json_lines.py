"""Messages as JSON Lines: an object a line.

    topic           text
    number          its number in the log it was exported from
    qos             1
    time            when it was logged, ISO 8601 in UTC
    body            text; or, when that is not UTF-8,
    body_base64     its bytes
    properties      object, as in `json_properties`; missing when it has none
    subscriptions   ids of the subscriptions that want it
    kept            true when it waits for a first subscription; else missing
    delayed         true when it is to be published yet, `delay_ms` after `time`; else missing

To be imported a line needs the topic and a body, may have a time and properties, and all else is
ignored.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from blipmq.protocol.json_properties import (
    bytes_json,
    json_bytes,
    json_properties,
    properties_json,
    utf8,
)
from blipmq.protocol.properties import NO_PROPERTIES
from blipmq.wal.transfer import StoredMessage

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_encode = json.JSONEncoder(ensure_ascii=False).encode


@lru_cache(1)
def time_text(time_ms: int) -> str | None:
    """ISO 8601 in UTC; None for 0, and for times beyond the year 9999."""
    try:
        time = _EPOCH + timedelta(milliseconds=time_ms)
    except OverflowError:
        return None
    text = time.replace(tzinfo=None).isoformat(timespec="milliseconds")
    return f"{text}Z" if time_ms else None


def to_line(message: StoredMessage) -> str:
    """The line of a message, without its end."""
    fields: dict[str, object] = {
        "topic": message.topic.decode(),
        "number": message.number,
        "qos": message.qos,
        "time": time_text(message.time_ms),
    }
    fields |= bytes_json("body", message.body)
    if message.properties != NO_PROPERTIES:
        fields["properties"] = properties_json(message.properties)
    fields["subscriptions"] = message.subscriptions
    if message.kept:
        fields["kept"] = True
    if message.delayed:
        fields["delayed"] = True
    return _encode(fields)


def from_line(line: str | bytes) -> StoredMessage:
    """The message of a line, without number and subscriptions: they are of another log.

    Raises ValueError saying what is wrong.
    """
    try:
        fields = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"this is not JSON: {error.msg}, column {error.colno}") from None
    except UnicodeDecodeError:
        raise ValueError("this is not UTF-8") from None
    if not isinstance(fields, dict):
        raise ValueError("expected a JSON object")
    topic = fields.get("topic")
    if not isinstance(topic, str):
        raise ValueError("expected a text as `topic`")
    message = StoredMessage(
        utf8(topic),
        _body(fields),
        time_ms=_time_ms(fields.get("time")),
        properties=json_properties(fields.get("properties", {})),
    )
    message.check()
    return message


def _body(fields: dict[str, object]) -> bytes:
    match fields:
        case {"body": str()} if "body_base64" not in fields:
            pass
        case {"body_base64": str()} if "body" not in fields:
            pass
        case _:
            raise ValueError("expected either a text as `body` or base64 as `body_base64`")
    return json_bytes(fields, "body") or b""


def _time_ms(value: object) -> int:
    if value is None:
        return 0
    try:
        time = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        time = None
    if time is None or time.tzinfo is None:
        raise ValueError("expected ISO 8601 with its offset from UTC as `time`")
    return max(0, (time - _EPOCH) // timedelta(milliseconds=1))
