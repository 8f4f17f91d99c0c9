"""Taking turns: every candidate of a comparison once a round, so that all see the same machine."""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from tools.bench.compare.comparison import Candidate, Comparison, Scale
from tools.bench.daemon import DidNotStart
from tools.bench.load.clients import ClientFailed
from tools.bench.load.runner import Result
from tools.bench.load.wire import Refused
from tools.bench.load.work import Miscounted


@attrs.frozen
class Sample:
    """One run. Without a result it failed, and its figures, if any, would mean nothing."""

    comparison: str
    candidate: str
    round: int
    result: Result | None
    error: str | None = None


def alternate(comparison: Comparison, rounds: int, scale: Scale) -> Iterator[Sample]:
    """So many rounds. Each round begins with another candidate, so that none is always first."""
    candidates = comparison.candidates
    for number in range(rounds):
        first = number % len(candidates)
        for candidate in (*candidates[first:], *candidates[:first]):
            yield _measure(comparison, candidate, number, scale)


def _measure(comparison: Comparison, candidate: Candidate, number: int, scale: Scale) -> Sample:
    try:
        result = candidate.measure(candidate.load or comparison.load, scale)
    except (Miscounted, ClientFailed, Refused, DidNotStart, OSError) as error:
        text = f"{type(error).__name__}: {error}"
        return Sample(comparison.name, candidate.name, number, None, text)
    return Sample(comparison.name, candidate.name, number, result)
