"""Which writes of the log are made on Trio's thread."""

from __future__ import annotations

from blipmq.nursery.inline_writes import (
    BYTES_MAX,
    QUICK_WRITES_MAX,
    QUICK_WRITES_MIN,
    SECONDS_MAX,
    InlineWrites,
)

QUICK, SLOW = SECONDS_MAX / 2, SECONDS_MAX * 2


def quick_writes_until_allowed(writes: InlineWrites) -> int:
    count = 0
    while not writes.allow(1):
        writes.took_in_thread(QUICK)
        count += 1
    return count


def test_short_writes_are_allowed_and_long_ones_are_not() -> None:
    writes = InlineWrites()
    assert writes.allow(BYTES_MAX)
    assert not writes.allow(BYTES_MAX + 1)


def test_after_a_write_that_was_held_up_others_go_by_thread_until_they_are_quick_again() -> None:
    writes = InlineWrites()
    writes.took(QUICK)
    assert writes.allow(1)
    writes.took(SLOW)
    assert quick_writes_until_allowed(writes) == QUICK_WRITES_MIN


def test_a_slow_write_in_a_thread_begins_the_count_anew() -> None:
    writes = InlineWrites()
    writes.took(SLOW)
    for _ in range(QUICK_WRITES_MIN - 1):
        writes.took_in_thread(QUICK)
    first = quick_writes_until_allowed(writes)
    writes.took(SLOW)
    writes.took_in_thread(SLOW)
    assert first == 1
    assert quick_writes_until_allowed(writes) > QUICK_WRITES_MIN


def test_a_disk_that_is_slow_again_and_again_is_tried_ever_more_rarely() -> None:
    writes = InlineWrites()
    waits = []
    for _ in range(12):
        writes.took(SLOW)
        waits.append(quick_writes_until_allowed(writes))
    assert waits == sorted(waits)
    assert waits[-1] == QUICK_WRITES_MAX


def test_writes_without_a_delay_make_up_for_a_slow_one() -> None:
    writes = InlineWrites()
    for _ in range(2):
        writes.took(SLOW)
        quick_writes_until_allowed(writes)
    for _ in range(8 * QUICK_WRITES_MIN):
        writes.took(QUICK)
    writes.took(SLOW)
    assert quick_writes_until_allowed(writes) == QUICK_WRITES_MIN
