from __future__ import annotations

import io
import signal

import trio

from blipmq.cli.task_signal import TaskSignal


async def _wait_for_ever() -> None:
    await trio.sleep_forever()


async def _parent() -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_wait_for_ever, name="waiting child")
        await trio.testing.wait_all_tasks_blocked()
        signal.raise_signal(signal.SIGUSR1)
        nursery.cancel_scope.cancel()


def test_the_signal_writes_every_task_below_its_parent_with_where_it_waits() -> None:
    stream = io.StringIO()
    trio.run(_parent, instruments=[TaskSignal(stream)])
    lines = stream.getvalue().splitlines()
    indents = {line.strip(): len(line) - len(line.lstrip()) for line in lines}
    parent = next(line for line in indents if "_parent" in line)
    child = next(line for line in indents if line.startswith("waiting child"))
    assert indents[child] == indents[parent] + 2
    assert child.endswith("in _wait_for_ever")
    assert __file__ in child


def test_the_signal_is_given_back_when_the_run_ends() -> None:
    before = signal.getsignal(signal.SIGUSR1)
    trio.run(trio.lowlevel.checkpoint, instruments=[TaskSignal(io.StringIO())])
    assert signal.getsignal(signal.SIGUSR1) is before
