"""The loops in plain Python and the compiled ones give the same results."""

from __future__ import annotations

from array import array

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blipmq.protocol import encoder, loops
from tests.protocol.streams import alternating, equal_frames, streams

compiled = pytest.importorskip("blipmq.protocol._loops", reason="the loops were not compiled here")

noise = st.binary(max_size=60)
numbers = st.integers(1, 2**64 - 1_000)


@settings(deadline=None, max_examples=300)
@given(streams | alternating, noise, st.integers(0, 80), st.sampled_from([20, 2**24]))
def test_topics_are_found_alike(data: bytes, rest: bytes, start: int, length_max: int) -> None:
    buffer = bytearray(data + rest)
    start = min(start, len(buffer))
    known: tuple[dict[bytes, bytes], dict[bytes, bytes]] = ({}, {})

    found = [
        scan(buffer, start, len(buffer), length_max, seen, 3)
        for scan, seen in zip((loops.scan_topics, compiled.scan_topics), known, strict=True)
    ]

    assert found[0] == found[1]
    assert found[0][0].typecode == found[1][0].typecode == "I"
    assert known[0] == known[1]


@settings(deadline=None, max_examples=300)
@given(
    st.lists(st.binary(max_size=50), min_size=1),
    noise,
    st.sampled_from([b"\0\0\1t", b"\1\0\2tt"]),
    st.sampled_from([20, 40, 2**24]),
    st.integers(0, 3),
)
def test_messages_of_one_topic_are_found_alike(
    bodies: list[bytes], rest: bytes, head: bytes, length_max: int, cut: int
) -> None:
    frames = [encoder.publish(i, head[0], head[3:], body) for i, body in enumerate(bodies)]
    buffer = bytearray(b"".join(frames) + rest)
    arguments = buffer, 0, len(buffer) - cut, len(frames[0]), head, length_max

    assert loops.scan_publishes(*arguments) == compiled.scan_publishes(*arguments)


@settings(deadline=None, max_examples=200)
@given(equal_frames(), numbers | st.integers(65_500, 65_600))
def test_frames_of_one_size_are_numbered_alike(data: bytes, first: int) -> None:
    stride = 4 + int.from_bytes(data[:4], "big")
    one, other = bytearray(data), bytearray(data)

    loops.stamp_range(one, 0, stride, len(data) // stride, first)
    compiled.stamp_range(other, 0, stride, len(data) // stride, first)

    assert one == other


@pytest.mark.parametrize("first", [1, 2**16 - 5, 2**17 - 1, 2**48 - 5, 2**64 - 100])
@pytest.mark.parametrize("stamp", [loops.stamp_range, compiled.stamp_range])
def test_numbers_that_carry_are_right(stamp: object, first: int) -> None:
    assert callable(stamp)
    buffer = bytearray(b"".join(encoder.publish(0, 1, b"t", b"x") for _ in range(100)))
    size = len(buffer) // 100

    stamp(buffer, 0, size, 100, first)

    assert buffer == b"".join(encoder.publish(first + i, 1, b"t", b"x") for i in range(100))


@settings(deadline=None, max_examples=200)
@given(alternating, numbers)
def test_frames_of_any_size_are_numbered_alike(data: bytes, first: int) -> None:
    offsets, _ = loops.scan_topics(data, 0, len(data), 2**24, {}, 100)
    one, other = bytearray(data), bytearray(data)

    loops.stamp_offsets(one, offsets, first)
    compiled.stamp_offsets(other, offsets, first)

    assert one == other


def test_compiled_loops_do_not_leave_the_buffer() -> None:
    buffer = bytearray(encoder.publish(1, 0, b"t", b""))

    with pytest.raises(ValueError, match="not in the buffer"):
        compiled.scan_topics(buffer, 0, len(buffer) + 1, 2**24, {}, 9)
    with pytest.raises(ValueError, match="not in the buffer"):
        compiled.scan_publishes(buffer, -1, len(buffer), 20, b"\0\0\1t", 2**24)
    with pytest.raises(ValueError, match="not in the buffer"):
        compiled.stamp_range(buffer, 0, len(buffer), 2, 1)
    with pytest.raises(ValueError, match="not in the buffer"):
        compiled.stamp_offsets(buffer, array("I", [10, 20]), 1)
    with pytest.raises(ValueError, match="no array of u32"):
        compiled.stamp_offsets(buffer, array("Q", [10, 20]), 1)
