"""What was measured, for people on the screen, and for programs as CSV and JSON."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import attrs

from tools.bench.compare.comparison import Candidate, Comparison, Load, Metric, Scale
from tools.bench.compare.machine import Machine
from tools.bench.compare.rounds import Sample
from tools.bench.compare.verdict import Spread, Verdict, figures, spread, verdicts
from tools.bench.load.latencies import Percentiles


@attrs.frozen(kw_only=True)
class Report:
    """All there is to know of one run of the program."""

    command: str
    began: str
    machine: Machine
    rounds: int
    scale: Scale
    versions: Mapping[str, tuple[str, ...]]
    missing: Mapping[str, str]
    comparisons: Sequence[Comparison]
    samples: Sequence[Sample]

    def verdicts(self) -> list[Verdict]:
        return [
            each for comparison in self.comparisons for each in verdicts(comparison, self.samples)
        ]

    def failures(self) -> list[Sample]:
        return [sample for sample in self.samples if sample.error]


@attrs.frozen
class FiguresLine:
    """Medians of one candidate; `range` is of the first figure. CPU is of its server."""

    candidate: str
    client: str
    a_second: float | None
    range: str
    p50_us: float | None
    p99_us: float | None
    cpu_s_per_million: float | None
    failed: int


@attrs.frozen
class RatioLine:
    """Ours to that of a candidate."""

    ours_to: str
    by: str
    ratio: float | None
    range: str
    target: str
    target_is: str


def figures_lines(comparison: Comparison, samples: Sequence[Sample]) -> list[FiguresLine]:
    """One of each candidate."""
    return [_figures_line(comparison, each, samples) for each in comparison.candidates]


def _figures_line(
    comparison: Comparison, candidate: Candidate, samples: Sequence[Sample]
) -> FiguresLine:
    mine = [
        sample
        for sample in samples
        if (sample.comparison, sample.candidate) == (comparison.name, candidate.name)
    ]
    results = [sample.result for sample in mine if sample.result]
    load = candidate.load or comparison.load
    rates = spread(result.rate if load.subscribers else result.published_rate for result in results)
    p50, p99 = (
        spread(figures(comparison, candidate, metric, samples).values())
        for metric in (Metric.P50, Metric.P99)
    )
    cpu = spread(each.cpu_s_per_million for each in results if each.cpu_s_per_million is not None)
    return FiguresLine(
        candidate.name,
        results[0].kind if results else "",
        _median(rates),
        _range(rates),
        _median(p50),
        _median(p99),
        _median(cpu),
        len(mine) - len(results),
    )


def ratio_lines(comparison: Comparison, samples: Sequence[Sample]) -> list[RatioLine]:
    """One of each other candidate and metric."""
    return [_ratio_line(verdict) for verdict in verdicts(comparison, samples)]


def _ratio_line(verdict: Verdict) -> RatioLine:
    sign = "at least" if verdict.metric.more_is_better else "at most"
    return RatioLine(
        verdict.candidate,
        verdict.metric.value,
        _median(verdict.ratio),
        _range(verdict.ratio),
        "-" if verdict.target is None else f"{sign} {verdict.target:g}",
        verdict.met.value,
    )


def _median(found: Spread | None) -> float | None:
    return found.median if found else None


def _range(found: Spread | None) -> str:
    if found is None:
        return "-"
    low, high = (f"{x:,.0f}" if x >= 1000 else f"{x:,.2f}" for x in (found.low, found.high))
    return f"{low} to {high}"


def write_json(report: Report, path: Path) -> None:
    """Everything, settings and every single run included."""
    document = {
        "command": report.command,
        "began": report.began,
        "machine": attrs.asdict(report.machine),
        "rounds": report.rounds,
        "scale": attrs.asdict(report.scale),
        "missing": dict(report.missing),
        "comparisons": [_comparison(report, each) for each in report.comparisons],
        "samples": [attrs.asdict(sample) for sample in report.samples],
    }
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")


def _comparison(report: Report, comparison: Comparison) -> dict[str, object]:
    return {
        "name": comparison.name,
        "says": comparison.says,
        "group": comparison.group.value,
        "candidates": [
            {
                "name": each.name,
                "versions": report.versions[each.name],
                "settings": dict(each.settings),
                "load": _load(each.load or comparison.load),
            }
            for each in comparison.candidates
        ],
        "verdicts": [
            {**attrs.asdict(each), "metric": each.metric.value, "met": each.met.value}
            for each in verdicts(comparison, report.samples)
        ],
    }


def _load(load: Load) -> dict[str, object]:
    return {**attrs.asdict(load), "shape": load.shape.value, "guarantee": int(load.guarantee)}


def write_samples(report: Report, path: Path) -> None:
    """A line for each run."""
    groups = {each.name: each.group.value for each in report.comparisons}
    percentiles = [field.name for field in attrs.fields(Percentiles)]
    head = ["comparison", "group", "candidate", "round", "client", "published", "received"]
    head += ["seconds", "received_a_second", "published_a_second", "cpu_s_per_million"]
    head += ["peak_memory_mib", *(f"latency_{name}" for name in percentiles)]
    head += [*(f"confirm_latency_{name}" for name in percentiles), "error"]
    rows: list[Sequence[object]] = []
    for sample in report.samples:
        row: list[object] = [sample.comparison, groups[sample.comparison], sample.candidate]
        row.append(sample.round)
        if result := sample.result:
            row += [result.kind, result.published, result.received, result.seconds, result.rate]
            row += [result.published_rate, result.cpu_s_per_million, result.peak_memory_mib]
            for latency in (result.latency, result.confirm_latency):
                row += attrs.astuple(latency) if latency else [None] * len(percentiles)
            row.append(None)
        else:
            row += [None] * (len(head) - len(row) - 1)
            row.append(sample.error)
        rows.append(row)
    _write(path, head, rows)


def write_ratios(report: Report, path: Path) -> None:
    """A line for each ratio."""
    ours = {each.name: each.ours.name for each in report.comparisons}
    head = ["comparison", "ours", "candidate", "metric", "ratio", "low", "high", "target", "is"]
    rows = [
        [
            each.comparison,
            ours[each.comparison],
            each.candidate,
            each.metric.value,
            *((each.ratio.median, each.ratio.low, each.ratio.high) if each.ratio else [None] * 3),
            each.target,
            each.met.value,
        ]
        for each in report.verdicts()
    ]
    _write(path, head, rows)


def _write(path: Path, head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(head)
        writer.writerows(rows)
