"""Tasks that wait for the same thing, by as few calls as there need be.

They are on the way of every lone message. A `trio.lowlevel.ParkingLot` takes ten calls to wake one
task, and six to find that there is none.
"""

from __future__ import annotations

from trio.lowlevel import (
    Abort,
    RaiseCancelT,
    Task,
    current_task,
    reschedule,
    wait_task_rescheduled,
)


class Waiters:
    """Any number of tasks, which are woken all together, in the order in which they came."""

    __slots__ = ("_tasks",)

    def __init__(self) -> None:
        self._tasks: dict[Task, None] = {}

    def __bool__(self) -> bool:
        """Whether somebody waits."""
        return bool(self._tasks)

    async def wait(self) -> None:
        """Returns after the next `wake`; a checkpoint. Cancelled, it was not woken."""
        task, tasks = current_task(), self._tasks

        def abort(_: RaiseCancelT) -> Abort:
            del tasks[task]
            return Abort.SUCCEEDED

        tasks[task] = None
        await wait_task_rescheduled(abort)

    def wake(self) -> None:
        """Those who wait now run again."""
        if self._tasks:
            for task in self._tasks:
                reschedule(task)
            self._tasks.clear()
