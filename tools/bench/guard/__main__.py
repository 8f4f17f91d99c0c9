"""`python -m tools.bench.guard`: whether this checkout is as fast as an earlier one.

Both brokers get the same load, from this checkout's bench. With `client`, each side has its own
client library, too.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import attrs
import click

from tools.bench.guard.checkout import ROOT, NoBase, checked_out, find_base
from tools.bench.guard.verdict import LOWEST, Compared, Side, Subject, take_turns
from tools.bench.modes import MODES, Shape
from tools.bench.options import json_option
from tools.bench.table import show

ROUNDS = 5
GUARDED = {"wire": [m for m in MODES if m != "echo"], "client": ["qos0", "qos1", "latency"]}


class CannotMeasure(Exception):
    """The bench failed; what it said."""


@attrs.frozen
class Line:
    """A ratio of 1 is as fast as the base, above is faster; of latencies it is the other way up."""

    mode: str
    client: str
    median: float
    lowest: float
    highest: float
    verdict: str


@attrs.frozen
class Bench:
    """Runs one mode of this checkout's bench on either side.

    `tools` is a directory with the bench and nothing else, so that the rest comes from the side's
    own environment.
    """

    pythons: dict[Side, str]
    tools: Path
    options: tuple[str, ...]

    def figure(self, side: Side, subject: Subject) -> float:
        """What is more when better: a rate, or one over a latency. Raises CannotMeasure."""
        python = self.pythons[side]
        bench = python if subject.kind == "client" else sys.executable
        command = [bench, "-P", "-m", "tools.bench", subject.mode, "--client", subject.kind]
        command += ["--json", "--python", python, *self.options]
        environment = {**os.environ, "PYTHONPATH": str(self.tools)}
        found = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False
        )
        if found.returncode:
            raise CannotMeasure(f"{side.value}, {subject.mode}: {found.stderr.strip()}")
        (row,) = json.loads(found.stdout)["bench"]
        return figure(row)


def figure(row: dict[str, Any]) -> float:
    """Of a row that the bench gives as JSON."""
    result = row["result"]
    shape = MODES[row["mode"]].shape
    if shape is Shape.TRIPS:
        return 1 / float(result["latency"]["p50_us"])
    if shape is Shape.CONFIRMS:
        return 1 / float(result["confirm_latency"]["p50_us"])
    return float(result["rate"])


def line(compared: Compared, lowest: float) -> Line:
    """The row of the table."""
    return Line(
        compared.subject.mode,
        compared.subject.kind,
        compared.median,
        min(compared.ratios),
        max(compared.ratios),
        "holds" if compared.holds(lowest) else f"below {lowest}",
    )


@click.command(context_settings={"show_default": True})
@click.option("--base", help="A commit. [default: the last tag]")
@click.option("--rounds", default=ROUNDS, type=click.IntRange(1))
@click.option("--lowest", default=LOWEST, help="The median ratio that still holds.")
@click.option("--mode", "modes", multiple=True, type=click.Choice(list(MODES)), help="Only these.")
@click.option("--client", "kinds", multiple=True, type=click.Choice(list(GUARDED)))
@click.option("--total-messages", type=click.IntRange(1), help="Instead of each mode's own.")
@click.option("--pin", help="Hold broker and clients to cores.")
@json_option
def main(
    base: str | None,
    rounds: int,
    lowest: float,
    modes: tuple[str, ...],
    kinds: tuple[str, ...],
    total_messages: int | None,
    pin: str | None,
    as_json: bool,
) -> None:
    """Compare this checkout with an earlier one, in alternation.

    Exits with 1 when the median ratio of any mode is too low, with 2 when nothing can be compared.
    """
    try:
        found = find_base(base)
    except NoBase as error:
        _cannot(str(error))
    click.echo(f"base: {found.commit[:12]} ({found.why})", err=True)
    options = ["--total-messages", str(total_messages)] if total_messages else []
    options += ["--pin", pin] if pin else []
    subjects = [Subject(mode, kind) for kind in kinds or GUARDED for mode in modes or GUARDED[kind]]
    try:
        with checked_out(found) as python, tempfile.TemporaryDirectory() as directory:
            (Path(directory) / "tools").symlink_to(ROOT / "tools")
            pythons = {Side.BASE: python, Side.THIS: sys.executable}
            bench = Bench(pythons, Path(directory), tuple(options))
            compared = take_turns(subjects, rounds, partial(_told, bench))
    except (CannotMeasure, subprocess.CalledProcessError) as error:
        _cannot(str(error))
    show({"guard": [line(each, lowest) for each in compared]}, as_json=as_json)
    if not all(each.holds(lowest) for each in compared):
        sys.exit(1)


def _told(bench: Bench, side: Side, subject: Subject) -> float:
    found = bench.figure(side, subject)
    click.echo(f"{subject.mode} {subject.kind}, {side.value}: {found:,.6g}", err=True)
    return found


def _cannot(why: str) -> NoReturn:
    click.echo(f"Error: {why}", err=True)
    sys.exit(2)


if __name__ == "__main__":
    main()
