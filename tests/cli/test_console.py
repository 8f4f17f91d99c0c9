"""`blipmq console`: what it shows, and why it cannot."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from functools import partial

import pytest
import trio
from trio.testing import MockClock

from blipmq.cli import statuses
from blipmq.cli.api import ApiRequest, ApiResponse
from blipmq.cli.console import Lag, TaskWatching, short
from blipmq.cli.outside import Outside
from blipmq.cli.target import Target
from tests.cli.shell import Shell, opened


@pytest.fixture
async def watched(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    autojump_clock: MockClock,
) -> AsyncIterator[Shell]:
    """Of a daemon that watches its tasks."""
    async with opened(capsys, monkeypatch, enable_trio_console=True) as shell:
        yield shell


async def test_it_shows_tasks_channels_and_threads(
    watched: Shell, autojump_clock: MockClock
) -> None:
    assert await watched("console", "--once") == 0
    assert "run_scheduler" in watched.out
    assert "trio._sync.Event.wait" in watched.out
    assert "channel wal: 0 of 64 places taken" in watched.out
    assert "threads: " in watched.out


async def test_what_is_not_shown_is_counted(watched: Shell, autojump_clock: MockClock) -> None:
    assert await watched("console", "--once", "--children", 1) == 0
    assert " more" in watched.out


async def test_programs_get_what_the_daemon_answers(
    watched: Shell, autojump_clock: MockClock
) -> None:
    assert await watched("console", "--once", "--json") == 0
    (document,) = watched.lines
    assert document["tree"]["name"] == "<init>"
    assert document["loop"]["tasks"] > 5


async def test_it_goes_on_until_it_is_interrupted(
    watched: Shell, autojump_clock: MockClock, capsys: pytest.CaptureFixture[str]
) -> None:
    outside = Outside(fetch=watched.fetch_in_memory)
    watching = TaskWatching(children=5, rows=5, interval=1.0, once=False, as_json=True)
    with trio.move_on_after(3.5):
        await watching.run(outside, Target(None))
    assert len(capsys.readouterr().out.splitlines()) == 4


async def test_a_daemon_that_goes_away_is_shown_and_asked_again(
    watched: Shell, autojump_clock: MockClock, capsys: pytest.CaptureFixture[str]
) -> None:
    outside = Outside(fetch=watched.fetch_in_memory)
    watching = TaskWatching(children=5, rows=5, interval=1.0, once=False, as_json=False)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(watching.run, outside, Target(None)))
        await trio.sleep(1.5)
        watched.reachable = False
        await trio.sleep(1)
        watched.reachable = True
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    assert len(watched.asked) == 3


async def test_a_daemon_that_does_not_watch_says_how_to_have_it(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    autojump_clock: MockClock,
) -> None:
    async with opened(capsys, monkeypatch) as shell:
        assert await shell("console", "--once") == statuses.FAILED
        assert "set enable_trio_console" in shell.err


async def test_it_needs_an_admin_key(watched: Shell, autojump_clock: MockClock) -> None:
    watched.set(BLIPMQ_CLIENT_ADMIN_KEY="")
    assert await watched("console", "--once") == statuses.NOT_PERMITTED
    assert "BLIPMQ_CLIENT_ADMIN_KEY" in watched.err


async def test_who_answers_otherwise_is_no_daemon(
    watched: Shell, autojump_clock: MockClock
) -> None:
    async def other(url: str, request: ApiRequest) -> ApiResponse:
        return ApiResponse(200, json.dumps({"loop": []}).encode())

    watched.fetch = other
    assert await watched("console", "--once") == statuses.UNREACHABLE
    assert "not as the API of a BlipMQ daemon" in watched.err


def test_a_quantile_is_the_bound_of_its_bucket() -> None:
    histogram = (
        {"below_seconds": 0.001, "steps": 90.0},
        {"below_seconds": 0.008, "steps": 10.0},
    )
    lag = Lag(steps=100, seconds=1.0, longest_seconds=0.007, histogram=histogram)
    assert [lag.quantile(part) for part in (0.5, 0.9, 0.99)] == [0.001, 0.001, 0.008]


@pytest.mark.parametrize(
    ("seconds", "text"), [(2.5, "2.5 s"), (0.0125, "12.5 ms"), (3e-6, "3 µs"), (0.0, "0 µs")]
)
def test_short_times_have_the_unit_that_suits_them(seconds: float, text: str) -> None:
    assert short(seconds) == text
