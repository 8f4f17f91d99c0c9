from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blipmq.errors import BadRequest
from blipmq.protocol import attach_properties as ids
from blipmq.protocol.attach_properties import (
    AttachProperties,
    Start,
    StartKind,
    encode_attach_properties,
    parse_attach_properties,
)
from tests.protocol.reference import property_bytes as prop

attach_properties = st.builds(
    AttachProperties,
    name=st.none() | st.text(min_size=1, max_size=32).map(str.encode),
    prefetch=st.integers(0, 2**32 - 1),
    start=st.none()
    | st.builds(Start, st.sampled_from([StartKind.NEW, StartKind.EARLIEST]))
    | st.builds(Start, st.sampled_from([StartKind.TAG, StartKind.TIME]), st.integers(0, 2**64 - 1)),
    ack_wait_ms=st.none() | st.integers(0, 2**32 - 1),
    max_attempts=st.none() | st.integers(0, 2**16 - 1),
    pattern=st.booleans(),
)


@given(attach_properties)
def test_attach_properties_are_read_as_they_were_written(properties: AttachProperties) -> None:
    assert parse_attach_properties(encode_attach_properties(properties)) == properties


def test_no_properties_are_no_bytes() -> None:
    assert encode_attach_properties(AttachProperties()) == b""


@pytest.mark.parametrize(
    ("properties", "expected"),
    [
        (AttachProperties(name=b"n"), "20 0001 6e"),
        (AttachProperties(prefetch=256), "21 0004 00000100"),
        (AttachProperties(start=Start(StartKind.NEW)), "22 0001 00"),
        (AttachProperties(start=Start(StartKind.TIME, 5)), "22 0009 03 0000000000000005"),
        (AttachProperties(ack_wait_ms=1000), "23 0004 000003e8"),
        (AttachProperties(max_attempts=0), "24 0002 0000"),
        (AttachProperties(pattern=True), "25 0000"),
    ],
)
def test_an_attach_property_is_these_bytes(properties: AttachProperties, expected: str) -> None:
    assert encode_attach_properties(properties) == bytes.fromhex(expected)


@pytest.mark.parametrize(
    "data",
    [
        b"\x20\0",
        prop(ids.NAME, b""),
        prop(ids.NAME, b"n" * 129),
        prop(ids.NAME, b"\xff"),
        prop(ids.PREFETCH, bytes(3)),
        prop(ids.START, b""),
        prop(ids.START, b"\4"),
        prop(ids.START, b"\0" + bytes(8)),
        prop(ids.START, b"\2"),
        prop(ids.ACK_WAIT, bytes(8)),
        prop(ids.MAX_ATTEMPTS, bytes(4)),
        prop(ids.PATTERN, b"x"),
        prop(ids.PATTERN, b"") * 2,
    ],
    ids=bytes.hex,
)
def test_malformed_attach_properties_are_refused(data: bytes) -> None:
    with pytest.raises(BadRequest, match="invalid ATTACH payload"):
        parse_attach_properties(data)


@pytest.mark.parametrize("id_", [1, 8, 31, 38, 63])
def test_an_id_below_64_that_is_not_for_attach_is_unknown(id_: int) -> None:
    with pytest.raises(BadRequest, match="unknown property"):
        parse_attach_properties(prop(id_, b""))


@pytest.mark.parametrize("id_", [64, 255])
def test_an_id_from_64_up_is_ignored_however_often_it_stands(id_: int) -> None:
    assert parse_attach_properties(prop(id_, b"") * 2) == AttachProperties()


@pytest.mark.parametrize(
    "properties",
    [
        AttachProperties(name=b""),
        AttachProperties(name=bytes(129)),
        AttachProperties(prefetch=2**32),
        AttachProperties(start=Start(StartKind.TAG, -1)),
        AttachProperties(max_attempts=2**16),
    ],
)
def test_attach_properties_that_would_be_refused_are_not_written(
    properties: AttachProperties,
) -> None:
    with pytest.raises(ValueError, match=" "):
        encode_attach_properties(properties)
