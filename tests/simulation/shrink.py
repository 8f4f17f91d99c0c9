"""A failing plan made shorter, as long as it fails in the same way."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TypeVar

import attrs

from tests.simulation.plan import Burst, Operation, Plan, Setup
from tests.simulation.run import Result, simulate

T = TypeVar("T")

_PARTICULARS = re.compile(r"m[0-9]{5}|[0-9.]+|(?<=to )\S*|\[.*?\]")
_PLAIN = Setup(segment_bytes=1 << 20, window_bytes=1 << 20, heartbeat_ms=0)
"""A setup in which little happens by itself."""


def kind(violation: str) -> str:
    """What is not as promised, whichever message it is about."""
    return _PARTICULARS.sub("", violation)


def shrink(plan: Plan, result: Result, runs_max: int = 300) -> tuple[Plan, Result]:
    """The shortest plan that was found in so many runs, and what comes of it."""
    wanted = kind(result.violations[0])
    best = plan, result
    left = runs_max

    def fails(candidate: Plan) -> bool:
        nonlocal best, left
        if left <= 0:
            return False
        left -= 1
        found = simulate(candidate)
        if wanted not in map(kind, found.violations):
            return False
        best = candidate, found
        return True

    shorter = True
    while shorter:
        before = best[0]
        for candidates in (_without_faults, _without_operations, _without_groups, _simpler):
            while any(fails(candidate) for candidate in candidates(best[0])):
                pass  # again, with what was found
        shorter = best[0] != before
    return best


def _parts(items: Sequence[T]) -> Iterator[tuple[T, ...]]:
    """All but some of the items: first but half of them, in the end but one."""
    size = len(items)
    while size >= 1:
        for at in range(0, len(items), size):
            yield (*items[:at], *items[at + size :])
        size //= 2


def _without_faults(plan: Plan) -> Iterator[Plan]:
    for faults in _parts(plan.faults):
        yield attrs.evolve(plan, faults=faults)


def _without_operations(plan: Plan) -> Iterator[Plan]:
    for operations in _parts(plan.operations):
        yield attrs.evolve(plan, operations=operations)
    for index, operation in enumerate(plan.operations):
        if isinstance(operation, Burst) and len(operation.sends) > 1:
            for sends in _parts(operation.sends):
                if sends:
                    shorter: Operation = attrs.evolve(operation, sends=sends)
                    operations = (*plan.operations[:index], shorter, *plan.operations[index + 1 :])
                    yield attrs.evolve(plan, operations=operations)


def _without_groups(plan: Plan) -> Iterator[Plan]:
    for groups in _parts(plan.groups):
        yield attrs.evolve(plan, groups=groups)
    for index, group in enumerate(plan.groups):
        if group.members > 1:
            fewer = attrs.evolve(group, members=group.members - 1)
            groups = (*plan.groups[:index], fewer, *plan.groups[index + 1 :])
            yield attrs.evolve(plan, groups=groups)


def _simpler(plan: Plan) -> Iterator[Plan]:
    for field in attrs.fields(Setup):
        plain = getattr(_PLAIN, field.name)
        if getattr(plan.setup, field.name) != plain:
            setup = attrs.evolve(plan.setup, **{field.name: plain})
            yield attrs.evolve(plan, setup=setup)
