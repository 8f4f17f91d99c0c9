"""The benchmarks count every message that they publish, confirm, deliver and recover."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import attrs
import pytest

from tests.peer import PATIENCE_SECONDS
from tools.bench.idle import KINDS

ROOT: Final = Path(__file__).parents[2]
Row = dict[str, Any]


@attrs.frozen
class Bench:
    """Runs benchmarks whose logs are in `directory`."""

    directory: Path

    def __call__(self, name: str, *arguments: str) -> dict[str, list[Row]]:
        """The tables that `tools.bench.<name>` reports."""
        command = [sys.executable, "-m", f"tools.bench.{name}", "--json", *arguments]
        if name != "idle":
            command += ["--directory", str(self.directory)]
        found = subprocess.run(
            command, cwd=ROOT, stdout=subprocess.PIPE, timeout=4 * PATIENCE_SECONDS, check=True
        )
        tables: dict[str, list[Row]] = json.loads(found.stdout)
        return tables


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_every_publish_is_confirmed(bench: Bench) -> None:
    arguments = ["--policy", "always", "--policy", "no log", "--publishers", "3"]
    tables = bench("confirm", *arguments, "--messages", "3000", "--messages-alone", "30")
    found = [(row["policy"], row["in_flight_each"], row["confirmed"]) for row in tables["confirm"]]
    assert found == [
        ("always", 1, 30),
        ("always", 256, 3000),
        ("no log", 1, 30),
        ("no log", 256, 3000),
    ]


def test_a_backlog_is_drained_to_the_last_message(bench: Bench) -> None:
    tables = bench("backlog", "--messages", "40000", "--live-messages", "2000")
    found = {row["phase"]: row["messages"] for row in tables["phases"]}
    assert found == {"live": 2000, "grow": 40_000, "drain": 40_000}


def test_each_subscription_drains_what_came_after_its_start(bench: Bench) -> None:
    arguments = ["--messages", "40000", "--live-messages", "2000", "--publishers", "2"]
    tables = bench("backlog", *arguments, "--subscriptions", "4", "--cold")
    found = {row["phase"]: row["messages"] for row in tables["phases"]}
    assert found["drain"] == 40_000 + 30_000 + 20_000 + 10_000


def test_what_is_written_holds_what_was_published(bench: Bench) -> None:
    arguments = ["--policy", "always", "--size", "256", "--messages", "4000"]
    lone, many = bench("amplification", *arguments, "--messages-alone", "40")["amplification"]
    assert (lone["consumed"], many["consumed"]) == (40, 4000)
    assert lone["written"] > many["written"] > 1


def test_all_that_was_confirmed_outlives_the_crashes(bench: Bench) -> None:
    tables = bench("recovery", "--messages", "0", "--messages", "20000", "--drain")
    found = [(row["messages"], row["cached"]) for row in tables["recovery"]]
    assert found == [(0, True), (0, False), (20_000, True), (20_000, False)]
    assert tables["drained"] == [{"messages": 20_000}]


def test_idle_connections_of_every_kind_are_counted_and_cost_memory(bench: Bench) -> None:
    rows = bench("idle", "--connections", "200", "--quiet-secs", "0.1")["idle"]
    assert [row["connections"] for row in rows] == [200] * len(KINDS)
    assert [row["kind"] for row in rows] == list(KINDS)
    assert all(row["kib_each"] > 0 for row in rows)
