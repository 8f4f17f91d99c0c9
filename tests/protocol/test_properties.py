from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blipmq.errors import BadRequest
from blipmq.protocol import properties as ids
from blipmq.protocol.properties import (
    DeadLetter,
    MessageProperties,
    edit_properties,
    encode_message_properties,
    parse_message_properties,
    routing,
)
from tests.protocol.reference import property_bytes as prop
from tests.protocol.reference import property_list

texts = st.text(max_size=20)
durations = st.integers(0, 2**53)
message_properties = st.builds(
    MessageProperties,
    ttl_ms=st.none() | durations,
    delay_ms=durations,
    message_id=st.none() | st.binary(min_size=1, max_size=128),
    key=st.none() | st.binary(max_size=1024),
    reply_to=st.none() | st.text(min_size=1, max_size=20).map(str.encode),
    content_type=st.none() | texts,
    trace_context=st.none() | texts,
    headers=st.lists(st.tuples(texts, st.binary(max_size=20)), max_size=3).map(tuple),
    timestamp_ms=st.none() | st.integers(0, 2**64 - 1),
)
dead_letters = st.builds(
    DeadLetter,
    reason=st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20),
    topic=st.text(st.characters(exclude_categories=["Cs", "Nd"]), max_size=20).map(str.encode),
    tag=st.integers(0, 2**64 - 1),
    subscription=st.binary(max_size=20),
)


@given(message_properties)
def test_message_properties_are_read_as_they_were_written(properties: MessageProperties) -> None:
    encoded = encode_message_properties(properties)

    assert parse_message_properties(encoded, from_client=True) == properties


@given(st.integers(2, 2**16 - 1), dead_letters)
def test_what_the_broker_adds_is_read_as_it_was_written(attempt: int, letter: DeadLetter) -> None:
    properties = MessageProperties(attempt=attempt, dead_letter=letter)
    encoded = encode_message_properties(properties)

    assert parse_message_properties(encoded, from_client=False) == properties


def test_no_properties_are_no_bytes() -> None:
    assert encode_message_properties(MessageProperties()) == b""


@pytest.mark.parametrize(
    ("properties", "expected"),
    [
        (MessageProperties(ttl_ms=0), "01 0008 0000000000000000"),
        (MessageProperties(delay_ms=258), "02 0008 0000000000000102"),
        (MessageProperties(message_id=b"id"), "03 0002 6964"),
        (MessageProperties(key=b"k"), "04 0001 6b"),
        (MessageProperties(reply_to=b"r"), "05 0001 72"),
        (MessageProperties(content_type="c"), "06 0001 63"),
        (MessageProperties(trace_context="t"), "07 0001 74"),
        (MessageProperties(headers=(("n", b"v"), ("", b""))), "08 0003 016e76 08 0001 00"),
        (MessageProperties(timestamp_ms=1), "09 0008 0000000000000001"),
        (MessageProperties(attempt=2), "10 0002 0002"),
        (
            MessageProperties(dead_letter=DeadLetter("why", b"t", 12, b"s")),
            "11 000a 776879 00 74 00 3132 00 73",
        ),
    ],
)
def test_a_message_property_is_these_bytes(properties: MessageProperties, expected: str) -> None:
    assert encode_message_properties(properties) == bytes.fromhex(expected)


MALFORMED_FOR_MESSAGE = [
    b"\x03",
    b"\x03\0",
    b"\x03\0\2x",
    prop(ids.TTL, bytes(7)),
    prop(ids.TTL, bytes(9)),
    prop(ids.TTL, (2**53 + 1).to_bytes(8, "big")),
    prop(ids.DELAY, b""),
    prop(ids.DELAY, (2**53 + 1).to_bytes(8, "big")),
    prop(ids.MESSAGE_ID, b""),
    prop(ids.MESSAGE_ID, bytes(129)),
    prop(ids.KEY, bytes(1025)),
    prop(ids.REPLY_TO, b""),
    prop(ids.REPLY_TO, b"\xff"),
    prop(ids.CONTENT_TYPE, b"\xff"),
    prop(ids.TRACE_CONTEXT, b"\xc3"),
    prop(ids.HEADER, b""),
    prop(ids.HEADER, b"\1"),
    prop(ids.HEADER, b"\1\xffvalue"),
    prop(ids.TIMESTAMP, bytes(4)),
    prop(ids.KEY, b"k") * 2,
    prop(ids.TTL, bytes(8)) + prop(ids.MESSAGE_ID, b"m") + prop(ids.TTL, bytes(8)),
]


@pytest.mark.parametrize("data", MALFORMED_FOR_MESSAGE, ids=bytes.hex)
def test_malformed_message_properties_are_refused(data: bytes) -> None:
    with pytest.raises(BadRequest, match="invalid MESSAGE payload"):
        parse_message_properties(data, from_client=True)


@pytest.mark.parametrize(
    "value", [b"", b"why\0t\0x\0s", b"why\0t\0", b"\xff\0t\0001\0s", b"why\0t\x001"]
)
def test_a_malformed_dead_letter_property_is_refused(value: bytes) -> None:
    with pytest.raises(BadRequest, match="invalid MESSAGE payload"):
        parse_message_properties(prop(ids.DEAD_LETTER, value), from_client=False)


@pytest.mark.parametrize("id_", [0, 10, 16, 17, 18, 32, 63])
def test_an_id_below_64_that_is_not_for_clients_messages_is_unknown(id_: int) -> None:
    with pytest.raises(BadRequest, match="unknown property"):
        parse_message_properties(prop(id_, b"any"), from_client=True)


@pytest.mark.parametrize("id_", [64, 255])
def test_an_id_from_64_up_is_ignored_however_often_it_stands(id_: int) -> None:
    data = prop(id_, b"any") + prop(ids.KEY, b"k") + prop(id_, b"other")

    assert parse_message_properties(data, from_client=True) == MessageProperties(key=b"k")


def test_malformed_properties_are_called_so_even_if_another_is_unknown() -> None:
    with pytest.raises(BadRequest, match="invalid MESSAGE payload"):
        parse_message_properties(prop(63, b"") + prop(ids.TTL, b""), from_client=True)


@pytest.mark.parametrize(
    "properties",
    [
        MessageProperties(ttl_ms=-1),
        MessageProperties(delay_ms=2**53 + 1),
        MessageProperties(message_id=b""),
        MessageProperties(message_id=bytes(129)),
        MessageProperties(key=bytes(1025)),
        MessageProperties(reply_to=b""),
        MessageProperties(content_type="x" * 65_536),
        MessageProperties(headers=(("n" * 256, b""),)),
        MessageProperties(headers=(("a", bytes(40_000)), ("b", bytes(40_000)))),
        MessageProperties(timestamp_ms=2**64),
    ],
)
def test_message_properties_that_would_be_refused_are_not_written(
    properties: MessageProperties,
) -> None:
    with pytest.raises(ValueError, match=" "):
        encode_message_properties(properties)


@given(message_properties)
def test_what_the_broker_acts_on_is_what_the_whole_of_the_properties_says(
    properties: MessageProperties,
) -> None:
    p = properties
    assert routing(encode_message_properties(p), True) == (
        p.ttl_ms,
        p.delay_ms,
        p.message_id,
        p.key,
    )


@given(st.sampled_from(MALFORMED_FOR_MESSAGE))
def test_what_is_malformed_is_not_acted_on(data: bytes) -> None:
    with pytest.raises(BadRequest, match="invalid MESSAGE payload"):
        routing(data, True)


def test_a_topic_and_a_name_with_nul_in_them_do_not_hide_the_tag() -> None:
    letter = DeadLetter("why", b"a\0b", 7, b"n\0m")
    encoded = encode_message_properties(MessageProperties(dead_letter=letter))

    assert parse_message_properties(encoded, from_client=False).dead_letter == letter


def test_editing_keeps_the_other_properties_as_they_are_and_in_order() -> None:
    kept = prop(200, b"unknown") + prop(ids.HEADER, b"\1nv")
    data = prop(ids.KEY, b"k") + kept + prop(ids.TTL, bytes(8))

    edited = edit_properties(data, (ids.KEY, ids.TTL), prop(ids.ATTEMPT, b"\0\2"))

    assert edited == kept + prop(ids.ATTEMPT, b"\0\2")


def test_what_does_not_fit_after_editing_is_left_out_headers_first_and_from_the_last_on() -> None:
    header, content_type = prop(ids.HEADER, b"\1nvalue"), prop(ids.CONTENT_TYPE, b"type")
    data = prop(ids.KEY, b"k") + header + header + content_type
    add = prop(ids.ATTEMPT, b"\0\2")

    left = {
        most: [id_ for id_, _ in property_list(edit_properties(data, (), add, most)) or []]
        for most in (len(data) + 5, len(data) + 4, len(data) - 8, 10, 5)
    }

    key, text, attempt = ids.KEY, ids.CONTENT_TYPE, ids.ATTEMPT
    assert list(left.values()) == [
        [key, ids.HEADER, ids.HEADER, text, attempt],
        [key, ids.HEADER, text, attempt],
        [key, text, attempt],
        [key, attempt],
        [attempt],
    ]
