"""A seed gives the same run, whatever else there is in the process, and whichever process it is."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.simulation.generate import plan
from tests.simulation.run import simulate

SEEDS = range(40, 52)


@pytest.fixture(scope="module")
def digests() -> list[str]:
    """Of the seeds, in this process."""
    return [f"{seed} {simulate(plan(seed)).digest}" for seed in SEEDS]


@pytest.mark.parametrize("hash_seed", ["1", "2"])
def test_another_process_has_the_same_history(hash_seed: str, digests: list[str]) -> None:
    command = [sys.executable, "-m", "tests.simulation", "--digest"]
    done = subprocess.run(
        [*command, "--seed", str(SEEDS.start), "--runs", str(len(SEEDS))],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == digests


def test_what_was_run_before_makes_no_difference(digests: list[str]) -> None:
    again = [f"{seed} {simulate(plan(seed)).digest}" for seed in reversed(SEEDS)]
    assert list(reversed(again)) == digests


def test_another_seed_has_another_history(digests: list[str]) -> None:
    assert len({line.split()[1] for line in digests}) == len(SEEDS)
