"""Start a second daemon on the log of one that runs, and see that it is refused.

It must end with status 1 and name the process that has the log, under any name of the directory;
the first must not notice. When the first is killed the lock is gone with it. Of many that start at
once exactly one wins.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import click
import trio

from tools.chaos.connection import Connection
from tools.chaos.daemon import Daemon, DaemonEnded
from tools.chaos.stopped_log import everything, refusal
from tools.chaos.verdict import Report, conclude

TOPIC = b"demo"


async def drill(directory: Path, rivals: int) -> list[str]:
    """What was not as it must be; so many daemons start at once."""
    report = Report()
    log = directory / "log"
    async with trio.open_nursery() as nursery:
        first = await Daemon.launch(nursery, log, retry_backoff_ms=600_000)
        async with await Connection.open(await first.ready()) as client:
            subscription = await client.subscribe(TOPIC)
            await client.publish(TOPIC, [b"before"])
            other_name = directory / "other-name"
            other_name.symlink_to(log)
            for path in (log, other_name):
                report.did(f"a second daemon is started on {path.name}")
                await _is_refused(report, first, path)
            await client.publish(TOPIC, [b"after"])
            found = await everything(client, subscription)
        report.check_equal(found, [b"before", b"after"], "the first one goes on")
        report.did("the first one is killed")
        await first.kill()
    for number in range(2):
        report.did(f"{rivals} daemons start at once")
        await _one_wins(report, log, rivals, number)
    return report.violations


async def _is_refused(report: Report, first: Daemon, path: Path) -> None:
    status, words = await refusal(path)
    report.check_equal(status, 1, "it does not start, status 1")
    report.check(words.endswith(f"pid {first.process.pid}"), f"it says: {words}")


async def _one_wins(report: Report, log: Path, rivals: int, number: int) -> None:
    winners: list[Daemon] = []
    losers: list[Daemon] = []

    async def compete() -> None:
        daemon = await Daemon.launch(nursery, log, retry_backoff_ms=600_000, max_retries=100)
        try:
            await daemon.ready()
        except DaemonEnded:
            losers.append(daemon)
        else:
            winners.append(daemon)

    async with trio.open_nursery() as nursery:
        async with trio.open_nursery() as competition:
            for _ in range(rivals):
                competition.start_soon(compete)
        report.check_equal(len(winners), 1, "one of them runs")
        told = sum("in use by another process" in loser.last_words for loser in losers)
        report.check_equal(told, rivals - 1, "all others say that the log is in use")
        if winners:
            async with await Connection.open(await winners[0].ready()) as client:
                subscription = await client.subscribe(TOPIC)
                await client.publish(TOPIC, [b"round %d" % number])
                found = await everything(client, subscription)
            expected = [b"before", b"after", *(b"round %d" % i for i in range(number + 1))]
            report.check_equal(found, expected, "it has all messages")
        nursery.cancel_scope.cancel()


@click.command()
@click.option("--rivals", default=6, show_default=True, help="How many daemons start at once.")
def main(rivals: int) -> None:
    """Start a second daemon on the log of one that runs, and see that it is refused."""
    print("second-daemon: two daemons on one log")
    with tempfile.TemporaryDirectory(prefix="blipmq-second-") as directory:
        conclude("second-daemon", drill, Path(directory), rivals)


if __name__ == "__main__":
    main()
