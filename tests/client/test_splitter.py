from __future__ import annotations

import pytest

from blipmq.client.splitter import Splitter
from blipmq.errors import FramingError
from blipmq.protocol import encoder
from blipmq.protocol.frames import ACK, NACK, PONG, PUBLISH, Frame

FRAMES = [
    Frame(ACK, 1, bytes(8)),
    Frame(PONG, 2, b""),
    Frame(PUBLISH, 3, b"\x01\x00\x01tbody"),
    Frame(NACK, 2**64 - 1, b"\x01\x94\x00\x02no"),
]
WIRE = b"".join(encoder.frame(frame.type, frame.correlation_id, frame.payload) for frame in FRAMES)


@pytest.mark.parametrize("size", range(1, len(WIRE) + 1))
def test_frames_come_out_whole_however_the_bytes_are_cut(size: int) -> None:
    splitter = Splitter()
    pieces = [WIRE[at : at + size] for at in range(0, len(WIRE), size)]
    assert [frame for piece in pieces for frame in splitter.split(piece)] == FRAMES


@pytest.mark.parametrize("length", [0, 8, 16_777_217, 2**32 - 1])
def test_a_length_out_of_bounds_is_refused_as_soon_as_it_is_there(length: int) -> None:
    splitter = Splitter()
    assert list(splitter.split(length.to_bytes(4)[:3])) == []
    with pytest.raises(FramingError, match=f"length {length}"):
        list(splitter.split(length.to_bytes(4)[3:]))


@pytest.mark.parametrize("type_", [0x00, 0x0A, 0x10, 0xFF])
def test_an_unknown_type_is_refused(type_: int) -> None:
    with pytest.raises(FramingError, match=f"unknown type 0x{type_:02x}"):
        list(Splitter().split(encoder.frame(type_, 1)))


def test_frames_before_a_bad_one_come_out_first() -> None:
    frames = Splitter().split(encoder.pong(2) + bytes(4))
    assert next(frames) == Frame(PONG, 2, b"")
    with pytest.raises(FramingError):
        next(frames)


@pytest.mark.parametrize("frame", FRAMES)
def test_one_whole_frame_needs_no_splitting(frame: Frame) -> None:
    data = encoder.frame(frame.type, frame.correlation_id, frame.payload)
    assert Splitter().lone(data) == (frame.type, frame.correlation_id, frame.payload)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        encoder.pong(2)[:-1],
        encoder.pong(2) * 2,
        encoder.pong(2) + b"\0",
        encoder.frame(0xFF, 1),
        b"\0\0\0\x04\x08" + bytes(3),
    ],
    ids=["nothing", "cut", "two", "more", "unknown", "short"],
)
def test_what_is_not_one_whole_frame_is_left_to_be_split(data: bytes) -> None:
    assert Splitter().lone(data) is None


def test_bytes_behind_the_start_of_a_frame_are_not_one() -> None:
    splitter = Splitter()
    assert list(splitter.split(encoder.pong(2)[:5])) == []
    assert splitter.lone(encoder.pong(3)) is None
