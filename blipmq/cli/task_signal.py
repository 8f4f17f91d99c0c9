"""What runs in the daemon, for an operator who asks: `kill -USR1` writes the task tree."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from types import FrameType
from typing import TextIO

import trio


class TaskSignal(trio.abc.Instrument):
    """While Trio runs, SIGUSR1 writes the tree of tasks to `stream`, one task a line.

    A line names the task, and the file and line where it waits. Nothing of what tasks hold is
    written. The handler that was there before is put back when the run ends.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def before_run(self) -> None:
        self._before = signal.signal(signal.SIGUSR1, self._write)

    def after_run(self) -> None:
        signal.signal(signal.SIGUSR1, self._before)

    def _write(self, _signal: int, _frame: FrameType | None) -> None:
        self._stream.write("".join(f"{line}\n" for line in task_tree()))
        self._stream.flush()


def task_tree() -> list[str]:
    """The tasks of this Trio run, children indented below their parent."""
    root = trio.lowlevel.current_root_task()
    return list(_lines(root, 0)) if root is not None else []


def _lines(task: trio.lowlevel.Task, depth: int) -> Iterator[str]:
    where = ""
    for frame, line in task.iter_await_frames():
        code = frame.f_code
        if "/trio/" not in code.co_filename:
            where = f" at {code.co_filename}:{line} in {code.co_name}"
    yield f"{'  ' * depth}{task.name}{where}"
    for nursery in task.child_nurseries:
        for child in sorted(nursery.child_tasks, key=lambda child: child.name):
            yield from _lines(child, depth + 1)
