"""Candidates that measure nothing, and results made up for them."""

from __future__ import annotations

from collections.abc import Callable

from tools.bench.compare.comparison import Candidate, Comparison, Group, Load, Scale, Target
from tools.bench.load.latencies import Percentiles
from tools.bench.load.runner import Result
from tools.bench.load.work import Guarantee

LOAD = Load(guarantee=Guarantee.AT_MOST_ONCE)


def result(rate: float, p50_us: float = 10.0) -> Result:
    latency = Percentiles(100, p50_us, 20.0, 30.0, 40.0, 50.0)
    return Result("wire", 100, 100, 1.0, rate, rate, latency, None, 0.5, 12.0)


def candidate(
    name: str,
    measure: Callable[[Load, Scale], Result] = lambda _load, _scale: result(100.0),
    version: Callable[[], str] = lambda: "1.0",
) -> Candidate:
    return Candidate(
        name=name, peer=name, settings={"set": "so"}, versions=[version], measure=measure
    )


def comparison(ours: Candidate, *others: Candidate, targets: tuple[Target, ...] = ()) -> Comparison:
    return Comparison(
        name="work",
        says="some work",
        group=Group.AT_MOST_ONCE,
        load=LOAD,
        ours=ours,
        others=others,
        targets=targets,
    )
