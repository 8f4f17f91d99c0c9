"""What charts show of a report; `charts` draws it."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from tools.bench.compare.comparison import Comparison, Group, Metric
from tools.bench.compare.report import Report
from tools.bench.compare.rounds import Sample
from tools.bench.compare.verdict import Met, Spread, figures, spread


@attrs.frozen
class Bar:
    """One line of a chart of ratios."""

    label: str
    ratio: Spread
    target: float | None
    met: Met


@attrs.frozen
class Panel:
    """One comparison in a chart of figures: each candidate with its spread."""

    title: str
    unit: str
    ours: str
    candidates: Sequence[tuple[str, Spread]]


def ratio_bars(report: Report, *, more_is_better: bool) -> list[Bar]:
    """In the order in which they were compared, but for those that were not measured."""
    return [
        Bar(
            f"{each.comparison}: {each.candidate}{_of(each.metric)}",
            each.ratio,
            each.target,
            each.met,
        )
        for each in report.verdicts()
        if each.ratio and each.metric.more_is_better == more_is_better
    ]


def _of(metric: Metric) -> str:
    return "" if metric is Metric.RATE else f", {metric.value}"


def panels(report: Report, group: Group) -> list[Panel]:
    """Of the comparisons of a group, by the first figure that each is compared by."""
    return [
        Panel(each.says, each.metrics[0].value, each.ours.name, found)
        for each in report.comparisons
        if each.group is group and (found := _spreads(each, report.samples))
    ]


def _spreads(comparison: Comparison, samples: Sequence[Sample]) -> list[tuple[str, Spread]]:
    found = []
    for candidate in comparison.candidates:
        values = figures(comparison, candidate, comparison.metrics[0], samples).values()
        if values_spread := spread(values):
            found.append((candidate.name, values_spread))
    return found
