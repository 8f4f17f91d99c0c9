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
