"""Tear the end of a killed daemon's log as a crash does, and see that it starts again.

What was whole must be there, the torn rest must be gone and reported, and the broker must go on.
The last record is torn at every one of its bytes, which recovery alone has to bear; at some of them
a whole daemon is started.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

import click
import trio

from blipmq.errors import CorruptLog
from tools.chaos.connection import Connection
from tools.chaos.daemon import Daemon
from tools.chaos.stopped_log import BODIES, TOPIC, StoppedLog, everything
from tools.chaos.verdict import conclude

Tear = Callable[[bytearray, int, int], int]
"""Tears the record that begins at an offset, at another; how many messages it takes away."""


def cut_off(content: bytearray, start: int, at: int) -> int:
    """The end of the last record was not written."""
    del content[at:]
    return 1


def zeroed(content: bytearray, start: int, at: int) -> int:
    """The file has its size, but not all of its bytes."""
    content[at:] = bytes(len(content) - at)
    return 1


def just_begun(content: bytearray, start: int, at: int) -> int:
    """Of one more record there are the first bytes."""
    content += content[start:at]
    return 0


TEARS: Final[tuple[Tear, ...]] = (cut_off, zeroed, just_begun)


async def drill(directory: Path, rounds: int, chance: random.Random, step: int = 1) -> list[str]:
    """Tear it at every `step`th byte, and start so many daemons; what was not as it must be."""
    whole = await StoppedLog.make(directory / "whole")
    start, end = whole.records()[-1]
    violations = []
    for tear in TEARS:
        places = range(start + 1, end, step)
        for at in places:
            log, taken = _torn(whole, directory / "torn", tear, at)
            found = _recovered(log)
            if found != (len(BODIES) - taken, True):
                violations.append(f"{tear.__name__} at byte {at - start}: {found} was recovered")
        print(f"  {tear.__name__} at {len(places)} of the {end - start} bytes of the last record")
    for number in range(rounds):
        tear, at = TEARS[number % len(TEARS)], chance.randrange(start + 1, end)
        log, taken = _torn(whole, directory / "torn", tear, at)
        print(f"  {tear.__name__} at byte {at - start} of {end - start}: a daemon starts on it")
        violations += [
            f"{tear.__name__} at byte {at - start}: {text}" for text in await _restart(log, taken)
        ]
    return violations


def _torn(whole: StoppedLog, directory: Path, tear: Tear, at: int) -> tuple[StoppedLog, int]:
    """A copy that is torn, and how many messages that took."""
    log = whole.copy(directory)
    content = bytearray(log.segment.read_bytes())
    taken = tear(content, whole.records()[-1][0], at)
    log.segment.write_bytes(content)
    return log, taken


def _recovered(log: StoppedLog) -> tuple[int, bool] | str:
    """How many messages, and whether something was torn off; or why not."""
    try:
        messages, torn = log.recover()
    except CorruptLog as error:
        return str(error)
    return messages, torn > 0


async def _restart(log: StoppedLog, taken: int) -> list[str]:
    expected = list(BODIES[: len(BODIES) - taken])
    violations = []
    async with trio.open_nursery() as nursery:
        daemon = await Daemon.launch(nursery, log.directory, retry_backoff_ms=600_000)
        async with await Connection.open(await daemon.ready()) as connection:
            subscription = await connection.subscribe(TOPIC)
            found = await everything(connection, subscription)
            if found != expected:
                violations.append(f"{len(found)} messages are there, not {len(expected)}")
            if not daemon.logged("torn tail cut off"):
                violations.append("the torn tail was not reported")
            await connection.publish(TOPIC, [b"one more"])
            if await everything(connection, subscription) != [b"one more"]:
                violations.append("a new message was not delivered")
        await daemon.kill()
    return violations


@click.command()
@click.option("--rounds", default=9, show_default=True, help="How often a daemon is started.")
@click.option("--seed", default=1, show_default=True, help="Repeats a run.")
def main(rounds: int, seed: int) -> None:
    """Tear the end of a killed daemon's log, and see that it starts again."""
    print("corrupt-tail: a log's last record is torn")
    with tempfile.TemporaryDirectory(prefix="blipmq-tail-") as directory:
        chance = random.Random(seed)  # noqa: S311, no secret
        conclude("corrupt-tail", drill, Path(directory), rounds, chance)


if __name__ == "__main__":
    main()
