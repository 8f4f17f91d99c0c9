"""Candidates take turns, and a run that went wrong is an error and no figure."""

from __future__ import annotations

from tests.tools.compare.fakes import candidate, comparison, result
from tools.bench.compare.comparison import Load, Metric, Scale, Target
from tools.bench.compare.rounds import Sample, alternate
from tools.bench.compare.selection import choose
from tools.bench.compare.verdict import Met, Spread, verdicts
from tools.bench.load.runner import Result
from tools.bench.load.work import Miscounted
from tools.bench.peers.process import Missing


def samples(ours: list[float], theirs: list[float]) -> list[Sample]:
    found = []
    for number, (one, other) in enumerate(zip(ours, theirs, strict=True)):
        found.append(Sample("work", "ours", number, result(one, p50_us=one)))
        found.append(Sample("work", "peer", number, result(other, p50_us=other)))
    return found


def failing(_load: Load, _scale: Scale) -> Result:
    raise Miscounted("one is missing")


def absent() -> str:
    raise Missing("peer-server")


def test_each_round_begins_with_another_candidate() -> None:
    asked = comparison(candidate("a"), candidate("b"), candidate("c"))
    order = "".join(each.candidate for each in alternate(asked, 3, Scale()))
    assert order == "abcbcacab"


def test_a_miscounted_run_is_an_error_and_the_others_go_on() -> None:
    asked = comparison(candidate("a"), candidate("b", failing))
    found = [(each.candidate, each.error) for each in alternate(asked, 1, Scale())]
    assert found == [("a", None), ("b", "Miscounted: one is missing")]


def test_a_ratio_is_of_one_round_and_the_median_of_all_is_judged() -> None:
    asked = comparison(candidate("ours"), candidate("peer"), targets=(Target("peer", 2.0),))
    [verdict] = verdicts(asked, samples([100, 400, 90], [50, 100, 60]))
    assert verdict.ratio == Spread(2.0, 1.5, 4.0)
    assert verdict.met is Met.YES


def test_a_median_below_the_target_misses_it() -> None:
    asked = comparison(candidate("ours"), candidate("peer"), targets=(Target("peer", 2.1),))
    assert verdicts(asked, samples([100, 400, 90], [50, 100, 60]))[0].met is Met.NO


def test_of_a_latency_less_is_better() -> None:
    target = Target("peer", 1.5, Metric.P50)
    asked = comparison(candidate("ours"), candidate("peer"), targets=(target,))
    found = {each.metric: each.met for each in verdicts(asked, samples([12], [10]))}
    assert found == {Metric.RATE: Met.NO_TARGET, Metric.P50: Met.YES}


def test_where_a_run_failed_no_target_is_met() -> None:
    asked = comparison(candidate("ours"), candidate("peer"), targets=(Target("peer", 1.0),))
    broken = [*samples([100], [50]), Sample("work", "peer", 1, None, "Miscounted: lost")]
    assert verdicts(asked, broken)[0].met is Met.FAILED


def test_a_peer_that_is_not_installed_is_left_out_by_name() -> None:
    asked = comparison(candidate("ours"), candidate("peer", version=absent), candidate("other"))
    found = choose([asked])
    assert [each.name for each in found.comparisons[0].others] == ["other"]
    assert found.missing == {"peer": "peer-server is not installed"}


def test_with_nobody_left_nothing_is_compared() -> None:
    assert not choose(
        [comparison(candidate("ours"), candidate("peer", version=absent))]
    ).comparisons


def test_only_the_peers_that_were_asked_for_are_compared() -> None:
    asked = comparison(candidate("ours"), candidate("peer"), candidate("other"))
    found = choose([asked], peers=["peer"])
    assert [each.name for each in found.comparisons[0].others] == ["peer"]
