"""The daemon's own tasks, watched by Trio's instruments: what each waits for, and what it costs.

Knows tasks, threads and the channel to the log; nothing of what they hold. Memory follows the tasks
that there are. `docs/operations.md` says what watching costs.
"""

from __future__ import annotations

import math
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from heapq import nlargest
from types import FrameType
from typing import TYPE_CHECKING, Final

import attrs
import trio

from blipmq.errors import ConfigError

if TYPE_CHECKING:
    from blipmq.nursery.wal_queue import WalQueue

LONG_STEP_SECONDS: Final = 0.01
"""A step that takes longer holds up all other tasks noticeably; the last ones are remembered."""
_LONG_STEPS: Final = 20
_NAMES_MAX: Final = 256
_OTHERS: Final = "(others)"
_FRAMES_MAX: Final = 32
_THREADS_MAX: Final = 100
_BUCKETS: Final = 40
_IDLE_THREAD: Final = "_thread_cache.py"

Row = dict[str, object]


@attrs.define(eq=False)
class Cost:
    """What the steps of a task took, in seconds; a step is the time from one await to the next."""

    polls: int = 0
    busy: float = 0.0
    longest: float = 0.0

    def add(self, other: Cost) -> None:
        self.polls += other.polls
        self.busy += other.busy
        self.longest = max(self.longest, other.longest)

    def row(self) -> Row:
        return {
            "polls": self.polls,
            "busy_seconds": self.busy,
            "longest_step_seconds": self.longest,
        }


@attrs.define(eq=False)
class Watched(Cost):
    """A task that runs. `runnable` is when it could go on, the last time that it waited."""

    id: int = attrs.field(kw_only=True)
    name: str = attrs.field(kw_only=True)
    since: float = attrs.field(kw_only=True)
    runnable: float = attrs.field(kw_only=True)


@attrs.define(eq=False)
class Ended(Cost):
    """All tasks of one name that have ended."""

    tasks: int = 0


@attrs.frozen
class LongStep:
    """A step that held the others up."""

    at: float
    name: str
    seconds: float


class TaskConsole(trio.abc.Instrument):
    """Counts from `open_console` on. `clock` is in seconds and does not go back."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._tasks: dict[trio.lowlevel.Task, Watched] = {}
        self._ended: dict[str, Ended] = {}
        self._ids = 0
        self._step_began = self._started = clock()
        self._waits_since: float | None = None
        self.idle = 0.0
        """Seconds in which no task could go on."""
        self.steps = Cost()
        self.lag = Cost()
        """From when a task could go on until it did."""
        self.lag_histogram = [0] * _BUCKETS
        """How often it was less than 2^n microseconds, and not less than half of that."""
        self.long_steps: deque[LongStep] = deque(maxlen=_LONG_STEPS)
        root = trio.lowlevel.current_root_task()
        assert root is not None
        for task in _descendants(root):
            self.task_spawned(task)

    # What Trio calls: for every step, so with as little as can be

    def task_spawned(self, task: trio.lowlevel.Task) -> None:
        self._ids += 1
        now = self._clock()
        self._tasks[task] = Watched(id=self._ids, name=task.name, since=now, runnable=now)

    def task_scheduled(self, task: trio.lowlevel.Task) -> None:
        watched = self._tasks.get(task)
        if watched is not None:
            watched.runnable = self._clock()

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._step_began = now = self._clock()
        watched = self._tasks.get(task)
        if watched is not None:
            seconds, lag = now - watched.runnable, self.lag
            lag.polls += 1
            lag.busy += seconds
            if seconds > lag.longest:
                lag.longest = seconds
            self.lag_histogram[min(int(seconds * 1e6).bit_length(), _BUCKETS - 1)] += 1

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        now = self._clock()
        seconds = now - self._step_began
        watched = self._tasks.get(task)
        # Trio has told already that a task ended whose last step this was.
        for cost in (self.steps, self._ended_of(task.name) if watched is None else watched):
            cost.polls += 1
            cost.busy += seconds
            if seconds > cost.longest:
                cost.longest = seconds
        if seconds >= LONG_STEP_SECONDS:
            self.long_steps.append(LongStep(now, task.name, seconds))

    def task_exited(self, task: trio.lowlevel.Task) -> None:
        watched = self._tasks.pop(task, None)
        if watched is not None:
            ended = self._ended_of(watched.name)
            ended.add(watched)
            ended.tasks += 1

    def before_io_wait(self, timeout: float) -> None:
        self._waits_since = self._clock()

    def after_io_wait(self, timeout: float) -> None:
        if self._waits_since is not None:
            self.idle += self._clock() - self._waits_since

    def _ended_of(self, name: str) -> Ended:
        ended = self._ended.get(name)
        if ended is None:
            if len(self._ended) >= _NAMES_MAX:
                name = _OTHERS
            ended = self._ended.setdefault(name, Ended())
        return ended

    # What an operator asks

    def loop(self) -> Row:
        """What all tasks took together."""
        now = self._clock()
        return {
            "watched_seconds": now - self._started,
            "idle_seconds": self.idle,
            "tasks": len(self._tasks),
            "tasks_ended": sum(ended.tasks for ended in self._ended.values()),
            **self.steps.row(),
            "lag": {
                "steps": self.lag.polls,
                "seconds": self.lag.busy,
                "longest_seconds": self.lag.longest,
                "histogram": [
                    {"below_seconds": 2**power / 1e6, "steps": steps}
                    for power, steps in enumerate(self.lag_histogram)
                    if steps
                ],
            },
            "long_steps": [
                {"seconds_ago": now - step.at, "name": step.name, "seconds": step.seconds}
                for step in reversed(self.long_steps)
            ],
        }

    def names(self) -> list[Row]:
        """Tasks summed up by their names, those that have ended included; busiest first."""
        sums: dict[str, tuple[Ended, int]] = {}
        for name, ended in self._ended.items():
            sums[name] = (attrs.evolve(ended), 0)
        for watched in self._tasks.values():
            known = watched.name in sums or len(sums) < _NAMES_MAX
            name = watched.name if known else _OTHERS
            cost, running = sums.get(name) or (Ended(), 0)
            cost.add(watched)
            sums[name] = (cost, running + 1)
        rows: list[tuple[str, tuple[Ended, int]]] = list(sums.items())
        rows.sort(key=lambda row: -row[1][0].busy)
        return [
            {"name": name, "running": running, "ended": cost.tasks, **cost.row()}
            for name, (cost, running) in rows
        ]

    async def tree(self, children: int, limit: int) -> Row:
        """The root task, with what it and those below it wait for.

        Of each nursery the `children` busiest tasks, and `limit` tasks in all: `more` says how many
        are left out. The tree is that of one moment; others have their turns while it is
        found out what its tasks wait for, so these may have gone on meanwhile.
        """
        root = trio.lowlevel.current_root_task()
        assert root is not None
        shown: list[tuple[trio.lowlevel.Task, Row]] = []
        tree = self._row(root, children, limit, shown)
        for task, row in shown:
            row.update(_waits(task))
            await trio.lowlevel.checkpoint()
        return tree

    def _row(
        self,
        root: trio.lowlevel.Task,
        children: int,
        limit: int,
        shown: list[tuple[trio.lowlevel.Task, Row]],
    ) -> Row:
        """Level by level, so that the limit cuts off leaves; without recursion."""
        tree = self._task_row(root)
        level = [(root, tree)]
        shown.extend(level)
        while level:
            below: list[tuple[trio.lowlevel.Task, Row]] = []
            for task, row in level:
                nurseries: list[Row] = []
                for nursery in task.child_nurseries:
                    room = min(children, max(0, limit - len(shown)))
                    chosen = nlargest(room, nursery.child_tasks, key=self._busy)
                    chosen.sort(key=self._id)
                    rows = [(child, self._task_row(child)) for child in chosen]
                    shown.extend(rows)
                    below.extend(rows)
                    more = len(nursery.child_tasks) - len(rows)
                    nurseries.append({"tasks": [child for _, child in rows], "more": more})
                row["nurseries"] = nurseries
            level = below
        return tree

    def _busy(self, task: trio.lowlevel.Task) -> float:
        watched = self._tasks.get(task)
        return 0.0 if watched is None else watched.busy

    def _id(self, task: trio.lowlevel.Task) -> int:
        watched = self._tasks.get(task)
        return 0 if watched is None else watched.id

    def _task_row(self, task: trio.lowlevel.Task) -> Row:
        watched = self._tasks.get(task)
        cost = watched or Cost()
        age = 0.0 if watched is None else self._clock() - watched.since
        return {"id": self._id(task), "name": task.name, "age_seconds": age, **cost.row()}


@contextmanager
def open_console(clock: Callable[[], float]) -> Iterator[TaskConsole]:
    """Watch the tasks of this Trio run while it lasts. Raises ConfigError without stackscope."""
    try:
        import stackscope  # noqa: F401, an extra
    except ImportError:
        raise ConfigError(
            "enable_trio_console: needs stackscope; install it, or BlipMQ with its extra `console`"
        ) from None
    console = TaskConsole(clock)
    trio.lowlevel.add_instrument(console)
    try:
        yield console
    finally:
        with suppress(KeyError):  # when Trio has taken it out, and logged why
            trio.lowlevel.remove_instrument(console)


def _descendants(root: trio.lowlevel.Task) -> Iterator[trio.lowlevel.Task]:
    tasks = [root]
    while tasks:
        task = tasks.pop()
        yield task
        for nursery in task.child_nurseries:
            tasks.extend(nursery.child_tasks)


def _waits(task: trio.lowlevel.Task) -> Row:
    """Where a task is: its frames, outermost first; and when the first of its scopes ends."""
    from stackscope import extract

    stack = extract(task)
    frames = [frame for frame in stack.frames if not frame.hide][-_FRAMES_MAX:]
    if not frames:
        return {"waits": None, "waits_for": None, "deadline_seconds": None, "stack": []}
    deadline = math.inf
    for frame in frames:
        for context in frame.contexts:
            if isinstance(context.obj, trio.CancelScope):
                deadline = min(deadline, context.obj.deadline)
    own = [frame for frame in frames if not _of_trio(frame.pyframe)] or frames
    place, last = own[-1], frames[-1]
    seconds = None if deadline == math.inf else deadline - trio.current_time()
    return {
        "waits": f"{_place(place.pyframe, place.lineno)}: {place.linetext}",
        "waits_for": _function(last.pyframe) if last is not place else None,
        "deadline_seconds": seconds,
        "stack": [_place(frame.pyframe, frame.lineno) for frame in frames],
    }


def _place(frame: FrameType, line: int) -> str:
    return f"{_function(frame)}:{line}"


def _function(frame: FrameType) -> str:
    return f"{_module(frame)}.{frame.f_code.co_qualname}"


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "?"))


def _of_trio(frame: FrameType) -> bool:
    return _module(frame).partition(".")[0] == "trio"


def channel_rows(queue: WalQueue | None) -> list[Row]:
    """How full the channels between tasks are."""
    return [] if queue is None else [{"name": "wal", **queue.fill()}]


def thread_rows() -> Row:
    """The threads beside Trio's own, and where each is."""
    frames = sys._current_frames()
    limiter = trio.to_thread.current_default_thread_limiter()
    rows: list[Row] = []
    for thread in threading.enumerate()[: _THREADS_MAX + 1]:
        frame = frames.get(thread.ident or 0)
        if thread is threading.current_thread() or frame is None:
            continue
        idle = frame.f_code.co_filename.endswith(_IDLE_THREAD)
        place = None if idle else _place(frame, frame.f_lineno)
        rows.append({"name": thread.name, "idle": idle, "at": place})
    return {
        "borrowed": limiter.borrowed_tokens,
        "total": limiter.total_tokens,
        "threads": rows,
    }
