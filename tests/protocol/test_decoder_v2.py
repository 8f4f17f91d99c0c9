from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blipmq.errors import FramingError
from blipmq.protocol import encoder
from blipmq.protocol import properties as ids
from blipmq.protocol.decoder import Decoder
from blipmq.protocol.frames import LENGTH_MAX_PUBLISH, MESSAGE, TYPES, TYPES_V2, Frame
from blipmq.protocol.requests import message_refusal
from blipmq.protocol.run import Run
from blipmq.protocol.span import Span
from tests.protocol.reference import property_bytes as prop
from tests.protocol.reference import read, read_item
from tests.protocol.streams import (
    cut,
    decode,
    decode_run,
    decoder_v2,
    read_sizes,
    streams_v2,
    ways,
)

Put = Callable[[Decoder, bytes], None]
properties_bounds = st.sampled_from([0, 10, 65_535])


@settings(deadline=None, max_examples=300)
@given(streams_v2, read_sizes, ways, properties_bounds)
def test_any_cut_of_any_frames_gives_these_frames_and_the_well_formed_messages_in_runs(
    data: bytes, sizes: list[int], put: Put, properties_max: int
) -> None:
    items, broken = decode(decoder_v2(properties_max), cut(data, sizes), put)

    assert not broken
    expected = read(data, version=2, properties_max=properties_max)[0]
    assert [frame.data for item in items for frame in read_item(item)] == [
        frame.data for frame in expected
    ]
    assert [isinstance(item, Run | Span) for item in items for _ in read_item(item)] == [
        frame.message for frame in expected
    ]


@settings(deadline=None, max_examples=100)
@given(streams_v2, read_sizes, ways)
def test_what_a_run_refers_to_is_not_written_again_by_later_reads(
    data: bytes, sizes: list[int], put: Put
) -> None:
    decoder = decoder_v2()
    runs: list[tuple[Run | Span, bytes]] = []
    for piece in cut(data, sizes):
        for item in decode(decoder, [piece], put)[0]:
            if isinstance(item, Run | Span):
                runs.append((item, bytes(item.data())))

    assert all(run.data() == seen for run, seen in runs)


@settings(deadline=None, max_examples=200)
@given(streams_v2, properties_bounds)
def test_a_message_that_is_not_in_a_run_has_something_to_be_refused_for(
    data: bytes, properties_max: int
) -> None:
    items, _ = decode(decoder_v2(properties_max), [data])

    for item in items:
        if isinstance(item, Frame) and item.type == MESSAGE:
            assert message_refusal(item.payload, item.length, properties_max).code in (400, 413)


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=300), streams_v2, read_sizes, ways)
def test_random_bytes_after_frames_are_frames_or_a_framing_error(
    noise: bytes, frames: bytes, sizes: list[int], put: Put
) -> None:
    items, broken = decode(decoder_v2(), cut(frames + noise, sizes), put)

    expected, expected_broken = read(frames + noise, version=2)
    assert broken == expected_broken
    assert [frame.data for item in items for frame in read_item(item)] == [
        frame.data for frame in expected
    ]


@pytest.mark.parametrize("type_", sorted(set(TYPES_V2) - set(TYPES)))
def test_a_type_of_version_2_is_unknown_until_that_is_spoken(type_: int) -> None:
    decoder = Decoder()
    decoder.feed(encoder.ping(1) + encoder.frame(type_, 2, b"payload"))
    decoder.next()
    with pytest.raises(FramingError, match=f"0x{type_:02x}"):
        decoder.next()

    decoder.version = 2
    assert decoder.next() == Frame(type_, 2, b"payload")


@pytest.mark.parametrize("type_", [0x00, 0x0A, 0x0F, 0x17, 0xFF])
def test_a_type_that_version_2_does_not_have_is_refused(type_: int) -> None:
    decoder = decoder_v2()
    decoder.feed(encoder.frame(type_, 1))

    with pytest.raises(FramingError, match=f"0x{type_:02x}"):
        decoder.next()


def decoded_counts(frames: list[bytes]) -> list[int]:
    """How many messages are in each run."""
    items, broken = decode(decoder_v2(), [b"".join(frames)])
    assert not broken
    assert [frame.data for item in items for frame in read_item(item)] == frames
    return [item.count for item in items if isinstance(item, Run)]


def ttl(ms: int) -> bytes:
    return prop(ids.TTL, ms.to_bytes(8, "big"))


def delay(ms: int) -> bytes:
    return prop(ids.DELAY, ms.to_bytes(8, "big"))


@pytest.mark.parametrize("sizes", [1, 3], ids=["of one size", "of several sizes"])
@pytest.mark.parametrize(
    ("one", "other"),
    [(ttl(5), ttl(6)), (ttl(0), b""), (delay(5), delay(6)), (delay(5), b"")],
)
def test_a_run_ends_where_ttl_or_delay_change(one: bytes, other: bytes, sizes: int) -> None:
    frames = [
        encoder.message(i, 1, b"t", one if i < 100 else other, b"x" * (i % sizes))
        for i in range(200)
    ]

    assert decoded_counts(frames) == [100, 100]


def test_a_delay_of_nothing_is_no_delay() -> None:
    frames = [encoder.message(i, 0, b"t", delay(0) if i % 2 else b"", b"") for i in range(20)]

    assert decoded_counts(frames) == [20]


def test_publish_and_message_are_in_runs_of_their_own() -> None:
    publishes = [encoder.publish(i, 1, b"t", b"body") for i in range(10)]
    messages = [encoder.message(i, 1, b"t", b"", b"body") for i in range(10)]

    assert decoded_counts(publishes + messages + publishes) == [10, 10, 10]


@pytest.mark.parametrize(
    "values",
    [
        [(ids.MESSAGE_ID, "{:016}")],
        [(ids.KEY, "{:016}")],
        [(ids.TIMESTAMP, "{:08}")],
        [(ids.TRACE_CONTEXT, "00-{:032}-0000000000000000-01")],
        [(ids.HEADER, "\4name{:03}"), (ids.HEADER, "\4more")],
        [(ids.TTL, "\0\0\0\0\0\0\0\5"), (ids.MESSAGE_ID, "{:03}"), (ids.KEY, "{:03}")],
        [(ids.CONTENT_TYPE, "text/plain")],
        [],
    ],
)
def test_messages_of_one_size_that_differ_in_values_alone_are_one_run_with_a_range_of_offsets(
    values: list[tuple[int, str]],
) -> None:
    frames = [
        encoder.message(
            i,
            1,
            b"topic",
            b"".join(prop(id_, value.format(i).encode()) for id_, value in values),
            b"x" * 40,
        )
        for i in range(500)
    ]

    run = decode_run(*frames)

    assert run.count == 500
    assert isinstance(run.offsets, range)
    assert [frame.data for frame in read_item(run)] == frames


def test_messages_of_several_sizes_and_properties_are_one_run() -> None:
    values = [b"", prop(ids.MESSAGE_ID, b"m"), prop(ids.KEY, b"k"), prop(ids.HEADER, b"\1nvalue")]
    frames = [encoder.message(i, 1, b"topic", values[i % 4], b"x" * (i % 9)) for i in range(1000)]

    run = decode_run(*frames)

    assert run.count == 1000
    assert run.message_ids == [b"m" if i % 4 == 1 else None for i in range(1000)]
    assert run.keys == [b"k" if i % 4 == 2 else None for i in range(1000)]


@pytest.mark.parametrize("place", [1, 7, 8, 199])
@pytest.mark.parametrize(
    ("column", "byte"),
    [
        (4, 0x03),
        (13, 0),
        (15, 2),
        (16, ord("u")),
        (17, 1),
        (18, 5),
        (19, ids.KEY),
        (19, 63),
        (20, 1),
        (21, 0xFF),
    ],
    ids=[
        "type",
        "qos",
        "topic length",
        "topic",
        "properties length, high byte",
        "properties length, low byte",
        "known property id",
        "unknown property id",
        "property length, high byte",
        "property length, low byte",
    ],
)
def test_one_other_byte_among_messages_of_one_size_is_seen(
    column: int, byte: int, place: int
) -> None:
    frames = [
        encoder.message(i, 1, b"t", prop(ids.MESSAGE_ID, b"%03d" % i), b"xyz") for i in range(200)
    ]
    odd = bytearray(frames[place])
    odd[column] = byte
    frames[place] = bytes(odd)

    items, _ = decode(decoder_v2(), [b"".join(frames)])

    assert [frame.data for item in items for frame in read_item(item)] == frames
    assert [isinstance(item, Run | Span) for item in items for _ in read_item(item)] == [
        frame.message for frame in read(b"".join(frames), version=2)[0]
    ]


@pytest.mark.parametrize("place", [1, 100, 299])
def test_a_text_that_is_no_utf_8_among_messages_of_one_size_is_seen(place: int) -> None:
    frames = [
        encoder.message(
            i, 1, b"t", prop(ids.TRACE_CONTEXT, b"\xff" if i == place else b"a"), b"xyz"
        )
        for i in range(300)
    ]

    items, _ = decode(decoder_v2(), [b"".join(frames)])

    in_run = [isinstance(item, Run | Span) for item in items for _ in read_item(item)]
    assert in_run == [i != place for i in range(300)]


def test_the_largest_message_is_in_a_run_and_a_larger_one_is_not() -> None:
    body = b"x" * (LENGTH_MAX_PUBLISH - 9 - 5 - 1)

    ((largest, larger), _) = decode(
        decoder_v2(),
        [encoder.message(1, 0, b"t", b"", body), encoder.message(2, 0, b"t", b"", body + b"x")],
    )

    assert isinstance(largest, Run)
    assert isinstance(larger, Frame)


@pytest.mark.parametrize("sizes", [1, 3], ids=["of one size", "of several sizes"])
def test_the_bound_on_properties_holds_for_each_message(sizes: int) -> None:
    frames = [
        encoder.message(i, 1, b"t", prop(64, bytes(7 + (i % 50 == 49))), b"x" * (i % sizes))
        for i in range(100)
    ]

    items, _ = decode(decoder_v2(properties_max=10), [b"".join(frames)])

    in_run = [isinstance(item, Run | Span) for item in items for _ in read_item(item)]
    assert in_run == [i % 50 != 49 for i in range(100)]
