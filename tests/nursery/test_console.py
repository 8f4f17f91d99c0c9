"""The task console: what it tells of tasks, to whom, and what it costs in memory."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from blipmq.config import AdminSettings
from blipmq.errors import ConfigError
from blipmq.nursery.console import LONG_STEP_SECONDS, open_console
from blipmq.protocol import encoder
from tests.nursery.asking import ADMIN_KEY, ask
from tests.nursery.daemon import Daemon, InlineRunner, serving

ADMIN = AdminSettings((ADMIN_KEY,))


class Hands:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


async def tasks_of(daemon: Daemon, query: str = "") -> Any:
    answer = await ask(daemon.app, f"/debug/tasks{query}", key=ADMIN_KEY)
    assert answer.status == 200, answer.body
    return answer.json


def rows(tree: Any) -> Iterator[Any]:
    yield tree
    for nursery in tree["nurseries"]:
        for task in nursery["tasks"]:
            yield from rows(task)


def row(tree: Any, name: str) -> Any:
    (found,) = [row for row in rows(tree) if row["name"].endswith(name)]
    return found


async def test_the_tree_has_the_tasks_of_the_daemon_and_what_they_wait_for(
    autojump_clock: MockClock,
) -> None:
    async with serving(enable_trio_console=True, admin=ADMIN) as daemon:
        await daemon.client()
        tree = (await tasks_of(daemon))["tree"]
        scheduler = row(tree, "scheduler.run_scheduler")
        assert scheduler["waits"].startswith("blipmq.nursery.bell.Bell.wait:")
        assert scheduler["waits"].endswith(": await self._waiting.wait()")
        assert scheduler["waits_for"] == "trio._sync.Event.wait"
        assert row(tree, "WalWriter.run") in list(rows(row(tree, "Daemon.serve")))
        assert any("reader.read" in place for place in row(tree, "_run_handler")["stack"])


async def test_a_deadline_is_told(autojump_clock: MockClock) -> None:
    async def patient() -> None:
        with trio.move_on_after(50):
            await trio.sleep_forever()

    with open_console(Hands()) as console:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(patient)
            await wait_all_tasks_blocked()
            tree = await console.tree(10, 100)
            assert row(tree, "patient")["deadline_seconds"] == 50
            nursery.cancel_scope.cancel()


async def test_a_step_is_counted_with_its_time_and_a_long_one_is_remembered() -> None:
    clock = Hands()

    async def slow() -> None:
        clock.now += LONG_STEP_SECONDS * 2
        await trio.lowlevel.checkpoint()
        clock.now += LONG_STEP_SECONDS / 2

    with open_console(clock) as console:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(slow)
        (named,) = [named for named in console.names() if str(named["name"]).endswith("slow")]
        assert (named["running"], named["ended"], named["polls"]) == (0, 1, 2)
        assert named["busy_seconds"] == pytest.approx(LONG_STEP_SECONDS * 2.5)
        assert named["longest_step_seconds"] == pytest.approx(LONG_STEP_SECONDS * 2)
        (long,) = console.long_steps
        assert long.name.endswith("slow")


async def test_lag_is_the_time_that_a_task_waits_for_others() -> None:
    clock = Hands()
    go_on = trio.Event()

    async def waits() -> None:
        await go_on.wait()

    async def hogs() -> None:
        await go_on.wait()
        clock.now += 1

    with open_console(clock) as console:
        async with trio.open_nursery() as nursery:
            for task in (hogs, hogs, waits):
                nursery.start_soon(task)
            await wait_all_tasks_blocked()
            before = console.lag.busy
            go_on.set()
        # Whatever their order: the last to go on waited for both of the others, or one of them.
        assert console.lag.busy - before >= 1
        assert console.lag.longest >= 1
        assert console.lag.polls == sum(console.lag_histogram)


async def test_time_without_work_is_idle_and_not_busy() -> None:
    clock = Hands()

    class Waits(trio.abc.Instrument):
        def after_io_wait(self, timeout: float) -> None:
            if timeout > 0:
                clock.now += 5

    # What is added first is called first.
    trio.lowlevel.add_instrument(waits := Waits())
    with open_console(clock) as console:
        await trio.to_thread.run_sync(int)  # nothing else can go on meanwhile
        assert console.idle >= 5
        assert console.steps.busy == 0
    trio.lowlevel.remove_instrument(waits)


async def test_only_the_busiest_of_a_nursery_are_shown_and_the_rest_is_counted() -> None:
    clock = Hands()

    async def busy(seconds: float) -> None:
        clock.now += seconds
        await trio.sleep_forever()

    with open_console(clock) as console:
        async with trio.open_nursery() as nursery:
            for number in range(30):
                nursery.start_soon(busy, number / 100, name=f"busy {number}")
            await wait_all_tasks_blocked()
            tree = await console.tree(3, 1_000)
            shown = {row["name"] for row in rows(tree) if row["name"].startswith("busy")}
            assert shown == {"busy 27", "busy 28", "busy 29"}
            assert [n["more"] for row in rows(tree) for n in row["nurseries"] if n["more"]] == [27]
            assert len(list(rows(await console.tree(1_000, 10)))) == 10
            nursery.cancel_scope.cancel()


async def test_tasks_that_ended_take_memory_by_their_names_alone() -> None:
    async def ends() -> None:
        await trio.lowlevel.checkpoint()

    with open_console(Hands()) as console:
        async with trio.open_nursery() as nursery:
            for number in range(1_000):
                nursery.start_soon(ends, name=f"task {number}")
        assert len(console.names()) < 300
        assert console.loop()["tasks_ended"] == 1_000
        assert console.loop()["tasks"] == len(list(rows(await console.tree(1_000, 1_000))))


async def test_the_channel_to_the_log_shows_how_full_it_is(autojump_clock: MockClock) -> None:
    runner = InlineRunner()
    async with serving(enable_trio_console=True, admin=ADMIN, runner=runner) as daemon:
        peer = await daemon.client()
        (idle,) = (await tasks_of(daemon))["channels"]
        assert (idle["name"], idle["places"], idle["taken"]) == ("wal", 64, 0)
        runner.hold()
        await peer.send(encoder.publish(1, 1, b"t", b"x"))
        await wait_all_tasks_blocked()
        (channel,) = (await tasks_of(daemon))["channels"]
        assert channel["taken"] == 1
        runner.release()


async def test_threads_are_told_with_where_they_are(autojump_clock: MockClock) -> None:
    async with serving(enable_trio_console=True, admin=ADMIN) as daemon:
        asked = await trio.to_thread.run_sync(partial(trio.from_thread.run, tasks_of, daemon))
        assert asked["threads"]["borrowed"] == 1
        busy = [row["at"] for row in asked["threads"]["threads"] if not row["idle"]]
        assert any(place.startswith("trio._threads.") for place in busy)


async def test_it_is_for_who_has_an_admin_key(autojump_clock: MockClock) -> None:
    async with serving(enable_trio_console=True, admin=ADMIN) as daemon:
        assert (await ask(daemon.app, "/debug/tasks")).error[0] == 401
        assert (await ask(daemon.app, "/debug/tasks", key="a wrong key")).error[0] == 401
    async with serving(enable_trio_console=True) as daemon:
        assert (await ask(daemon.app, "/debug/tasks", key=ADMIN_KEY)).error[0] == 403


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "children=x", "depth=1"])
async def test_a_query_that_has_no_meaning_is_refused(
    autojump_clock: MockClock, query: str
) -> None:
    async with serving(enable_trio_console=True, admin=ADMIN) as daemon:
        answer = await ask(daemon.app, f"/debug/tasks?{query}", key=ADMIN_KEY)
        assert answer.error[0] == 400


async def test_off_it_watches_nothing_and_says_how_to_switch_it_on(
    autojump_clock: MockClock,
) -> None:
    async with serving(admin=ADMIN) as daemon:
        assert daemon.state.console is None
        status, message = (await ask(daemon.app, "/debug/tasks", key=ADMIN_KEY)).error
        assert status == 409
        assert "enable_trio_console" in message


async def test_without_stackscope_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "stackscope", None)
    wanted = "enable_trio_console: needs stackscope; .*extra `console`"
    with pytest.raises(ConfigError, match=wanted), open_console(Hands()):
        pass


async def test_nothing_is_watched_any_more_when_it_is_closed() -> None:
    with open_console(Hands()) as console:
        await trio.lowlevel.checkpoint()
    polls = console.steps.polls
    await trio.lowlevel.checkpoint()
    assert console.steps.polls - polls <= 1
