"""Which comparisons are made: those asked for, without the candidates that are not installed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping

import attrs

from tools.bench.compare.comparison import Candidate, Comparison
from tools.bench.peers.process import Missing


@attrs.frozen
class Selection:
    """`versions` are of every candidate by its name, `missing` says why others are left out."""

    comparisons: tuple[Comparison, ...]
    versions: Mapping[str, tuple[str, ...]]
    missing: Mapping[str, str]


def choose(
    catalogue: Iterable[Comparison],
    works: Collection[str] = (),
    peers: Collection[str] = (),
) -> Selection:
    """Empty collections stand for all. What is left with nobody to compare with is dropped."""
    chosen = []
    versions: dict[str, tuple[str, ...]] = {}
    missing: dict[str, str] = {}
    told: dict[Callable[[], str], str] = {}
    for comparison in catalogue:
        if works and comparison.name not in works:
            continue
        wanted = [each for each in comparison.others if not peers or each.peer in peers]
        present = []
        for candidate in (comparison.ours, *wanted):
            try:
                versions[candidate.name] = _versions(candidate, told)
            except Missing as error:
                missing[candidate.name] = f"{error} is not installed"
            else:
                present.append(candidate)
        if comparison.ours in present and len(present) > 1:
            others = tuple(each for each in present if each is not comparison.ours)
            chosen.append(attrs.evolve(comparison, others=others))
    return Selection(tuple(chosen), versions, missing)


def _versions(candidate: Candidate, told: dict[Callable[[], str], str]) -> tuple[str, ...]:
    """Each is asked once. Raises Missing."""
    for version in candidate.versions:
        if version not in told:
            told[version] = version()
    return tuple(told[version] for version in candidate.versions)
