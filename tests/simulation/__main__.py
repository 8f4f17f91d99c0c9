"""Runs many seeds: `python -m tests.simulation --seed 7 --runs 1000`."""

from __future__ import annotations

import time
import traceback
from collections import Counter

import click

from tests.simulation.generate import plan
from tests.simulation.plan import Plan
from tests.simulation.run import Result, simulate
from tests.simulation.shrink import shrink

_REPORT_SECONDS = 10.0


@click.command()
@click.option("--seed", default=1, show_default=True, help="The first one.")
@click.option("--runs", default=1000, show_default=True, help="How many seeds, from that one on.")
@click.option("--shrink/--no-shrink", "shorten", default=True, help="Shorten what fails.")
@click.option("--trace", is_flag=True, help="Print all that happened, also when nothing fails.")
@click.option("--digest", is_flag=True, help="Print a digest of what happened, for each seed.")
def main(seed: int, runs: int, shorten: bool, trace: bool, digest: bool) -> None:
    """Simulate the whole broker, one run for each seed, and say what was not as promised."""
    counts: Counter[str] = Counter()
    failed: list[int] = []
    begun = told = time.monotonic()
    for each in range(seed, seed + runs):
        asked = plan(each)
        result = simulate(asked)
        counts.update(result.counts)
        if digest:
            click.echo(f"{each} {result.digest}")
        if trace:
            click.echo("\n".join(result.lines))
        if result.violations:
            failed.append(each)
            report(each, *(shrink(asked, result) if shorten else (asked, result)))
        if (now := time.monotonic()) - told >= _REPORT_SECONDS:
            told = now
            done = each - seed + 1
            click.echo(f"{done} runs, {done / (now - begun):.1f} a second, {len(failed)} failed")
    if not digest:
        seconds = time.monotonic() - begun
        click.echo(f"{runs} runs in {seconds:.0f} s, {runs / seconds:.1f} a second")
        for name, count in sorted(counts.items()):
            click.echo(f"  {count:9} {name}")
    if failed:
        click.echo(f"failed: {' '.join(map(str, failed))}")
        raise SystemExit(1)


def report(seed: int, plan: Plan, result: Result) -> None:
    """What has failed, and the shortest history of it."""
    click.echo(f"seed {seed} fails:")
    for violation in result.violations:
        click.echo(f"  {violation}")
    if result.error is not None:
        click.echo("".join(traceback.format_exception(result.error)))
    click.echo(f"with {plan.setup}")
    for part in (*plan.groups, *plan.operations, *plan.faults):
        click.echo(f"  {part}")
    click.echo("history:")
    for line in result.lines:
        click.echo(f"  {line}")


if __name__ == "__main__":
    main()
