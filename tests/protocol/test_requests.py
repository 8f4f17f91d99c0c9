from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blipmq.errors import BadRequest
from blipmq.protocol import encoder
from blipmq.protocol.attach_properties import AttachProperties, encode_attach_properties
from blipmq.protocol.frames import LENGTH_MAX_PUBLISH, Outcome
from blipmq.protocol.properties import DELAY, KEY
from blipmq.protocol.requests import (
    message_refusal,
    parse_attach,
    parse_detach,
    parse_settle,
)
from tests.protocol.reference import property_bytes as prop

u64 = st.integers(0, 2**64 - 1)


def test_an_attach_is_read_as_it_was_written() -> None:
    properties = AttachProperties(name=b"workers", prefetch=10)
    frame = encoder.attach(1, b"topic", 1, encode_attach_properties(properties))

    assert parse_attach(frame[13:]) == (b"topic", 1, properties)


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (b"", "invalid ATTACH payload"),
        (b"\0", "invalid ATTACH payload"),
        (b"\0\2t", "invalid ATTACH payload"),
        (b"\0\1t", "invalid ATTACH payload"),
        (b"\0\1t\0\0", "invalid ATTACH payload"),
        (b"\0\1t\0\0\1", "invalid ATTACH payload"),
        (b"\0\1t\0\0\0x", "invalid ATTACH payload"),
        (b"\0\1\xff\0\0\0", "invalid ATTACH payload"),
        (b"\0\0\2\0\0", "empty topic"),
        (b"\0\1t\2\0\1\x20", "invalid QoS value"),
        (b"\0\1t\1\0\1\x20", "invalid ATTACH payload"),
        (b"\0\1t\1\0\3\x3f\0\0", "unknown property"),
    ],
)
def test_a_malformed_attach_is_refused(payload: bytes, message: str) -> None:
    with pytest.raises(BadRequest) as refused:
        parse_attach(payload)

    assert (refused.value.code, refused.value.message) == (400, message)


@given(u64, st.booleans())
def test_a_detach_is_read_as_it_was_written(id_: int, delete: bool) -> None:
    assert parse_detach(encoder.detach(1, id_, delete=delete)[13:]) == (id_, delete)


@pytest.mark.parametrize("payload", [b"", bytes(8), bytes(10), bytes(8) + b"\2"], ids=bytes.hex)
def test_a_malformed_detach_is_refused(payload: bytes) -> None:
    with pytest.raises(BadRequest, match="invalid DETACH payload"):
        parse_detach(payload)


@given(
    st.lists(
        st.tuples(st.sampled_from(Outcome), u64, u64, st.integers(0, 2**32 - 1)).map(
            lambda row: (row[0], min(row[1:3]), max(row[1:3]), row[3])
        ),
        min_size=1,
    )
)
def test_a_settle_is_read_as_it_was_written(rows: list[tuple[Outcome, int, int, int]]) -> None:
    read = parse_settle(encoder.settle(1, rows)[13:])

    assert read == rows
    assert all(isinstance(row[0], Outcome) for row in read)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        encoder.settle(1, [(0, 1, 1, 0)])[13:-1],
        encoder.settle(1, [(0, 1, 1, 0)])[13:] + b"\0",
        encoder.settle(1, [(0, 1, 1, 0), (5, 1, 1, 0)])[13:],
        encoder.settle(1, [(0, 2, 1, 0)])[13:],
    ],
    ids=bytes.hex,
)
def test_a_malformed_settle_is_refused(payload: bytes) -> None:
    with pytest.raises(BadRequest, match="invalid SETTLE payload"):
        parse_settle(payload)


def refusal(payload: bytes, properties_max: int = 100) -> tuple[int, str]:
    refused = message_refusal(payload, 9 + len(payload), properties_max)
    return refused.code, refused.message


def message(qos: int, topic: bytes, properties: bytes, body: bytes = b"") -> bytes:
    return encoder.message(1, qos, topic, properties, body)[13:]


TOO_LONG = bytes(LENGTH_MAX_PUBLISH)
INVALID = (400, "invalid MESSAGE payload")


@pytest.mark.parametrize(
    ("payload", "answer"),
    [
        (b"", INVALID),
        (b"\1\0", INVALID),
        (b"\1\0\1", INVALID),
        (b"\1\0\1t", INVALID),
        (b"\1\0\1t\0", INVALID),
        (b"\1\0\1t\0\1", INVALID),
        (b"\2\0\1\xff\0\0", INVALID),
        (b"\2\0\0\0\1", INVALID),
        (message(2, b"", b"x", TOO_LONG), (400, "empty topic")),
        (message(2, b"t", b"x", TOO_LONG), (400, "invalid QoS value")),
        (message(1, b"t", b"x", TOO_LONG), (413, "message too large")),
        (message(1, b"t", b"x"), INVALID),
        (message(1, b"t", prop(63, bytes(200)) + b"x"), INVALID),
        (message(0, b"t", prop(DELAY, bytes(7) + b"\1")), INVALID),
        (message(0, b"t", prop(DELAY, bytes(7) + b"\1") + prop(63, bytes(100))), INVALID),
        (message(1, b"t", prop(63, bytes(200))), (413, "properties too large")),
        (message(1, b"t", prop(KEY, bytes(98))), (413, "properties too large")),
        (message(1, b"t", prop(63, b"")), (400, "unknown property")),
        (message(1, b"t", prop(16, b"\0\2")), (400, "unknown property")),
    ],
)
def test_a_message_is_refused_for_the_first_thing_that_is_wrong(
    payload: bytes, answer: tuple[int, str]
) -> None:
    assert refusal(payload) == answer
