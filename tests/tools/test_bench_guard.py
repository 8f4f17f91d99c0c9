"""The guard: turns are taken fairly, and a median that is too low fails."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tools.bench.guard.__main__ import figure, line
from tools.bench.guard.checkout import NoBase, find_base
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
