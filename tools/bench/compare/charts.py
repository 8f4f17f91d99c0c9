"""Draws charts of a report, as PNG and SVG. Needs matplotlib, of the extra `bench`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure

from tools.bench.compare.bars import Bar, Panel, panels, ratio_bars
from tools.bench.compare.comparison import Group
from tools.bench.compare.report import Report
from tools.bench.compare.verdict import Met

_OURS, _OTHERS = "#1f618d", "#95a5a6"
_COLOURS = {
    Met.YES: "#1e8449",
    Met.NO: "#c0392b",
    Met.FAILED: "#8e44ad",
    Met.NO_TARGET: "#566573",
    Met.NOT_MEASURED: "#566573",
}
_WIDTH, _LINE, _MARGIN = 9.0, 0.26, 1.0
"""Inches."""
# So that the same figures make the same files, and text in them stays text.
_STYLE = {"svg.hashsalt": "blipmq", "svg.fonttype": "none", "font.size": 9}


def draw(report: Report, directory: Path) -> list[Path]:
    """Every chart there is something for; the files."""
    written = []
    with rc_context(_STYLE):
        for name, figure in _charts(report):
            for suffix, metadata in (("png", {"Software": None}), ("svg", {"Date": None})):
                path = directory / f"{name}.{suffix}"
                figure.savefig(path, metadata=metadata, bbox_inches="tight", dpi=120)
                written.append(path)
    return written


def _charts(report: Report) -> Iterator[tuple[str, Figure]]:
    for name, more_is_better in (("ratios", True), ("latency-ratios", False)):
        if bars := ratio_bars(report, more_is_better=more_is_better):
            yield name, _ratio_chart(bars, more_is_better=more_is_better)
    for group in Group:
        if found := panels(report, group):
            yield group.name.lower().replace("_", "-"), _panel_chart(group, found)


def _ratio_chart(bars: Sequence[Bar], *, more_is_better: bool) -> Figure:
    figure = Figure(figsize=(_WIDTH, _MARGIN + _LINE * len(bars)))
    axes = figure.subplots()
    for at, bar in enumerate(bars):
        colour = _COLOURS[bar.met]
        axes.plot([bar.ratio.low, bar.ratio.high], [at, at], color=colour, linewidth=2)
        axes.plot(bar.ratio.median, at, "o", color=colour)
        if bar.target is not None:
            axes.plot(bar.target, at, "|", color="black", markersize=12)
    axes.set_yticks(range(len(bars)), [bar.label for bar in bars])
    axes.set_ylim(len(bars) - 0.5, -0.5)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.axvline(1, color="black", linewidth=0.5)
    axes.grid(axis="x", which="both", alpha=0.3)
    better = "more" if more_is_better else "less"
    axes.set_title(
        f"BlipMQ to others: median ratio with its range, {better} is better\n"
        "|: target; green: met, red: missed, grey: without a target"
    )
    return figure


def _panel_chart(group: Group, found: Sequence[Panel]) -> Figure:
    heights = [len(panel.candidates) + 2 for panel in found]
    figure = Figure(figsize=(_WIDTH, _MARGIN + _LINE * sum(heights)), layout="constrained")
    figure.suptitle(group.value)
    rows = figure.subplots(len(found), 1, squeeze=False, gridspec_kw={"height_ratios": heights})
    for [axes], panel in zip(rows, found, strict=True):
        names = [name for name, _ in panel.candidates]
        spreads = [each for _, each in panel.candidates]
        medians = [each.median for each in spreads]
        errors = [
            [each.median - each.low for each in spreads],
            [each.high - each.median for each in spreads],
        ]
        colours = [_OURS if name == panel.ours else _OTHERS for name in names]
        axes.barh(names, medians, xerr=errors, color=colours, capsize=2)
        for at, each in enumerate(spreads):
            text = f" {each.median:,.0f}"
            axes.annotate(text, (each.high, at), (3, 0), textcoords="offset points", va="center")
        axes.margins(x=0.12)
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.invert_yaxis()
        axes.set_title(f"{panel.title}, {panel.unit}", loc="left")
        axes.spines[["top", "right"]].set_visible(False)
    return figure
