"""A received message as a line of JSON, in the fields of `json_lines`."""

from __future__ import annotations

import json

from blipmq.client.message import Message
from blipmq.protocol.json_properties import bytes_json, properties_json
from blipmq.protocol.properties import NO_PROPERTIES

_encode = json.JSONEncoder(ensure_ascii=False).encode


def message_line(message: Message) -> bytes:
    """The line, with its end. `number` is the tag, `attempt` is there from the second one on."""
    fields: dict[str, object] = {"topic": message.topic, "qos": message.qos}
    if message.tag is not None:
        fields["number"] = message.tag
    if message.attempt > 1:
        fields["attempt"] = message.attempt
    fields |= bytes_json("body", message.body)
    if message.properties != NO_PROPERTIES:
        fields["properties"] = properties_json(message.properties)
    return _encode(fields).encode("utf-8", "replace") + b"\n"
