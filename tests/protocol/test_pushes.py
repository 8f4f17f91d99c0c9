from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blipmq.errors import FramingError
from blipmq.protocol import encoder
from blipmq.protocol.frames import MESSAGE, PUBLISH
from blipmq.protocol.pushes import parse_deliver, parse_detached, parse_info

tags = st.integers(0, 2**64 - 1)
topics = st.sampled_from([b"t", b"topic", b"x" * 65_535])
rows = st.tuples(
    st.sampled_from([PUBLISH, MESSAGE]),
    tags,
    st.integers(0, 1),
    topics,
    st.binary(max_size=30),
    st.binary(max_size=30),
)
Row = tuple[int, int, int, bytes, bytes, bytes]


def inner(row: Row) -> bytes:
    type_, tag, qos, topic, properties, body = row
    if type_ == PUBLISH:
        return encoder.publish(tag, qos, topic, body)
    return encoder.message(tag, qos, topic, properties, body)


@given(st.lists(rows, min_size=1, max_size=6))
def test_the_inner_frames_of_a_deliver_are_read_as_they_were_written(sent: list[Row]) -> None:
    payload = memoryview(b"".join(map(inner, sent)))

    read = [
        (type_, tag, qos, topic, bytes(properties), bytes(body))
        for type_, tag, qos, topic, properties, body in parse_deliver(payload)
    ]

    assert read == [row if row[0] == MESSAGE else (*row[:4], b"", row[5]) for row in sent]


def test_frames_of_one_topic_share_its_bytes() -> None:
    payload = memoryview(encoder.publish(1, 0, b"topic", b"") * 2)

    first, second = (row[3] for row in parse_deliver(payload))

    assert first is second


def test_properties_and_body_are_not_copied() -> None:
    frame = encoder.message(1, 0, b"topic", b"properties", b"body")

    ((*_, properties, body),) = parse_deliver(memoryview(frame))

    assert (properties.obj, body.obj) == (frame, frame)


PLAIN = encoder.publish(1, 1, b"topic", b"")
FULL = encoder.message(1, 1, b"topic", b"properties", b"")


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        encoder.ping(1),
        encoder.frame(0x07, 1, b"\1\0\1t"),
        encoder.frame(PUBLISH, 1),
        encoder.frame(PUBLISH, 1, b"\1\0"),
        encoder.frame(PUBLISH, 1, b"\1\0\2t"),
        encoder.frame(MESSAGE, 1, b"\1\0\1t"),
        encoder.frame(MESSAGE, 1, b"\1\0\1t\0"),
        encoder.frame(MESSAGE, 1, b"\1\0\1t\0\1"),
        encoder.frame(MESSAGE, 1, b"\1\0\5t") + PLAIN,
        bytes(30),
        *(PLAIN[:size] for size in range(1, len(PLAIN))),
        *(FULL[:size] for size in range(1, len(FULL))),
    ],
    ids=bytes.hex,
)
def test_inner_frames_that_do_not_fit_are_a_framing_error(payload: bytes) -> None:
    read = parse_deliver(memoryview(PLAIN + payload if payload else b""))

    with pytest.raises(FramingError):
        list(read)


@given(st.binary(max_size=300))
def test_random_inner_bytes_are_frames_or_a_framing_error(noise: bytes) -> None:
    size = 0
    try:
        for type_, _, _, topic, properties, body in parse_deliver(memoryview(noise)):
            size += 16 + len(topic) + len(properties) + len(body) + 2 * (type_ == MESSAGE)
    except FramingError:
        return
    assert size == len(noise)


def test_the_end_of_an_attachment_is_read_as_it_was_written() -> None:
    assert parse_detached(encoder.detached(7, "gone: ä")[13:]) == (7, "gone: ä")


@pytest.mark.parametrize("payload", [b"", bytes(9), bytes(11), bytes(9) + b"\1"], ids=bytes.hex)
def test_a_malformed_end_of_an_attachment_is_a_framing_error(payload: bytes) -> None:
    with pytest.raises(FramingError):
        parse_detached(payload)


def test_an_info_is_read_as_it_was_written() -> None:
    document: dict[str, object] = {"server": "blipmq", "max_body_bytes": 5, "draining": False}

    assert parse_info(encoder.info(document)[13:]) == document


@pytest.mark.parametrize("payload", [b"", b"{", b"[]", b'"text"', b"\xff", b"[" * 100_000])
def test_a_malformed_info_is_a_framing_error(payload: bytes) -> None:
    with pytest.raises(FramingError):
        parse_info(payload)
