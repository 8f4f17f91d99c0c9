"""Every mode of the bench counts every message, with both kinds of client; no speed is asserted."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.peer import PATIENCE_SECONDS
from tools.bench.daemon import running_daemon
from tools.bench.guard.__main__ import Bench
from tools.bench.guard.verdict import Side, Subject
from tools.bench.modes import MODES, Shape

ROOT: Final = Path(__file__).parents[2]
MESSAGES: Final = 400
BOTH = [
    (mode, kind)
    for mode in MODES
    for kind in ("wire", "client")
    if kind == "wire" or MODES[mode].shape not in (Shape.ECHO, Shape.POLLS)
]


def run_bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tools.bench", *arguments]
    return subprocess.run(
        command,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=4 * PATIENCE_SECONDS,
        check=False,
    )


def measured(*arguments: str) -> dict[str, Any]:
    """The one row of that run."""
    found = run_bench(*arguments, "--json")
    assert found.returncode == 0, found.stderr
    (row,) = json.loads(found.stdout)["bench"]
    assert isinstance(row, dict)
    return row


@pytest.mark.parametrize(("mode", "kind"), BOTH)
def test_a_mode_counts_what_it_publishes(mode: str, kind: str, tmp_path: Path) -> None:
    total = ("--total-messages", str(MESSAGES))
    row = measured(mode, "--client", kind, *total, "--directory", str(tmp_path))
    result = row["result"]
    assert (result["kind"], result["published"]) == (kind, MESSAGES)
    copies = MODES[mode].subscribers if MODES[mode].topics == 1 else 1
    assert result["received"] == MESSAGES * copies
    assert result["cpu_s_per_million"] is not None
    assert result["peak_memory_mib"] > 0
    assert row["server"]


@pytest.mark.parametrize("qos", ["0", "1"])
@pytest.mark.parametrize("polls", ["1", "64"])
def test_polling_counts_too(qos: str, polls: str) -> None:
    options = ["--qos", qos, "--polls", polls, "--total-messages", str(MESSAGES)]
    row = measured("qos1", "--delivery", "poll", "--subscribers", "2", *options)
    assert (row["delivery"], row["result"]["received"]) == ("poll", 2 * MESSAGES)


@pytest.mark.parametrize("kind", ["wire", "client"])
def test_mixed_sizes_and_topics_are_counted(kind: str) -> None:
    sizes = ["--message-size", "16,100,5000", "--total-messages", str(MESSAGES)]
    clients = ["--publishers", "2", "--subscribers", "3", "--topics", "4"]
    row = measured("qos1", "--client", kind, *sizes, *clients)
    # Publishers have two topics each; subscribers two, one and one; so each message has one taker.
    assert row["result"]["received"] == MESSAGES
    assert row["sizes"] == [16, 100, 5000]


@pytest.mark.parametrize("kind", ["wire", "client"])
def test_a_subscriber_may_have_nothing_to_receive(kind: str) -> None:
    clients = ["--subscribers", "3", "--topics", "3", "--total-messages", "2"]
    assert measured("qos1", "--client", kind, *clients)["result"]["received"] == 2


@pytest.mark.parametrize("kind", ["wire", "client"])
def test_a_timed_run_receives_what_it_published(kind: str) -> None:
    row = measured("scaled", "--client", kind, "--duration-secs", "0.2", "--qos", "1")
    assert row["result"]["received"] == row["result"]["published"] > 0


@pytest.mark.parametrize("kind", ["wire", "client"])
def test_at_a_rate_every_message_has_a_latency(kind: str) -> None:
    row = measured("qos1", "--client", kind, "--rate", "2000", "--total-messages", "200")
    latency = row["result"]["latency"]
    assert latency["count"] == 200
    assert 0 < latency["p50_us"] <= latency["p95_us"] <= latency["p99_us"] <= latency["max_us"]


@pytest.mark.parametrize("kind", ["wire", "client"])
def test_the_guard_gets_a_figure_of_either_side(tmp_path: Path, kind: str) -> None:
    (tmp_path / "tools").symlink_to(ROOT / "tools")
    pythons = dict.fromkeys(Side, sys.executable)
    bench = Bench(pythons, tmp_path, ("--total-messages", str(MESSAGES)))
    assert all(bench.figure(side, Subject("qos0", kind)) > 0 for side in Side)


def test_a_log_is_used_when_it_is_asked_for(tmp_path: Path) -> None:
    options = ["--use-wal", "--fsync-policy", "every_n:64", "--directory", str(tmp_path)]
    row = measured("qos1", "--total-messages", str(MESSAGES), *options)
    assert row["server"]["wal"] == "every_n:64"
    assert list(tmp_path.iterdir()) == []


def test_people_get_a_table_that_says_which_client_it_was() -> None:
    found = run_bench("qos0", "--client", "both", "--total-messages", str(MESSAGES))
    assert found.returncode == 0, found.stderr
    lines = [line.split() for line in found.stdout.splitlines()]
    kinds = [line[1] for line in lines if line[:1] == ["qos0"]]
    assert kinds == ["wire", "client"]


@pytest.fixture
def address() -> Iterator[str]:
    """Of a broker that runs."""
    with running_daemon("", "none") as daemon:
        yield "{}:{}".format(*daemon.address)


@pytest.mark.parametrize("kind", ["wire", "client"])
def test_a_running_broker_is_measured(address: str, kind: str) -> None:
    options = ["--address", address, "--total-messages", str(MESSAGES)]
    row = measured("qos1", "--client", kind, *options)
    assert row["result"]["received"] == MESSAGES
    assert row["result"]["cpu_s_per_million"] is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "'nothing' is not one of"),
        ([], "which mode?"),
        (["qos0", "--address", "127.0.0.1:1"], "no broker at 127.0.0.1:1"),
        (["qos0", "--message-size", "8"], "at least 16 bytes"),
        (["qos0", "--message-size", "big"], "not a list of numbers"),
        (["qos0", "--total-messages", "5", "--duration-secs", "5"], "either"),
        (["durable", "--fsync-policy", "sometimes"], "did not start"),
        (["qos1", "--no-wal", "--fsync-policy", "none"], "no fsync policy"),
        (["qos0", "--client", "client", "--delivery", "poll"], "--client wire"),
        (["latency", "--rate", "5"], "neither a rate"),
        (["latency", "--subscribers", "2"], "one subscriber"),
        (["qos0", "--pin", "9999"], "no core"),
    ],
)
def test_what_cannot_be_is_said(arguments: list[str], message: str) -> None:
    found = run_bench(*arguments)
    assert found.returncode == 2
    assert message in found.stderr
    assert "Traceback" not in found.stderr


def test_a_wrong_key_is_said(address: str) -> None:
    found = run_bench("qos0", "--address", address, "--api-key", "wrong")
    assert found.returncode == 2
    assert "invalid API key" in found.stderr
