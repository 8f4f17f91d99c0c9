from __future__ import annotations

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from blipmq.client.waiters import Waiters


async def test_all_who_wait_are_woken_once(nursery: trio.Nursery) -> None:
    waiters = Waiters()
    woken: list[int] = []

    async def wait(number: int) -> None:
        await waiters.wait()
        woken.append(number)
        await waiters.wait()

    for number in range(3):
        nursery.start_soon(wait, number)
    await wait_all_tasks_blocked()
    assert waiters
    waiters.wake()
    assert not waiters
    await wait_all_tasks_blocked()
    assert sorted(woken) == [0, 1, 2]
    assert waiters
    nursery.cancel_scope.cancel()


async def test_who_comes_after_a_wake_waits_for_the_next(nursery: trio.Nursery) -> None:
    waiters = Waiters()
    waiters.wake()
    nursery.start_soon(waiters.wait)
    await wait_all_tasks_blocked()
    assert waiters
    waiters.wake()


async def test_who_is_cancelled_waits_no_more() -> None:
    waiters = Waiters()
    with trio.CancelScope() as scope:
        scope.cancel()
        await waiters.wait()
    assert scope.cancelled_caught
    assert not waiters


async def test_a_wake_comes_before_a_cancellation(nursery: trio.Nursery) -> None:
    waiters = Waiters()
    outcomes: list[bool] = []

    async def wait(scope: trio.CancelScope) -> None:
        with scope:
            await waiters.wait()
        outcomes.append(scope.cancelled_caught)

    scope = trio.CancelScope()
    nursery.start_soon(wait, scope)
    await wait_all_tasks_blocked()
    waiters.wake()
    scope.cancel()
    await wait_all_tasks_blocked()
    assert outcomes == [False]


async def test_one_of_several_can_be_cancelled(nursery: trio.Nursery) -> None:
    waiters = Waiters()
    nursery.start_soon(waiters.wait)
    with trio.move_on_after(0), pytest.raises(trio.Cancelled):
        await waiters.wait()
    await wait_all_tasks_blocked()
    assert waiters
    waiters.wake()
