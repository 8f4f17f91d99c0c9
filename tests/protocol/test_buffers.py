"""Receive buffers are lent: who has nothing unfinished holds none, and none is lent too early."""

from __future__ import annotations

import pytest

from blipmq.protocol import encoder
from blipmq.protocol.buffers import BUFFER_BYTES_MAX, BUFFER_BYTES_MIN, Buffers
from blipmq.protocol.decoder import Decoder
from blipmq.protocol.frames import Frame
from blipmq.protocol.run import Run

PING = encoder.ping(1)


@pytest.fixture
def buffers() -> Buffers:
    return Buffers()


@pytest.fixture
def decoder(buffers: Buffers) -> Decoder:
    return Decoder(buffers=buffers)


def test_a_decoder_that_received_nothing_holds_no_buffer(decoder: Decoder) -> None:
    assert decoder.allocated == 0


def test_a_decoder_with_nothing_unfinished_gives_its_buffer_back(decoder: Decoder) -> None:
    decoder.feed(PING)
    assert decoder.next() is not None
    assert decoder.allocated == BUFFER_BYTES_MIN
    decoder.release()
    assert decoder.allocated == 0


def test_an_unfinished_frame_stays(decoder: Decoder) -> None:
    decoder.feed(PING[:7])
    assert decoder.next() is None
    decoder.release()
    decoder.feed(PING[7:])
    assert decoder.next() == Frame(PING[4], 1, b"")


def test_what_one_decoder_gives_back_another_receives_into(
    buffers: Buffers, decoder: Decoder
) -> None:
    room = decoder.room()
    decoder.release()
    other = Decoder(buffers=buffers).room()
    assert other.obj is room.obj


def test_what_others_left_in_a_buffer_is_not_looked_at(buffers: Buffers, decoder: Decoder) -> None:
    decoder.feed(PING * 20)
    while decoder.next() is not None:
        pass
    decoder.release()
    other = Decoder(buffers=buffers)
    other.feed(PING[:4])
    assert other.next() is None
    other.feed(PING[4:])
    assert other.next() is not None
    assert other.next() is None


def test_a_buffer_is_not_lent_while_a_run_refers_to_it(buffers: Buffers, decoder: Decoder) -> None:
    frames = b"".join(encoder.publish(i, 0, b"t", b"x" * 60) for i in range(50))
    decoder.feed(frames)
    run = decoder.next()
    assert isinstance(run, Run)
    assert len(run.buffer) == BUFFER_BYTES_MIN  # not copied out
    decoder.release()
    room = Decoder(buffers=buffers).room()
    room[:] = b"\xff" * len(room)
    assert bytes(run.data()) == frames


def test_one_buffer_of_each_size_is_held_whatever_is_given_back() -> None:
    buffers = Buffers()
    sizes = [BUFFER_BYTES_MIN, BUFFER_BYTES_MAX]
    lent = [buffers.take(size) for size in sizes for _ in range(3)]
    for buffer in lent:
        buffers.give_back(buffer)
    again = [buffers.take(size) for size in sizes for _ in range(3)]
    assert sum(any(new is old for old in lent) for new in again) == 2


@pytest.mark.parametrize("size", [0, 1024, BUFFER_BYTES_MIN + 1, 2 * BUFFER_BYTES_MAX])
def test_a_buffer_of_an_odd_size_is_not_held(size: int) -> None:
    buffers = Buffers()
    buffer = bytearray(size)
    buffers.give_back(buffer)
    assert buffers.take(size) is not buffer


def test_a_retired_buffer_is_lent_again_when_the_last_view_of_it_is_gone() -> None:
    buffers = Buffers()
    buffer = buffers.take(BUFFER_BYTES_MAX)
    identity, view = id(buffer), memoryview(buffer)[10:20]
    buffers.retire(buffer)
    del buffer

    assert id(buffers.take(BUFFER_BYTES_MAX)) != identity
    view.release()
    assert id(buffers.take(BUFFER_BYTES_MAX)) == identity


def test_what_a_burst_retired_is_let_go_before_long() -> None:
    buffers = Buffers()
    for _ in range(64):
        buffers.retire(bytearray(BUFFER_BYTES_MAX))

    for _ in range(64):
        buffers.retire(buffers.take(BUFFER_BYTES_MAX))

    assert len(buffers._retired) <= 9
