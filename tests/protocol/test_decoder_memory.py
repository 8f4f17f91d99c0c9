"""What the decoder allocates: nothing for a message of a run, and no more than was received."""

from __future__ import annotations

import gc
import sys
import tracemalloc
from collections.abc import Iterator

import pytest

from blipmq.protocol import encoder
from blipmq.protocol.decoder import Decoder
from blipmq.protocol.frames import LENGTH_MAX, U32
from blipmq.protocol.run import Run
from tests.protocol.reference import MIB
from tests.protocol.streams import decode


@pytest.fixture
def _no_collection() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def _received(*frames: bytes) -> Decoder:
    decoder = Decoder()
    decoder.feed(b"".join(frames))
    return decoder


def _blocks_kept(decoder: Decoder) -> tuple[Run, int]:
    before = sys.getallocatedblocks()
    run = decoder.next()
    blocks = sys.getallocatedblocks() - before
    assert isinstance(run, Run)
    return run, blocks


@pytest.mark.usefixtures("_no_collection")
def test_a_run_of_equal_frames_takes_as_many_objects_for_thousands_as_for_a_few() -> None:
    frames = [encoder.publish(i, 1, b"t", b"16 bytes of body") for i in range(5_000)]
    _blocks_kept(_received(*frames))
    few, many = _received(*frames[:50]), _received(*frames)

    few_run, few_blocks = _blocks_kept(few)
    many_run, many_blocks = _blocks_kept(many)

    assert (few_run.count, many_run.count) == (50, 5_000)
    assert many_blocks <= few_blocks + 5


@pytest.mark.usefixtures("_no_collection")
def test_a_run_of_unequal_frames_takes_no_object_a_message_either() -> None:
    frames = [encoder.publish(i, 1, b"t", bytes(i % 20)) for i in range(5_000)]
    _blocks_kept(_received(*frames))

    run, blocks = _blocks_kept(_received(*frames))

    assert run.count == 5_000
    assert blocks < 50


@pytest.mark.usefixtures("_no_collection")
def test_numbering_a_run_of_equal_frames_keeps_no_object_a_message() -> None:
    decoder = _received(*(encoder.publish(i, 1, b"t", b"16 bytes of body") for i in range(5_000)))
    run = decoder.next()
    assert isinstance(run, Run)

    before = sys.getallocatedblocks()
    run.stamp(1)

    assert sys.getallocatedblocks() - before < 50


@pytest.mark.usefixtures("_no_collection")
def test_finding_a_run_of_equal_frames_takes_less_memory_for_a_while_than_an_object_each() -> None:
    decoder = _received(*(encoder.publish(i, 0, b"t", b"16 bytes of body") for i in range(7_000)))

    tracemalloc.start()
    try:
        run = decoder.next()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert isinstance(run, Run)
    assert peak < 7_000 * sys.getsizeof(1)


def test_a_long_frame_that_was_announced_takes_memory_as_its_bytes_arrive() -> None:
    decoder = Decoder()
    decoder.feed(U32.pack(LENGTH_MAX))
    received = 4
    while received < MIB:
        piece = decoder.room()[:1000]
        decoder.filled(len(piece))
        received += len(piece)
        assert decoder.next() is None
        assert decoder.allocated <= 2 * received + 8 * 1024


def test_the_buffer_of_a_burst_is_given_up_once_little_comes_at_a_time() -> None:
    decoder = Decoder()
    for _ in range(20):
        decode(decoder, [b"".join(encoder.publish(i, 0, b"t", b"x" * 100) for i in range(5_000))])
    assert decoder.allocated > 100 * 1024

    decode(decoder, (encoder.publish(i, 0, b"t", b"x" * 100) for i in range(10_000)))

    assert decoder.allocated <= 8 * 1024


def test_the_buffer_of_a_long_frame_is_given_up_once_small_frames_come() -> None:
    decoder = Decoder()
    decode(decoder, [encoder.publish(1, 0, b"t", bytes(4 * MIB))])
    assert decoder.allocated > MIB

    decode(decoder, (encoder.publish(i, 0, b"t", b"x" * 100) for i in range(100_000)))

    assert decoder.allocated <= 256 * 1024
