from __future__ import annotations

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from blipmq.nursery.bell import Bell


async def rings_at_once(bell: Bell) -> bool:
    """Whether a wait for the bell returns without another ring."""
    with trio.move_on_after(0) as waiting:
        await bell.wait()
    return not waiting.cancelled_caught


async def test_a_ring_wakes_who_waits(nursery: trio.Nursery) -> None:
    bell = Bell()
    nursery.start_soon(bell.wait)
    await wait_all_tasks_blocked()
    assert len(nursery.child_tasks) == 1
    bell.ring()
    await wait_all_tasks_blocked()
    assert not nursery.child_tasks


async def test_a_ring_while_nobody_waits_is_not_lost(autojump_clock: MockClock) -> None:
    bell = Bell()
    bell.ring()
    await bell.wait()


async def test_several_rings_are_as_one(autojump_clock: MockClock) -> None:
    bell = Bell()
    bell.ring()
    bell.ring()
    await bell.wait()
    assert not await rings_at_once(bell)


async def test_a_cancelled_wait_takes_no_ring_away(autojump_clock: MockClock) -> None:
    bell = Bell()
    assert not await rings_at_once(bell)
    bell.ring()
    with trio.CancelScope() as scope:
        scope.cancel()
        await bell.wait()
    assert scope.cancelled_caught
    await bell.wait()
