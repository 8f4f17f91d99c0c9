"""Trio made repeatable: given the same seed, a run does the same things in the same order.

Trio has a switch for that, which sorts the tasks of a batch before it shuffles them. What is left
of chance are its sets, ordered by where objects lie in memory, equal deadlines, ordered likewise,
and when the garbage collector looks. This module deals with each.
"""

from __future__ import annotations

import gc
import itertools
import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from heapq import heappush
from typing import Any
from unittest import mock

import attrs
import trio
from trio._core import _run

from blipmq.nursery.connection import Connection


def _numbered_cancel_status() -> type[Any]:
    count = itertools.count()

    class NumberedCancelStatus(_run.CancelStatus):
        """Its place in a set follows from how many were made before it."""

        __slots__ = ("number",)

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self.number = next(count)  # before it is put into its parent's set
            super().__init__(*args, **kwargs)

        def __hash__(self) -> int:
            return self.number

        def __eq__(self, other: object) -> bool:
            return self is other

    return NumberedCancelStatus


@contextmanager
def repeatable(seed: int) -> Iterator[None]:
    """For one `trio.run` inside of it, which may not be inside of another."""
    first = _next_task_number()
    count = itertools.count()

    def add(self: _run.Deadlines, deadline: float, scope: trio.CancelScope) -> None:
        heappush(self._heap, (deadline, next(count), scope))
        self._active += 1

    state = _run._r.getstate()
    collecting = gc.isenabled()
    with ExitStack() as stack:
        put = stack.enter_context
        put(mock.patch.object(_run, "_ALLOW_DETERMINISTIC_SCHEDULING", True))
        put(mock.patch.object(_run, "CancelStatus", _numbered_cancel_status()))
        put(mock.patch.object(_run.Deadlines, "add", add))
        put(mock.patch.object(_run.Task, "__hash__", lambda task: task._counter - first))
        put(mock.patch.object(Connection, "__hash__", _port))
        _run._r.seed(f"schedule {seed}")
        gc.disable()
        try:
            yield
        finally:
            gc.collect(0)  # all that was made meanwhile is young
            if collecting:
                gc.enable()
            _run._r.setstate(state)


def _next_task_number() -> int:
    default: Any = attrs.fields(_run.Task)._counter.default
    return int(default.factory())


def _port(connection: Connection) -> int:
    return int(connection.peer.rpartition(":")[2])


def chance(*parts: object) -> random.Random:
    """A random source of its own for whoever is named, the same in every process."""
    return random.Random(" ".join(map(str, parts)))  # noqa: S311
