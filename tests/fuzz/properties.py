"""Any bytes are properties or are refused; what was read and is written again is read alike.

The first byte of an input says whose properties the rest is: a publisher's, the broker's, those of
an ATTACH; or that it is the payload of an ATTACH, DETACH and SETTLE.
"""

from __future__ import annotations

from typing import Final

from blipmq.errors import BadRequest, Refused
from blipmq.protocol.attach_properties import encode_attach_properties, parse_attach_properties
from blipmq.protocol.properties import (
    edit_properties,
    encode_message_properties,
    parse_message_properties,
    routing,
)
from blipmq.protocol.requests import parse_attach, parse_detach, parse_settle
from tests.fuzz.choices import Choices
from tests.protocol.reference import property_list

_IGNORED_FROM: Final = 64


def check(data: bytes) -> None:
    """Raises for properties that are neither taken nor refused as they must be."""
    choices = Choices(data)
    kind, rest = choices.number() % 4, choices.rest()
    if kind < 2:
        _message(rest, from_client=kind == 0)
    elif kind == 2:
        _attach(rest)
    else:
        _requests(rest)


def _message(data: bytes, *, from_client: bool) -> None:
    try:
        properties = parse_message_properties(data, from_client=from_client)
    except BadRequest:
        _refused_alike(data, from_client)
        return
    assert routing(data, from_client) == (
        properties.ttl_ms,
        properties.delay_ms,
        properties.message_id,
        properties.key,
    )
    letter = properties.dead_letter
    if letter is None or letter.tag < 2**64:
        again = encode_message_properties(properties)
        assert parse_message_properties(again, from_client=from_client) == properties
    found = property_list(data)
    assert found is not None
    removed = {id_ for id_, _ in found[::2]}
    edited = edit_properties(data, removed, b"\x40\0\0", 40)
    kept = property_list(edited)
    assert kept is not None
    assert len(edited) <= 40
    assert kept.pop() == (_IGNORED_FROM, b"")
    assert all(id_ not in removed for id_, _ in kept)


def _refused_alike(data: bytes, from_client: bool) -> None:
    try:
        routing(data, from_client)
    except BadRequest:
        return
    raise AssertionError("what is refused is acted on")


def _attach(data: bytes) -> None:
    try:
        properties = parse_attach_properties(data)
    except BadRequest:
        return
    assert parse_attach_properties(encode_attach_properties(properties)) == properties


def _requests(data: bytes) -> None:
    for parse in (parse_attach, parse_detach, parse_settle):
        try:
            parse(data)
        except Refused:
            continue
