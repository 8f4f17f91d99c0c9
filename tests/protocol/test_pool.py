from __future__ import annotations

from blipmq.protocol.buffers import BUFFER_BYTES, BufferPool


def test_a_buffer_that_nothing_refers_to_is_given_out_again() -> None:
    pool = BufferPool()
    buffer = pool.take(BUFFER_BYTES)
    identity = id(buffer)
    pool.give(buffer)
    del buffer

    assert id(pool.take(BUFFER_BYTES)) == identity


def test_a_buffer_that_is_looked_at_is_not_given_out() -> None:
    pool = BufferPool()
    buffer = pool.take(BUFFER_BYTES)
    view = memoryview(buffer)[10:20]
    pool.give(buffer)
    del buffer

    assert pool.take(BUFFER_BYTES) is not view.obj
    view.release()


def test_small_buffers_are_not_kept() -> None:
    pool = BufferPool()
    pool.give(bytearray(1_000))

    assert len(pool.take(BUFFER_BYTES)) == BUFFER_BYTES
    assert len(pool.take(1_000)) == 1_000
