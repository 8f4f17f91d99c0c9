"""Requests of version 2 as the broker reads them, and how a malformed one is refused."""

from __future__ import annotations

from blipmq.errors import BadRequest, Refused, TooLarge
from blipmq.protocol.attach_properties import AttachProperties, parse_attach_properties
from blipmq.protocol.frames import LENGTH_MAX_PUBLISH, SETTLE_ROW, U16, U64, Outcome
from blipmq.protocol.properties import read_message_properties


def parse_topic(data: bytes, request: str) -> bytes:
    """The topic that `data` begins with, after its length; it may be empty.

    Raises BadRequest `invalid <request> payload`.
    """
    topic = data[U16.size : U16.size + int.from_bytes(data[: U16.size], "big")]
    try:
        topic.decode()
    except UnicodeDecodeError:
        raise BadRequest(400, f"invalid {request} payload") from None
    if len(data) < U16.size or len(topic) != U16.unpack_from(data)[0]:
        raise BadRequest(400, f"invalid {request} payload")
    return topic


def parse_attach(payload: bytes) -> tuple[bytes, int, AttachProperties]:
    """Topic or pattern, QoS and properties of an ATTACH. Raises BadRequest."""
    topic = parse_topic(payload, "ATTACH")
    rest = payload[U16.size + len(topic) :]
    if len(rest) < 1 + U16.size or len(rest) != 1 + U16.size + U16.unpack_from(rest, 1)[0]:
        raise BadRequest(400, "invalid ATTACH payload")
    if not topic:
        raise BadRequest(400, "empty topic")
    if rest[0] > 1:
        raise BadRequest(400, "invalid QoS value")
    return topic, rest[0], parse_attach_properties(rest[1 + U16.size :])


def parse_detach(payload: bytes) -> tuple[int, bool]:
    """Subscription id of a DETACH, and whether to delete the subscription. Raises BadRequest."""
    if len(payload) != U64.size + 1 or payload[U64.size] > 1:
        raise BadRequest(400, "invalid DETACH payload")
    return U64.unpack_from(payload)[0], bool(payload[U64.size])


def parse_settle(payload: bytes) -> list[tuple[Outcome, int, int, int]]:
    """The rows of a SETTLE: outcome, first tag, last tag, delay in ms. Raises BadRequest."""
    if not payload or len(payload) % SETTLE_ROW.size:
        raise BadRequest(400, "invalid SETTLE payload")
    rows: list[tuple[Outcome, int, int, int]] = []
    for outcome, first, last, delay_ms in SETTLE_ROW.iter_unpack(payload):
        if outcome >= len(_OUTCOMES) or first > last:
            raise BadRequest(400, "invalid SETTLE payload")
        rows.append((_OUTCOMES[outcome], first, last, delay_ms))
    return rows


_OUTCOMES = tuple(Outcome)


def message_refusal(payload: bytes, length: int, properties_max: int) -> Refused:
    """What is wrong with a MESSAGE that a decoder with this bound took for malformed.

    `length` is its frame's length field, in bytes.
    """
    try:
        _check_message(payload, length, properties_max)
    except Refused as refused:
        return refused
    raise AssertionError("the message is well-formed")


def _check_message(payload: bytes, length: int, properties_max: int) -> None:
    topic = parse_topic(payload[1:], "MESSAGE")
    rest = payload[1 + U16.size + len(topic) :]
    size = U16.unpack_from(rest)[0] if len(rest) >= U16.size else None
    if size is None or U16.size + size > len(rest):
        raise BadRequest(400, "invalid MESSAGE payload")
    if not topic:
        raise BadRequest(400, "empty topic")
    if payload[0] > 1:
        raise BadRequest(400, "invalid QoS value")
    if length > LENGTH_MAX_PUBLISH:
        raise TooLarge(413, "message too large")
    properties, known = read_message_properties(rest[U16.size : U16.size + size], from_client=True)
    if properties.delay_ms and not payload[0]:
        raise BadRequest(400, "invalid MESSAGE payload")
    if size > properties_max:
        raise TooLarge(413, "properties too large")
    if not known:
        raise BadRequest(400, "unknown property")
