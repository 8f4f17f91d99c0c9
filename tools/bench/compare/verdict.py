"""Ratios of one round each, their median and range, and whether a target is met."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import Enum
from statistics import median

import attrs

from tools.bench.compare.comparison import Candidate, Comparison, Load, Metric
from tools.bench.compare.rounds import Sample
from tools.bench.load.runner import Result


@attrs.frozen
class Spread:
    """The median of several figures, the lowest and the highest of them."""

    median: float
    low: float
    high: float


class Met(Enum):
    """What came of a target."""

    YES = "met"
    NO = "missed"
    FAILED = "failed"
    """A run went wrong on either side, so nothing is claimed."""
    NOT_MEASURED = "not measured"
    NO_TARGET = "-"


@attrs.frozen
class Verdict:
    """Ours divided by that of one other, by one metric."""

    comparison: str
    candidate: str
    metric: Metric
    ratio: Spread | None
    target: float | None
    met: Met


def spread(values: Iterable[float]) -> Spread | None:
    """None when there are none."""
    found = sorted(values)
    return Spread(median(found), found[0], found[-1]) if found else None


def figure(result: Result, metric: Metric, load: Load) -> float | None:
    """None when the result does not have it."""
    if metric is Metric.RATE:
        return result.rate
    if metric is Metric.RATE_EACH:
        return result.rate / load.subscribers
    latency = result.latency if load.subscribers else result.confirm_latency
    if latency is None:
        return None
    return latency.p50_us if metric is Metric.P50 else latency.p99_us


def figures(
    comparison: Comparison, candidate: Candidate, metric: Metric, samples: Iterable[Sample]
) -> dict[int, float]:
    """Of each round that has one."""
    load = candidate.load or comparison.load
    found: dict[int, float] = {}
    for sample in samples:
        if (sample.comparison, sample.candidate) == (comparison.name, candidate.name):
            value = None if sample.result is None else figure(sample.result, metric, load)
            if value is not None:
                found[sample.round] = value
    return found


def verdicts(comparison: Comparison, samples: Sequence[Sample]) -> list[Verdict]:
    """Each target, and each other candidate by every metric that has no target with it."""
    found = []
    for other in comparison.others:
        targets = {
            each.metric: each.factor for each in comparison.targets if each.candidate == other.name
        }
        for metric in dict.fromkeys((*comparison.metrics, *targets)):
            found.append(_verdict(comparison, other, metric, targets.get(metric), samples))
    return found


def _verdict(
    comparison: Comparison,
    other: Candidate,
    metric: Metric,
    target: float | None,
    samples: Sequence[Sample],
) -> Verdict:
    ours = figures(comparison, comparison.ours, metric, samples)
    theirs = figures(comparison, other, metric, samples)
    ratio = spread(ours[number] / theirs[number] for number in ours if theirs.get(number))
    names = (comparison.ours.name, other.name)
    of_both = [
        sample
        for sample in samples
        if sample.comparison == comparison.name and sample.candidate in names
    ]
    met = _met(metric, target, ratio, failed=any(sample.error for sample in of_both))
    return Verdict(comparison.name, other.name, metric, ratio, target, met)


def _met(metric: Metric, target: float | None, ratio: Spread | None, *, failed: bool) -> Met:
    if failed:
        return Met.FAILED
    if ratio is None:
        return Met.NOT_MEASURED
    if target is None:
        return Met.NO_TARGET
    better = ratio.median >= target if metric.more_is_better else ratio.median <= target
    return Met.YES if better else Met.NO
