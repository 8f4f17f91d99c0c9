from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blipmq.errors import FramingError
from blipmq.protocol import encoder
from blipmq.protocol.decoder import Decoder
from blipmq.protocol.frames import LENGTH_MAX, LENGTH_MAX_UNAUTHENTICATED, U32, Frame
from blipmq.protocol.run import Run
from tests.protocol.reference import read, read_item
from tests.protocol.streams import cut, decode, read_sizes, ways

Put = Callable[[Decoder, bytes], None]


@pytest.mark.parametrize("length", [0, 8, LENGTH_MAX + 1, 2**32 - 1])
def test_a_length_outside_its_bounds_is_refused_as_soon_as_its_four_bytes_are_there(
    length: int,
) -> None:
    decoder = Decoder()
    decoder.feed(U32.pack(length)[:3])
    assert decoder.next() is None

    decoder.feed(U32.pack(length)[3:])
    with pytest.raises(FramingError, match=str(length)):
        decoder.next()


@pytest.mark.parametrize("length", [9, LENGTH_MAX])
def test_a_length_at_its_bounds_is_waited_for(length: int) -> None:
    decoder = Decoder()
    decoder.feed(U32.pack(length) + b"\x07")
    assert decoder.next() is None


@pytest.mark.parametrize("type_", [0x00, 0x0A, 0x10, 0xFF])
def test_an_unknown_type_is_refused_once_its_frame_is_whole(type_: int) -> None:
    data = encoder.frame(type_, 1, b"payload")
    decoder = Decoder()
    decoder.feed(data[:-1])
    assert decoder.next() is None

    decoder.feed(data[-1:])
    with pytest.raises(FramingError, match=f"0x{type_:02x}"):
        decoder.next()


def test_frames_before_a_bad_one_are_given_first() -> None:
    decoder = Decoder()
    decoder.feed(encoder.ping(1) + encoder.publish(2, 1, b"t", b"") + U32.pack(0))

    assert isinstance(decoder.next(), Frame)
    assert isinstance(decoder.next(), Run)
    with pytest.raises(FramingError):
        decoder.next()


def test_the_largest_auth_is_accepted_before_authentication_and_a_byte_more_is_not() -> None:
    largest = encoder.auth(1, b"k" * 65_535)
    decoder = Decoder(LENGTH_MAX_UNAUTHENTICATED)
    decoder.feed(largest)
    assert isinstance(decoder.next(), Frame)

    decoder.feed(U32.pack(len(largest) - 4 + 1))
    with pytest.raises(FramingError):
        decoder.next()


def test_a_raised_bound_holds_for_what_was_received_before() -> None:
    decoder = Decoder(LENGTH_MAX_UNAUTHENTICATED)
    decoder.feed(encoder.auth(1, b"key") + encoder.publish(2, 0, b"t", b"x" * 70_000))
    assert isinstance(decoder.next(), Frame)

    decoder.length_max = LENGTH_MAX
    assert isinstance(decoder.next(), Run)


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 300), max_size=20), st.integers(20, 300), st.sampled_from([1, 8]), ways
)
def test_a_bound_on_the_length_holds_inside_a_run_too(
    body_sizes: list[int], length_max: int, kib: int, put: Put
) -> None:
    data = b"".join(encoder.publish(i, 0, b"t", bytes(size)) for i, size in enumerate(body_sizes))

    items, broken = decode(Decoder(length_max), cut(data, [kib * 1024]), put)

    expected, expected_broken = read(data, length_max)
    assert broken == expected_broken
    assert [frame for item in items for frame in read_item(item)] == expected


@settings(deadline=None)
@given(st.binary(max_size=2_000), read_sizes, ways)
def test_random_bytes_are_frames_or_a_framing_error(
    data: bytes, sizes: list[int], put: Put
) -> None:
    items, broken = decode(Decoder(), cut(data, sizes), put)

    expected, expected_broken = read(data)
    assert broken == expected_broken
    assert len(items) == len(expected)
