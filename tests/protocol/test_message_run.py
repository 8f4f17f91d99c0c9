"""What a run can do with its messages on version 2, whether they came as PUBLISH or MESSAGE."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blipmq.protocol import encoder
from blipmq.protocol import properties as ids
from blipmq.protocol.decoder import Decoder
from blipmq.protocol.frames import LENGTH_MAX, LENGTH_MAX_PUBLISH, MESSAGE, PUBLISH
from blipmq.protocol.properties import (
    NO_PROPERTIES,
    DeadLetter,
    MessageProperties,
    encode_message_properties,
    parse_message_properties,
)
from blipmq.protocol.run import Run, made_run, stored_run
from tests.protocol.reference import Read, property_list, read, read_run
from tests.protocol.reference import property_bytes as prop
from tests.protocol.streams import decode_run

TOPIC = b"topic"
numbers = st.integers(1, 2**63)
sizes = st.one_of(
    st.integers(1, 200).map(lambda n: [5] * n),
    st.lists(st.integers(0, 40), min_size=1, max_size=60),
)
kinds = st.sampled_from(["publish", "plain", "id", "id and key", "some keys", "delayed"])


def encoded(kind: str, index: int) -> bytes:
    """The properties of message `index` of a run of this kind."""
    id_, key = prop(ids.MESSAGE_ID, b"%04d" % index), prop(ids.KEY, b"key %04d" % index)
    return {
        "plain": b"",
        "id": id_,
        "id and key": prop(ids.TTL, bytes(7) + b"\5") + id_ + key,
        "some keys": key if index % 3 == 0 else b"",
        "delayed": prop(ids.DELAY, bytes(7) + b"\5") + key + prop(ids.HEADER, b"\1nv"),
    }[kind]


@st.composite
def runs(draw: st.DrawFn, qos_min: int = 0) -> Run:
    """A run as it was received; its frames lie in the middle of a read."""
    kind = draw(kinds)
    qos = draw(st.integers(1 if kind == "delayed" else qos_min, 1))
    frames = []
    for i, size in enumerate(draw(sizes)):
        body = bytes([i % 256]) * size
        if kind == "publish":
            frames.append(encoder.publish(1000 + i, qos, TOPIC, body))
        else:
            frames.append(encoder.message(1000 + i, qos, TOPIC, encoded(kind, i), body))
    decoder = Decoder()
    decoder.version = 2
    decoder.feed(b"".join([encoder.ping(1), *frames, encoder.ping(2)]))
    decoder.next()
    run = decoder.next()
    assert isinstance(run, Run)
    return run


def bounds(data: st.DataObject, run: Run) -> tuple[int, int]:
    start = data.draw(st.integers(0, run.count))
    return start, data.draw(st.integers(start, run.count))


def body_of(message: Read) -> bytes:
    """What follows the topic, and the properties if there are any."""
    at = 3 + len(TOPIC)
    return message.payload[at + 2 + len(message.properties) if message.type == MESSAGE else at :]


def read_one(frame: bytes) -> Read:
    ((message,), broken) = read(frame, version=2)
    assert not broken
    return message


@settings(deadline=None)
@given(runs(), numbers)
def test_a_run_is_numbered_whatever_its_type(run: Run, first: int) -> None:
    before = read_run(run)

    run.stamp(first)

    assert read_run(run) == [
        Read(m.type, first + i, m.payload, m.message) for i, m in enumerate(before)
    ]


@settings(deadline=None)
@given(runs(), st.data())
def test_a_slice_is_a_run_of_some_of_the_messages_in_the_same_buffer(
    run: Run, data: st.DataObject
) -> None:
    run.charge = object()
    start, stop = bounds(data, run)
    messages = read_run(run)

    cut = run.slice(start, stop)

    assert read_run(cut) == messages[start:stop] if stop > start else cut.count == 0
    assert list(cut.correlation_ids()) == [1000 + i for i in range(start, stop)]
    assert (cut.buffer is run.buffer, cut.charge, cut.first) == (True, run.charge, 0)


def test_a_slice_without_a_message_that_has_a_key_has_no_keys() -> None:
    run = decode_run(*(encoder.message(i, 1, TOPIC, encoded("some keys", i), b"") for i in (0, 1)))

    assert (run.slice(0, 1).keys, run.slice(1, 2).keys) == ([b"key 0000"], None)


@settings(deadline=None)
@given(runs(), numbers, st.data())
def test_a_slice_of_a_numbered_run_has_its_numbers_and_what_the_publisher_called_them(
    run: Run, first: int, data: st.DataObject
) -> None:
    run.stamp(first)
    start, stop = bounds(data, run)

    cut = run.slice(start, stop)

    numbered = range(first + start, first + stop)
    assert (cut.first, cut.count) == (first + start, stop - start)
    assert cut.data() == run.data(start, stop)
    assert list(cut.correlation_ids()) == (
        [1000 + i for i in range(start, stop)] if run.qos else list(numbered)
    )
    cut.settled()
    assert list(cut.correlation_ids()) == list(numbered)


@settings(deadline=None)
@given(runs(), numbers, st.data())
def test_slices_that_are_numbered_one_by_one_number_the_run(
    run: Run, first: int, data: st.DataObject
) -> None:
    at, _ = bounds(data, run)
    messages = read_run(run)

    run.slice(0, at).stamp(first)
    run.slice(at, run.count).stamp(first + at)

    assert [m.correlation_id for m in read_run(run)] == list(range(first, first + len(messages)))


@settings(deadline=None)
@given(runs(), st.data())
def test_the_properties_and_body_of_a_message_are_those_it_was_sent_with(
    run: Run, data: st.DataObject
) -> None:
    index = data.draw(st.integers(0, run.count - 1))
    message = read_run(run)[index]

    properties = run.properties(index)

    assert run.body(index) == body_of(message)
    if run.type == PUBLISH:
        assert properties == NO_PROPERTIES
    else:
        assert encode_message_properties(properties) == message.properties


@settings(deadline=None)
@given(runs(), numbers, st.data())
def test_a_plain_message_is_a_publish_with_its_number(
    run: Run, first: int, data: st.DataObject
) -> None:
    index = data.draw(st.integers(0, run.count - 1))
    run.stamp(first)

    plain = b"".join(run.plain(index))

    assert plain == encoder.publish(first + index, run.qos, TOPIC, run.body(index))


@settings(deadline=None)
@given(runs(), st.integers(0, 2**64 - 1), st.data())
def test_an_answer_at_qos_0_is_a_publish(
    run: Run, correlation_id: int, data: st.DataObject
) -> None:
    index = data.draw(st.integers(0, run.count - 1))

    answer = b"".join(run.reply(index, correlation_id))

    assert answer == encoder.publish(correlation_id, 0, TOPIC, run.body(index))


@settings(deadline=None)
@given(runs(), numbers, st.data())
def test_deliveries_at_qos_0_differ_in_the_qos_alone(
    run: Run, first: int, data: st.DataObject
) -> None:
    run.stamp(first)
    before = bytes(run.data())
    start, stop = bounds(data, run)

    frames = bytes(run.at_qos0(start, stop))

    assert [m.data for m in read(frames, version=2)[0]] == [
        Read(m.type, m.correlation_id, b"\0" + m.payload[1:]).data
        for m in read_run(run)[start:stop]
    ]
    assert run.data() == before


def test_deliveries_at_qos_0_are_made_once() -> None:
    run = decode_run(*(encoder.message(i, 1, TOPIC, b"", b"body") for i in range(20)))

    assert run.at_qos0(0, 10).obj is run.at_qos0(5, 20).obj


def test_numbering_a_run_numbers_its_deliveries_at_qos_0() -> None:
    run = decode_run(*(encoder.publish(i, 1, TOPIC, b"body") for i in range(20)))
    run.at_qos0(0, 20)

    run.stamp(500)

    assert [m.correlation_id for m in read(bytes(run.at_qos0(0, 20)))[0]] == list(range(500, 520))


@settings(deadline=None)
@given(runs(), numbers, st.integers(2, 1000), st.data())
def test_a_redelivery_is_the_message_with_its_number_and_attempt(
    run: Run, first: int, attempt: int, data: st.DataObject
) -> None:
    run.stamp(first)
    index = data.draw(st.integers(0, run.count - 1))
    before = read_run(run)[index]

    again = read_one(run.redelivery(index, attempt))

    properties = before.properties if run.type == MESSAGE else b""
    assert again.data == encoder.message(
        first + index,
        1,
        TOPIC,
        properties + prop(ids.ATTEMPT, attempt.to_bytes(2, "big")),
        body_of(before),
    )


def one(properties: bytes, body: bytes = b"body", topic: bytes = TOPIC) -> Run:
    """A run of one QoS 1 message with number 7."""
    run = decode_run(encoder.message(1, 1, topic, properties, body))
    run.stamp(7)
    return run


def properties_of(frame: bytes) -> MessageProperties:
    return parse_message_properties(read_one(frame).properties, from_client=False)


def test_a_redelivery_replaces_the_attempt_that_is_there() -> None:
    run = made_run(TOPIC, 1, [encoder.message(0, 1, TOPIC, prop(ids.ATTEMPT, b"\0\2"), b"")])

    assert read_one(run.redelivery(0, 3)).properties == prop(ids.ATTEMPT, b"\0\3")


def test_an_attempt_that_does_not_fit_is_its_largest() -> None:
    assert properties_of(one(b"").redelivery(0, 70_000)).attempt == 65_535


def test_a_redelivery_of_a_message_with_as_many_properties_as_can_be_lacks_its_last_header() -> (
    None
):
    first = prop(ids.HEADER, b"\1a" + bytes(60_000))
    last = prop(ids.HEADER, b"\1b" + bytes(65_535 - len(first) - 5))
    run = one(first + last)

    again = properties_of(run.redelivery(0, 2))

    assert ([name for name, _ in again.headers], again.attempt) == (["a"], 2)


@settings(deadline=None)
@given(runs(qos_min=1), numbers, st.data())
def test_a_message_without_its_delay_is_what_is_published_later(
    run: Run, first: int, data: st.DataObject
) -> None:
    run.stamp(first)
    index = data.draw(st.integers(0, run.count - 1))
    before = read_run(run)[index]

    frame = read_one(run.undelayed(index))

    kept = [row for row in property_list(before.properties) or [] if row[0] != ids.DELAY]
    properties = b"".join(prop(*row) for row in kept) if run.type == MESSAGE else b""
    assert frame.data == encoder.message(0, 1, TOPIC, properties, body_of(before))


def test_a_dead_letter_has_what_others_need_to_know_and_why_it_is_one() -> None:
    sent = MessageProperties(
        ttl_ms=5,
        delay_ms=6,
        message_id=b"id",
        key=b"key",
        reply_to=b"reply",
        headers=(("a", b"1"), ("b", b"2")),
        timestamp_ms=9,
    )
    run = one(encode_message_properties(sent) + prop(200, b"more"))

    frame = read_one(run.dead_letter(0, b"$dead.topic", "max attempts", b"workers"))

    assert frame.payload.startswith(b"\1\0\x0b$dead.topic")
    assert frame.payload.endswith(b"body")
    assert frame.correlation_id == 0
    assert (200, b"more") in (property_list(frame.properties) or [])
    assert parse_message_properties(frame.properties, from_client=False) == MessageProperties(
        key=b"key",
        reply_to=b"reply",
        headers=(("a", b"1"), ("b", b"2")),
        timestamp_ms=9,
        dead_letter=DeadLetter("max attempts", TOPIC, 7, b"workers"),
    )


def test_a_dead_letter_of_a_publish_is_a_message() -> None:
    run = decode_run(encoder.publish(1, 1, TOPIC, b"body"))
    run.stamp(9)

    frame = read_one(run.dead_letter(0, b"$dead.topic", "expired", b""))

    letter = prop(ids.DEAD_LETTER, b"expired\0topic\x009\0")
    assert frame.data == encoder.message(0, 1, b"$dead.topic", letter, b"body")


def test_a_dead_letter_that_died_again_says_why_it_died_last_and_not_how_often_it_was_tried() -> (
    None
):
    old = prop(ids.ATTEMPT, b"\0\2") + prop(ids.DEAD_LETTER, b"expired\0t\x001\0s")
    run = made_run(TOPIC, 1, [encoder.message(0, 1, TOPIC, old, b"")])
    run.stamp(3)

    found = properties_of(run.dead_letter(0, b"$dead.topic", "rejected", b"n"))

    assert found == MessageProperties(dead_letter=DeadLetter("rejected", TOPIC, 3, b"n"))


def test_a_dead_letter_lacks_the_headers_that_do_not_fit_from_the_last_on() -> None:
    sizes = (30_000, 20_000, 15_000)
    headers = [
        prop(ids.HEADER, b"\1" + name + bytes(n))
        for name, n in zip((b"a", b"b", b"c"), sizes, strict=True)
    ]
    room = 65_535 - sum(map(len, headers))
    run = one(b"".join(headers) + prop(ids.CONTENT_TYPE, b"t" * (room - 3)))

    found = properties_of(run.dead_letter(0, b"$dead.topic", "rejected", b"n"))

    assert [name for name, _ in found.headers] == ["a", "b"]
    assert found.content_type == "t" * (room - 3)
    assert found.dead_letter == DeadLetter("rejected", TOPIC, 7, b"n")


def test_a_dead_letter_of_a_very_long_topic_leaves_that_to_its_own_topic() -> None:
    topic = b"x" * 65_529
    run = one(b"", topic=topic)

    frame = read_one(run.dead_letter(0, b"$dead." + topic, "rejected", b"n" * 128))

    letter = parse_message_properties(frame.properties, from_client=False).dead_letter
    assert letter == DeadLetter("rejected", b"", 7, b"n" * 128)


@pytest.mark.parametrize("topic_bytes", [1, 5_000, 65_000])
def test_a_dead_letter_of_the_largest_message_and_its_redelivery_are_frames(
    topic_bytes: int,
) -> None:
    topic = b"x" * topic_bytes
    body = bytes(LENGTH_MAX_PUBLISH - 14 - topic_bytes)
    run = one(b"", body, topic)
    dead = made_run(
        b"$dead." + topic, 1, [run.dead_letter(0, b"$dead." + topic, "rejected", b"n" * 128)]
    )
    dead.stamp(8)

    again = dead.redelivery(0, 2)

    assert int.from_bytes(again[:4], "big") <= LENGTH_MAX
    found = properties_of(again)
    assert found.attempt == 2
    assert found.dead_letter is not None
    assert (found.dead_letter.reason, found.dead_letter.subscription) == ("rejected", b"n" * 128)


@settings(deadline=None)
@given(runs(), numbers)
def test_a_stored_run_is_the_run_that_was_stored(run: Run, first: int) -> None:
    run.stamp(first)

    stored = stored_run(TOPIC, first, bytes(run.data()))

    assert read_run(stored) == read_run(run)
    assert (stored.first, stored.last, stored.topic) == (run.first, run.last, TOPIC)


def test_a_stored_run_without_a_topic_has_that_of_its_messages() -> None:
    data = b"".join(encoder.message(i, 1, TOPIC, encoded("delayed", i), b"") for i in range(5))

    stored = stored_run(b"", 3, data)

    assert (stored.topic, stored.delay_ms, stored.count) == (TOPIC, 5, 5)


@pytest.mark.parametrize("kind", ["plain", "id", "id and key"])
def test_a_stored_run_of_messages_of_one_size_has_a_range_of_offsets(kind: str) -> None:
    data = b"".join(encoder.message(i, 1, TOPIC, encoded(kind, i), b"body") for i in range(500))

    assert stored_run(TOPIC, 1, data).offsets == range(0, len(data) + 1, len(data) // 500)


MESSAGES = [encoder.message(i, 1, TOPIC, encoded("id", i), b"body") for i in range(50)]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        MESSAGES[0][:-1],
        b"".join(MESSAGES)[:-1],
        b"".join(MESSAGES) + bytes(3),
        encoder.message(1, 1, b"other", b"", b""),
        b"".join(MESSAGES) + encoder.message(1, 1, b"other", b"", b""),
        b"".join(MESSAGES) + encoder.message(1, 1, TOPIC, b"x", b""),
        b"".join(MESSAGES) + encoder.publish(1, 1, TOPIC, b""),
        encoder.message(1, 1, TOPIC, b"x", b""),
        encoder.frame(MESSAGE, 1, b"\1\0\5topic\0\1"),
        encoder.ack(1, 0x0100_0100_0000_0000),
        bytes(100),
        b"\xff" * 100,
    ],
)
def test_what_is_no_run_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=" "):
        stored_run(TOPIC, 1, data)


def test_a_made_run_is_one_that_can_be_numbered() -> None:
    frames = [encoder.message(0, 1, TOPIC, encoded("id and key", i), b"body") for i in range(30)]

    run = made_run(TOPIC, 1, frames)
    run.stamp(100)

    assert [(m.correlation_id, m.payload) for m in read_run(run)] == [
        (100 + i, frame[13:]) for i, frame in enumerate(frames)
    ]
    assert run.ttl_ms == 5


@pytest.mark.parametrize(
    ("topic", "qos", "frames"),
    [
        (b"other", 1, MESSAGES),
        (TOPIC, 0, MESSAGES),
        (TOPIC, 1, []),
        (TOPIC, 1, [MESSAGES[0], encoder.publish(0, 1, TOPIC, b"")]),
    ],
)
def test_a_run_is_not_made_of_frames_that_are_none(
    topic: bytes, qos: int, frames: list[bytes]
) -> None:
    with pytest.raises(ValueError, match=" "):
        made_run(topic, qos, frames)
