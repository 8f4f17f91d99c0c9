"""Cancels a call at each of the places where it can be cancelled."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import attrs
import trio


@attrs.define(eq=False)
class CancelAtStep(trio.abc.Instrument):
    """Cancels the scope when the task stops for the n-th time, or is about to go on after it."""

    task: trio.lowlevel.Task
    scope: trio.CancelScope
    step: int
    going_on: bool
    stops: int = 0

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self.task:
            self.stops += 1
            if self.stops == self.step and not self.going_on:
                self.scope.cancel()

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self.task and self.stops == self.step and self.going_on:
            self.scope.cancel()


async def cancelled_at(step: int, call: Callable[[], Awaitable[None]], *, going_on: bool) -> bool:
    """Awaits the call, cancelled at its n-th stop; 0: before it. Whether it had so many stops."""
    with trio.CancelScope() as scope:
        if step == 0:
            scope.cancel()
        canceller = CancelAtStep(trio.lowlevel.current_task(), scope, step, going_on)
        trio.lowlevel.add_instrument(canceller)
        try:
            await call()
        finally:
            trio.lowlevel.remove_instrument(canceller)
    return scope.cancel_called
