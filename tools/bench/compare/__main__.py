"""`python -m tools.bench.compare`: BlipMQ beside other brokers, in turns, on one machine."""

from __future__ import annotations

import shlex
import shutil
import sys
import tempfile
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path

import click

from tools.bench.compare.candidates import PEERS
from tools.bench.compare.catalogue import catalogue
from tools.bench.compare.comparison import Comparison, Scale
from tools.bench.compare.machine import describe
from tools.bench.compare.report import (
    Report,
    figures_lines,
    ratio_lines,
    write_json,
    write_ratios,
    write_samples,
)
from tools.bench.compare.rounds import Sample, alternate
from tools.bench.compare.selection import Selection, choose
from tools.bench.options import directory_option
from tools.bench.table import Rows, show

WORKS = tuple(each.name for each in catalogue(Path(tempfile.gettempdir())))
QUICK = Scale(seconds=0.1, share=0.02)
_NOTE = """\
Each round measures every candidate once, in turns; ratios are ours to theirs of one round, their
median and range over all. wire: raw sockets, frames encoded beforehand, deliveries counted without
making objects. client: the client library that programs use. CPU: seconds of the server for a
million messages received (published, where nobody subscribes). Latencies are in microseconds."""


@click.command(context_settings={"show_default": True})
@click.option("--work", "works", multiple=True, type=click.Choice(WORKS), help="[default: all]")
@click.option("--peers", multiple=True, type=click.Choice(PEERS), help="[default: all]")
@click.option("--rounds", type=click.IntRange(1), default=5)
@click.option(
    "--seconds",
    type=click.FloatRange(0, min_open=True),
    default=Scale().seconds,
    help="Of publishing in one run, where as much as goes through is measured.",
)
@click.option("--quick", is_flag=True, help="One round of very little: does it run, and count?")
@directory_option
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("bench-results"),
    help="For report.json, samples.csv, ratios.csv and the charts.",
)
@click.option(
    "--charts",
    type=click.Path(path_type=Path, file_okay=False),
    help="Copy the charts there, too.",
)
@click.option("--list", "listed", is_flag=True, help="Tell what is compared with whom, and end.")
def main(
    works: tuple[str, ...],
    peers: tuple[str, ...],
    rounds: int,
    seconds: float,
    quick: bool,
    directory: Path,
    output: Path,
    charts: Path | None,
    listed: bool,
) -> None:
    """Compare BlipMQ with other brokers that are installed here.

    Ends with status 1 when a run failed, whether or not targets are met.
    """
    if listed:
        _list(catalogue(directory), works)
        return
    selection = choose(catalogue(directory), works, peers)
    for name, why in selection.missing.items():
        click.echo(f"skipped: {name}, because {why}")
    if not selection.comparisons:
        raise click.UsageError("nothing is left to compare")
    scale, rounds = (QUICK, 1) if quick else (Scale(seconds=seconds), rounds)
    began = datetime.now(UTC).isoformat(timespec="seconds")
    machine = describe(directory)
    report = Report(
        command=shlex.join(["python", "-m", "tools.bench.compare", *sys.argv[1:]]),
        began=began,
        machine=machine,
        rounds=rounds,
        scale=scale,
        versions=selection.versions,
        missing=selection.missing,
        comparisons=selection.comparisons,
        samples=_measure(selection, rounds, scale),
    )
    _write(report, output, charts)
    _tell(report)
    if report.failures():
        sys.exit(1)


def _list(comparisons: list[Comparison], works: tuple[str, ...]) -> None:
    for each in comparisons:
        if not works or each.name in works:
            click.echo(f"{each.name}: {each.says}")
            targets = {target.candidate: target.factor for target in each.targets}
            for other in each.others:
                target = f", target {targets[other.name]:g}" if other.name in targets else ""
                click.echo(f"    {other.name} [{other.peer}]{target}")


def _measure(selection: Selection, rounds: int, scale: Scale) -> list[Sample]:
    """Show each comparison as soon as it is measured."""
    found: list[Sample] = []
    for comparison in selection.comparisons:
        samples = []
        for sample in alternate(comparison, rounds, scale):
            samples.append(sample)
            if sample.error:
                click.echo(
                    f"failed: {sample.comparison}, {sample.candidate}: {sample.error}", err=True
                )
        tables: dict[str, Rows] = {
            f"{comparison.name}: {comparison.says}": figures_lines(comparison, samples),
            "ours to theirs": ratio_lines(comparison, samples),
        }
        show(tables, as_json=False)
        found += samples
    return found


def _write(report: Report, output: Path, charts: Path | None) -> None:
    output.mkdir(parents=True, exist_ok=True)
    write_json(report, output / "report.json")
    write_samples(report, output / "samples.csv")
    write_ratios(report, output / "ratios.csv")
    if find_spec("matplotlib") is None:
        click.echo("no charts, because matplotlib is not installed", err=True)
        return
    from tools.bench.compare.charts import draw

    drawn = draw(report, output)
    if charts:
        charts.mkdir(parents=True, exist_ok=True)
        for path in drawn:
            shutil.copy(path, charts)


def _tell(report: Report) -> None:
    machine = report.machine
    click.echo(f"\n{_NOTE}\n")
    click.echo(
        f"{machine.cpu}, {machine.cores} cores, {machine.memory_gib:.0f} GiB; {machine.kernel}; "
        f"{machine.file_system}; load before: {machine.load:.1f}"
    )
    told = {text for texts in report.versions.values() for text in texts}
    click.echo("; ".join(sorted(told)))
    settings = {each.name: each.settings for one in report.comparisons for each in one.candidates}
    for name, found in settings.items():
        click.echo(f"{name}: {'; '.join(f'{key} {value}' for key, value in found.items())}")
    click.echo(f"{report.began}, rounds: {report.rounds}: {report.command}")
    if failures := report.failures():
        click.echo(f"\nruns that failed, of {len(report.samples)}: {len(failures)}", err=True)


if __name__ == "__main__":
    main()
