"""The task that wakes for retries, expiries and settlements that wait to be logged."""

from __future__ import annotations

import math

import trio

from blipmq.nursery.state import DaemonState


async def run_scheduler(state: DaemonState) -> None:
    """Sleep until the earliest deadline, do what is due, for ever."""
    while True:
        deadline = state.deadline
        state.wakes_at = math.inf if deadline is None else deadline
        with trio.move_on_at(state.wakes_at):
            await state.changed.wait()
        _step(state, trio.current_time())


def _step(state: DaemonState, now: float) -> None:
    """What is due. Retries and expiries do not wait for a slow log; what is to be flushed does."""
    reserved = state.try_reserve()
    deadline = state.broker.next_deadline
    if deadline is not None and deadline <= now:
        state.broker.tick(now)
    flush = state.flush_at is not None and state.flush_at <= now
    if flush:
        state.flush_at = None
    state.hand_on(reserved, everything=flush)
