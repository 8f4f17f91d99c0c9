"""The properties of a message as JSON.

    ttl_ms, delay_ms, timestamp_ms   numbers
    message_id, key, reply_to        text; or, as `message_id_base64` and so on, bytes
    content_type, trace_context      text
    headers                          list of objects of `name`, and `value` or `value_base64`
    dead_letter                      object of `reason`, `topic`, `number`, `subscription`

What a message does not have is missing.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Final

from blipmq.protocol.properties import DeadLetter, MessageProperties

_NUMBERS: Final = ("ttl_ms", "delay_ms", "timestamp_ms")
_BYTES: Final = ("message_id", "key", "reply_to")
_TEXTS: Final = ("content_type", "trace_context")
_BASE64: Final = "_base64"


def properties_json(properties: MessageProperties) -> dict[str, object]:
    """What `json_properties` takes back."""
    fields: dict[str, object] = {}
    for name in (*_NUMBERS, *_TEXTS):
        value = getattr(properties, name)
        if value is not None and (value or name != "delay_ms"):
            fields[name] = value
    for name in _BYTES:
        fields |= bytes_json(name, getattr(properties, name))
    if properties.headers:
        headers = properties.headers
        fields["headers"] = [
            {"name": name, **bytes_json("value", value)} for name, value in headers
        ]
    letter = properties.dead_letter
    if letter is not None:
        fields["dead_letter"] = {
            "reason": letter.reason,
            **bytes_json("topic", letter.topic),
            "number": letter.tag,
            **bytes_json("subscription", letter.subscription),
        }
    return fields


def json_properties(fields: object) -> MessageProperties:
    """The properties that an object says. Raises ValueError saying what is wrong."""
    if not isinstance(fields, dict):
        raise ValueError("expected a JSON object as `properties`")
    known = {*_NUMBERS, *_TEXTS, *_BYTES, *(name + _BASE64 for name in _BYTES)}
    for name in fields:
        if name not in known | {"headers", "dead_letter"}:
            raise ValueError(f"`properties` has an unknown field `{name}`")
    return MessageProperties(
        ttl_ms=_number(fields, "ttl_ms"),
        delay_ms=_number(fields, "delay_ms") or 0,
        message_id=json_bytes(fields, "message_id"),
        key=json_bytes(fields, "key"),
        reply_to=json_bytes(fields, "reply_to"),
        content_type=_text(fields, "content_type"),
        trace_context=_text(fields, "trace_context"),
        headers=_headers(fields.get("headers", [])),
        timestamp_ms=_number(fields, "timestamp_ms"),
        dead_letter=_dead_letter(fields.get("dead_letter")),
    )


def bytes_json(name: str, value: bytes | None) -> dict[str, object]:
    """The field of a value: as text, or as base64 under another name; none of None."""
    if value is None:
        return {}
    try:
        return {name: value.decode()}
    except UnicodeDecodeError:
        return {name + _BASE64: base64.b64encode(value).decode()}


def json_bytes(fields: Mapping[str, object], name: str) -> bytes | None:
    """The value that `bytes_json` wrote. Raises ValueError."""
    text, encoded = _text(fields, name), _text(fields, name + _BASE64)
    if encoded is None:
        return None if text is None else utf8(text)
    if text is not None:
        raise ValueError(f"expected either `{name}` or `{name}{_BASE64}`")
    try:
        return base64.b64decode(encoded, validate=True)
    except ValueError:
        raise ValueError(f"`{name}{_BASE64}` is not base64") from None


def utf8(text: str) -> bytes:
    """Raises ValueError for what no text has."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise ValueError("there is half of a surrogate pair in the text") from None


def _number(fields: Mapping[str, object], name: str) -> int | None:
    value = fields.get(name)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"expected a whole number from 0 up as `{name}`")
    return value


def _text(fields: Mapping[str, object], name: str) -> str | None:
    value = fields.get(name)
    if value is None:
        return None
    if not isinstance(value, str):
        raise ValueError(f"expected a text as `{name}`")
    utf8(value)
    return value


def _headers(value: object) -> tuple[tuple[str, bytes], ...]:
    if not isinstance(value, list):
        raise ValueError("expected a list as `headers`")
    headers = []
    for header in value:
        if not isinstance(header, dict):
            raise ValueError("expected JSON objects in `headers`")
        name, content = _text(header, "name"), json_bytes(header, "value")
        if name is None or content is None:
            raise ValueError("expected a `name` and a `value` or `value_base64` of each header")
        headers.append((name, content))
    return tuple(headers)


def _dead_letter(value: object) -> DeadLetter | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        raise ValueError("expected a JSON object as `dead_letter`")
    reason, number = _text(value, "reason"), _number(value, "number")
    topic, subscription = json_bytes(value, "topic"), json_bytes(value, "subscription")
    if reason is None or number is None or topic is None or subscription is None:
        fields = "`reason`, `topic`, `number` and `subscription`"
        raise ValueError(f"expected {fields} of `dead_letter`")
    return DeadLetter(reason, topic, number, subscription)
