from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blipmq.protocol import encoder
from blipmq.protocol.decoder import Decoder
from blipmq.protocol.frames import LENGTH_MAX_PUBLISH, PING, PUBLISH, Frame
from blipmq.protocol.run import Run
from blipmq.protocol.span import Span
from tests.protocol.reference import read, read_item
from tests.protocol.streams import (
    cut,
    decode,
    decode_run,
    read_sizes,
    streams,
    ways,
)

Put = Callable[[Decoder, bytes], None]


@settings(deadline=None, max_examples=200)
@given(streams, read_sizes, ways)
def test_any_cut_of_any_frames_gives_these_frames(data: bytes, sizes: list[int], put: Put) -> None:
    items, broken = decode(Decoder(), cut(data, sizes), put)

    assert not broken
    assert [frame for item in items for frame in read_item(item)] == [
        frame if frame.message else type(frame)(frame.type, frame.correlation_id, frame.payload)
        for frame in read(data)[0]
    ]


@settings(deadline=None, max_examples=200)
@given(streams, read_sizes)
def test_a_well_formed_publish_is_in_a_run_or_span_and_nothing_else_is(
    data: bytes, sizes: list[int]
) -> None:
    items, _ = decode(Decoder(), cut(data, sizes))

    in_run = [isinstance(item, Run | Span) for item in items for _ in read_item(item)]
    assert in_run == [frame.message for frame in read(data)[0]]


@settings(deadline=None, max_examples=200)
@given(streams, read_sizes, ways)
def test_what_a_run_refers_to_is_not_written_again_by_later_reads(
    data: bytes, sizes: list[int], put: Put
) -> None:
    decoder = Decoder()
    runs: list[tuple[Run | Span, bytes]] = []
    for piece in cut(data, sizes):
        for item in decode(decoder, [piece], put)[0]:
            if isinstance(item, Run | Span):
                runs.append((item, bytes(item.data())))

    assert all(run.data() == seen for run, seen in runs)


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=300), streams, read_sizes, ways)
def test_of_any_bytes_the_frames_before_the_first_that_is_none_are_given(
    noise: bytes, frames: bytes, sizes: list[int], put: Put
) -> None:
    data = frames + noise
    items, broken = decode(Decoder(), cut(data, sizes), put)

    expected, expected_broken = read(data)
    assert broken == expected_broken
    assert [frame.data for item in items for frame in read_item(item)] == [
        frame.data for frame in expected
    ]


@settings(deadline=None, max_examples=200)
@given(streams, read_sizes)
def test_a_run_pins_no_buffer_that_is_much_larger_than_itself(
    data: bytes, sizes: list[int]
) -> None:
    items, _ = decode(Decoder(), cut(data, sizes))

    assert all(len(item.buffer) <= 4 * item.size for item in items if isinstance(item, Run | Span))


def test_frames_of_one_size_in_one_read_are_one_run_with_a_range_of_offsets() -> None:
    run = decode_run(*(encoder.publish(i, 1, b"t", b"body") for i in range(1000)))

    assert run.count == 1000
    assert isinstance(run.offsets, range)


def test_frames_of_several_sizes_in_one_read_are_one_run() -> None:
    run = decode_run(*(encoder.publish(i, 1, b"t", b"x" * (i % 9)) for i in range(1000)))

    assert run.count == 1000


@pytest.mark.parametrize(
    ("column", "byte"),
    [(4, 8), (13, 0), (14, 1), (15, 2), (16, ord("u"))],
    ids=["type", "qos", "topic length, high byte", "topic length, low byte", "topic"],
)
@pytest.mark.parametrize("place", [1, 7, 8, 199])
def test_one_other_byte_among_frames_of_one_size_ends_the_run_before_it(
    column: int, byte: int, place: int
) -> None:
    frames = [encoder.publish(i, 1, b"t", b"xyz") for i in range(200)]
    odd = bytearray(frames[place])
    odd[column] = byte
    frames[place] = bytes(odd)

    items, _ = decode(Decoder(), [b"".join(frames)])

    first = items[0]
    assert isinstance(first, Run)
    assert first.count == place
    assert [frame.data for item in items for frame in read_item(item)] == frames


@pytest.mark.parametrize("place", [1, 3, 15, 16, 599])
def test_one_other_topic_among_very_many_frames_of_one_size_is_seen(place: int) -> None:
    frames = [encoder.publish(i, 1, b"u" if i == place else b"t", b"") for i in range(600)]

    items, _ = decode(Decoder(), [b"".join(frames)])

    counts = [item.count for item in items if isinstance(item, Run)]
    assert counts == [place, 1, 599 - place][: 2 + (place < 599)]
    assert [frame.data for item in items for frame in read_item(item)] == frames


def test_topics_that_take_turns_are_seen() -> None:
    frames = [encoder.publish(i, 1, b"t%d" % (i % 7), b"") for i in range(600)]

    items, _ = decode(Decoder(), [b"".join(frames)])

    assert [frame.data for item in items for frame in read_item(item)] == frames
    assert len(items) == 600


def test_topics_that_take_turns_at_qos_0_are_one_span() -> None:
    frames = [encoder.publish(i, 0, b"t%d" % (i % 7), bytes(i % 90)) for i in range(600)]

    (span,), _ = decode(Decoder(), [b"".join(frames)])

    assert isinstance(span, Span)
    assert span.count == 600
    assert [frame.data for frame in read_item(span)] == frames


@pytest.mark.parametrize(
    "odd",
    [
        encoder.publish(1, 1, b"t", b"QoS 1"),
        encoder.frame(PUBLISH, 1, b"\0\0\1\xff"),
        encoder.frame(PUBLISH, 1, b"\0\0\0"),
        encoder.frame(PUBLISH, 1, b"\0\0\x09t"),
        encoder.frame(PUBLISH, 1, b"\0"),
        encoder.ping(1),
    ],
    ids=["qos", "utf-8", "empty topic", "topic too long", "too short", "type"],
)
def test_a_span_ends_before_what_does_not_belong_to_it(odd: bytes) -> None:
    frames = [encoder.publish(i, 0, b"t%d" % (i % 7), bytes(i)) for i in range(20)]
    frames[11] = odd

    items, _ = decode(Decoder(), [b"".join(frames)])

    first, last = items[0], items[-1]
    assert isinstance(first, Span)
    assert isinstance(last, Span)
    assert (first.count, last.count) == (11, 8)
    assert [frame.data for item in items for frame in read_item(item)] == frames


def test_a_decoder_remembers_a_bounded_number_of_topics() -> None:
    frames = [encoder.publish(i, 0, b"%d" % i, b"") for i in range(20_000)]

    items, _ = decode(Decoder(), [b"".join(frames)])

    assert [frame.data for item in items for frame in read_item(item)] == frames
    assert all(isinstance(item, Span) for item in items)


def test_a_longer_frame_among_frames_of_one_size_stays_in_the_run() -> None:
    frames = [encoder.publish(i, 0, b"t", b"xyz") for i in range(200)]
    frames[120] = encoder.publish(120, 0, b"t", b"xyz" * 40)

    items, _ = decode(Decoder(), [b"".join(frames)])

    assert [frame.data for item in items for frame in read_item(item)] == frames


def test_a_malformed_message_is_not_in_a_run_though_what_follows_it_looks_like_the_topic() -> None:
    message = encoder.publish(1, 0, b"t", b"x")
    too_short = encoder.frame(PUBLISH, 2)
    # QoS 0, a topic length of 1 and "t" are what a length of 372 looks like.
    follower = encoder.frame(PING, 3, bytes(0x174 - 9))
    assert follower.startswith(message[13:17])

    items, _ = decode(Decoder(), [message + too_short + follower])

    assert [read_item(item) for item in items] == [
        [frame] for frame in read(message + too_short + follower)[0]
    ]


def test_the_largest_message_is_in_a_run_and_a_larger_one_is_not() -> None:
    body = b"x" * (LENGTH_MAX_PUBLISH - 9 - 3 - 1)
    decoder = Decoder()

    ((largest, larger), _) = decode(
        decoder, [encoder.publish(1, 0, b"t", body), encoder.publish(2, 0, b"t", body + b"x")]
    )

    assert isinstance(largest, Run)
    assert isinstance(larger, Frame)
    assert larger.length == LENGTH_MAX_PUBLISH + 1
