"""Flip bits of a killed daemon's log, and see that it refuses to start on every one of them.

It must end with status 1 and name the file and the offset, and leave the log as it is.
"""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

import click
import trio

from tools.chaos.daemon import Daemon, DaemonEnded
from tools.chaos.stopped_log import StoppedLog
from tools.chaos.verdict import conclude


async def drill(directory: Path, rounds: int, chance: random.Random) -> list[str]:
    """Flip so many bits, one at a time; what was not as it must be."""
    whole = await StoppedLog.make(directory / "whole")
    places = [(0, 32), *whole.records()]
    violations = []
    for _ in range(rounds):
        start, end = chance.choice(places)
        offset, bit = chance.randrange(start, end), chance.randrange(8)
        log = whole.copy(directory / "damaged")
        content = bytearray(log.segment.read_bytes())
        content[offset] ^= 1 << bit
        log.segment.write_bytes(content)
        print(f"  bit {bit} of byte {offset}, in the record at {start}")
        text = await _refusal(log)
        if f"{log.segment.name}: offset {start}: " not in text:
            violations.append(f"bit {bit} of byte {offset}: {text}")
        if log.segment.read_bytes() != content:
            violations.append(f"bit {bit} of byte {offset}: the log was changed")
    return violations


async def _refusal(log: StoppedLog) -> str:
    """What the daemon says when it is started on a log."""
    async with trio.open_nursery() as nursery:
        daemon = await Daemon.launch(nursery, log.directory)
        try:
            await daemon.ready()
        except DaemonEnded:
            status = await daemon.wait()
            return daemon.text if status == 1 else f"status {status}: {daemon.text}"
        nursery.cancel_scope.cancel()
    return "it started"


@click.command()
@click.option("--rounds", default=10, show_default=True, help="How many bits are flipped.")
@click.option("--seed", default=1, show_default=True, help="Repeats a run.")
def main(rounds: int, seed: int) -> None:
    """Flip bits of a killed daemon's log, and see that it refuses to start on every one."""
    with tempfile.TemporaryDirectory(prefix="blipmq-middle-") as directory:
        chance = random.Random(seed)  # noqa: S311, no secret
        conclude("corrupt-middle", drill, Path(directory), rounds, chance)


if __name__ == "__main__":
    main()
