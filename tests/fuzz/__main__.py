"""Fuzzes one target, guided by coverage: `python -m tests.fuzz session --seconds 60`.

With atheris (the extra `fuzz`) what covers more of the code is kept beside what fails. Without it
hypothesis changes what the corpus has, and nothing guides it.
"""

from __future__ import annotations

import hashlib
import random
import sys
import time
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import click
import coverage
from hypothesis import HealthCheck, given, settings
from hypothesis import seed as seeded

from tests.fuzz.targets import TARGETS, check_of, corpus, inputs, keep

_ROUND = 500
"""So many inputs without coverage are tried before the clock is looked at again."""
_INPUT_MAX = 4096


@click.command()
@click.argument("target", type=click.Choice(TARGETS))
@click.option("--seconds", default=60, show_default=True, help="How long.")
@click.option("--seed", type=int, help="Repeats a run, as far as its inputs go.")
@click.option(
    "--findings",
    type=click.Path(path_type=Path),
    default=Path("build/fuzz"),
    help="Where what fails is kept.",
)
@click.option("--input", "file", type=click.Path(exists=True, path_type=Path), help="Run this one.")
@click.option("--minimise", is_flag=True, help="Make the corpus of what covers more; run nothing.")
def main(
    target: str, seconds: int, seed: int | None, findings: Path, file: Path | None, minimise: bool
) -> None:
    """Hold one target against any input, for some time."""
    if minimise:
        _minimise(target, _grown(findings, target))
        return
    if file is not None:
        check_of(target)(file.read_bytes())
        return
    findings.mkdir(parents=True, exist_ok=True)
    if find_spec("atheris") is not None:
        _guided(target, seconds, seed, findings)
    else:
        click.echo("atheris is not installed (pip install 'blipmq[fuzz]'): not guided by coverage")
        _unguided(target, seconds, seed, findings)


def _grown(findings: Path, target: str) -> Path:
    """Where atheris keeps what covers more."""
    return findings / f"{target}-corpus"


def _minimise(target: str, grown: Path) -> None:
    """Keep of the corpus, and of what has grown since, the short ones that together cover all."""
    check = check_of(target)
    known = corpus(target)
    found = [path.read_bytes() for path in grown.iterdir()] if grown.exists() else []
    covered: set[object] = set()
    kept = []
    for data in sorted({*known, *found}, key=len):
        arcs = _arcs(check, data)
        if not arcs <= covered:
            covered |= arcs
            kept.append(data)
    keep(target, kept)
    click.echo(f"{target}: {len(kept)} inputs kept, there were {len(known)} and {len(found)} found")


def _arcs(check: Callable[[bytes], None], data: bytes) -> set[object]:
    """Which line of the package came after which."""
    measuring = coverage.Coverage(
        data_file=None, config_file=False, branch=True, source_pkgs=["blipmq"]
    )
    measuring.set_option("run:disable_warnings", ["module-not-measured", "no-data-collected"])
    with measuring.collect():
        check(data)
    measured = measuring.get_data()
    return {(file, arc) for file in measured.measured_files() for arc in measured.arcs(file) or ()}


def _guided(target: str, seconds: int, seed: int | None, findings: Path) -> None:
    atheris = import_module("atheris")
    with atheris.instrument_imports(include=["blipmq"]):
        check: Callable[[bytes], None] = check_of(target)
    options = [
        f"-max_total_time={seconds}",
        f"-max_len={_INPUT_MAX}",
        f"-artifact_prefix={findings}/{target}-",
    ]
    if seed is not None:
        options.append(f"-seed={seed}")
    grown = _grown(findings, target)
    grown.mkdir(exist_ok=True)
    for data in corpus(target):
        (grown / hashlib.sha1(data).hexdigest()).write_bytes(data)  # noqa: S324, as libFuzzer does
    atheris.Setup([sys.argv[0], *options, str(grown)], check)
    atheris.Fuzz()


def _unguided(target: str, seconds: int, seed: int | None, findings: Path) -> None:
    check, last, count = check_of(target), b"", 0

    def tried(data: bytes) -> None:
        nonlocal last, count
        last, count = data, count + 1
        check(data)

    healthy = list(HealthCheck)
    few = settings(deadline=None, max_examples=_ROUND, database=None, suppress_health_check=healthy)
    chance = random.Random(seed)  # noqa: S311, no secret
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            seeded(chance.randrange(2**32))(few(given(inputs(target))(tried)))()
        except Exception:
            # hypothesis tries the smallest one last
            file = findings / f"{target}-crash-{hashlib.sha256(last).hexdigest()[:16]}"
            file.write_bytes(last)
            click.echo(f"kept as {file}")
            raise
    click.echo(f"{target}: {count} inputs, none that failed")


if __name__ == "__main__":
    main()
