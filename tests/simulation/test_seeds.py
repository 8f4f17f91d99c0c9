"""A few hundred simulated runs; `make simulate` makes any number."""

from __future__ import annotations

import pytest

from tests.simulation.generate import plan
from tests.simulation.run import simulate

RUNS = 300
AT_ONCE = 25


@pytest.mark.parametrize("first", range(1, RUNS + 1, AT_ONCE))
def test_whatever_goes_wrong_the_promises_are_kept(first: int) -> None:
    for seed in range(first, first + AT_ONCE):
        found = simulate(plan(seed)).violations
        assert not found, f"make simulate SEED={seed} RUNS=1 says more"
