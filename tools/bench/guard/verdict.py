"""Turns, ratios and the verdict. What measures is handed in."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from enum import Enum

import attrs

LOWEST = 0.9


class Side(Enum):
    """Whose broker, and whose client library."""

    BASE = "base"
    THIS = "this checkout"


@attrs.frozen
class Subject:
    """A mode with one kind of client."""

    mode: str
    kind: str


@attrs.frozen
class Compared:
    """`ratios` are above 1 where this checkout is better, one for each round."""

    subject: Subject
    ratios: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.ratios)

    def holds(self, lowest: float) -> bool:
        """Whether it is no worse than that."""
        return self.median >= lowest


def take_turns(
    subjects: Sequence[Subject], rounds: int, measure: Callable[[Side, Subject], float]
) -> list[Compared]:
    """Measure both sides of each subject, `rounds` times. `measure` gives what is more when better.

    Who goes first changes from round to round: what the first one leaves warm or full is nobody's
    advantage.
    """
    ratios: dict[Subject, list[float]] = {subject: [] for subject in subjects}
    for number in range(rounds):
        order = (Side.BASE, Side.THIS) if number % 2 == 0 else (Side.THIS, Side.BASE)
        for subject in subjects:
            found = {side: measure(side, subject) for side in order}
            ratios[subject].append(found[Side.THIS] / found[Side.BASE])
    return [Compared(subject, tuple(each)) for subject, each in ratios.items()]
