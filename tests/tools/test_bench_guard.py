"""The guard: turns are taken fairly, and a median that is too low fails."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import attrs
import pytest
from click.testing import CliRunner, Result

from tools.bench.guard import __main__ as guard_main
from tools.bench.guard.__main__ import Bench, CannotMeasure, figure, line
from tools.bench.guard.checkout import Base, NoBase, find_base
from tools.bench.guard.verdict import Compared, Side, Subject, take_turns

QOS0, LATENCY = Subject("qos0", "wire"), Subject("latency", "wire")


def test_sides_take_turns_in_going_first() -> None:
    order: list[tuple[Side, str]] = []

    def measure(side: Side, subject: Subject) -> float:
        order.append((side, subject.mode))
        return 1.0

    take_turns([QOS0, LATENCY], 2, measure)
    base, this = Side.BASE, Side.THIS
    assert order == [
        *((base, "qos0"), (this, "qos0"), (base, "latency"), (this, "latency")),
        *((this, "qos0"), (base, "qos0"), (this, "latency"), (base, "latency")),
    ]


def test_a_ratio_is_of_the_two_measured_in_one_round() -> None:
    figures = iter([100.0, 110.0, 90.0, 200.0, 10.0, 11.0])
    (compared,) = take_turns([QOS0], 3, lambda side, subject: next(figures))
    # base, this; this, base; base, this
    assert compared.ratios == (1.1, 0.45, 1.1)
    assert compared.median == 1.1


@pytest.mark.parametrize(
    ("ratios", "holds"),
    [((0.5, 0.9, 2.0), True), ((0.89, 0.89, 3.0), False), ((0.9,), True), ((1.5, 0.2, 0.2), False)],
)
def test_the_median_decides(ratios: tuple[float, ...], holds: bool) -> None:
    compared = Compared(QOS0, ratios)
    assert compared.holds(0.9) is holds
    assert line(compared, 0.9).verdict == ("holds" if holds else "below 0.9")


def test_a_line_shows_the_spread() -> None:
    found = line(Compared(QOS0, (1.0, 0.8, 1.3)), 0.9)
    assert (found.median, found.lowest, found.highest) == (1.0, 0.8, 1.3)


def test_more_is_better_also_of_latencies() -> None:
    def row(mode: str, p50_us: float, rate: float) -> dict[str, object]:
        latency = {"p50_us": p50_us}
        result = {"rate": rate, "latency": latency, "confirm_latency": latency}
        return {"mode": mode, "result": result}

    assert figure(row("qos0", 100.0, 5.0)) == 5.0
    assert figure(row("latency", 100.0, 5.0)) > figure(row("latency", 200.0, 9.0))
    assert figure(row("confirm", 100.0, 5.0)) > figure(row("confirm", 200.0, 9.0))


@attrs.frozen
class Fakes:
    """In place of a checkout and of measuring: `THIS` has a figure, the base has 1."""

    monkeypatch: pytest.MonkeyPatch

    def guard(self, figure: float, *arguments: str) -> Result:
        def measure(bench: Bench, side: Side, subject: Subject) -> float:
            return figure if side is Side.THIS else 1.0

        self.monkeypatch.setattr(Bench, "figure", measure)
        self.monkeypatch.setattr(guard_main, "find_base", lambda asked: Base("c0ffee", "v1"))
        self.monkeypatch.setattr(guard_main, "checked_out", lambda base: nullcontext("python"))
        return CliRunner().invoke(guard_main.main, list(arguments))


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> Fakes:
    return Fakes(monkeypatch)


def test_as_fast_as_the_base_is_fine(fakes: Fakes) -> None:
    found = fakes.guard(0.95)
    assert found.exit_code == 0
    assert "holds" in found.stdout
    assert "v1" in found.stderr


def test_slower_than_the_base_fails(fakes: Fakes) -> None:
    found = fakes.guard(0.85)
    assert found.exit_code == 1
    assert "below 0.9" in found.stdout


def test_the_ratios_are_there_for_programs(fakes: Fakes) -> None:
    found = fakes.guard(2.0, "--json", "--mode", "qos0", "--client", "wire", "--rounds", "3")
    (row,) = json.loads(found.stdout)["guard"]
    assert (row["mode"], row["median"], row["verdict"]) == ("qos0", 2.0, "holds")


def test_a_bench_that_fails_is_no_verdict(fakes: Fakes) -> None:
    def fail(bench: Bench, side: Side, subject: Subject) -> float:
        raise CannotMeasure("a message was lost")

    fakes.guard(1.0)
    fakes.monkeypatch.setattr(Bench, "figure", fail)
    found = CliRunner().invoke(guard_main.main, [])
    assert found.exit_code == 2
    assert "a message was lost" in found.stderr


@pytest.fixture
def git(tmp_path: Path) -> Callable[..., str]:
    def run(*arguments: str) -> str:
        identity = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
        command = ["git", *identity, *arguments]
        found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        return found.stdout.strip()

    run("init", "--quiet", "--initial-branch=work")
    run("commit", "--quiet", "--allow-empty", "--message=first")
    return run


def test_the_base_is_the_last_tag(git: Callable[..., str], tmp_path: Path) -> None:
    git("tag", "v1")
    tagged = git("rev-parse", "HEAD")
    for message in ("second", "third"):
        git("commit", "--quiet", "--allow-empty", f"--message={message}")
    found = find_base(None, tmp_path)
    assert (found.commit, found.why) == (tagged, "v1")


def test_without_a_tag_it_is_where_the_branch_began(
    git: Callable[..., str], tmp_path: Path
) -> None:
    began = git("rev-parse", "HEAD")
    git("update-ref", "refs/remotes/origin/main", began)
    for message in ("second", "third"):
        git("commit", "--quiet", "--allow-empty", f"--message={message}")
    found = find_base(None, tmp_path)
    assert found.commit == began
    assert "no tag" in found.why


def test_without_a_tag_and_a_branch_it_is_the_parent(
    git: Callable[..., str], tmp_path: Path
) -> None:
    parent = git("rev-parse", "HEAD")
    git("commit", "--quiet", "--allow-empty", "--message=second")
    found = find_base(None, tmp_path)
    assert found.commit == parent
    assert "no tag" in found.why


def test_another_base_may_be_asked_for(git: Callable[..., str], tmp_path: Path) -> None:
    git("tag", "v1")
    git("commit", "--quiet", "--allow-empty", "--message=second")
    assert find_base("HEAD", tmp_path).commit == git("rev-parse", "HEAD")


def test_a_base_that_is_not_there_is_an_error(git: Callable[..., str], tmp_path: Path) -> None:
    with pytest.raises(NoBase, match="nowhere"):
        find_base("nowhere", tmp_path)
    with pytest.raises(NoBase, match="only commit"):
        find_base(None, tmp_path)
