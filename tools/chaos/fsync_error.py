"""Let an fsync fail with EIO, and see that the daemon ends rather than tries it again.

What waited for that fsync gets NACK 500, and may be there after a restart or not. Under the
policies that confirm before they sync, the publish is confirmed and the daemon ends all the same.
What was confirmed before is there after a restart, in order, and what was accepted does not come
back.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Final

import click
import trio

from tools.chaos.connection import Connection, Lost
from tools.chaos.disk_fault import SYNC_FAILS, FaultyDisk
from tools.chaos.failing_disk import fail_and_restart
from tools.chaos.stopped_log import everything
from tools.chaos.verdict import Report, conclude

TOPIC: Final = b"demo"
EARLY: Final = ("every_n:1", "interval_ms:20")
"""Policies that confirm before they sync."""


async def drill(directory: Path, disk: FaultyDisk | None = None) -> list[str]:
    """What was not as it must be."""
    report = Report()
    disk = disk or await FaultyDisk.find(directory)
    report.did(disk.how)
    report.did("fsync_policy = always")
    await fail_and_restart(report, disk, directory / "always", SYNC_FAILS)
    for number, policy in enumerate(EARLY):
        report.did(f"fsync_policy = {policy}")
        await _ends_and_loses_nothing(report, disk, directory / f"early-{number}", policy)
    return report.violations


async def _ends_and_loses_nothing(report: Report, disk: FaultyDisk, log: Path, policy: str) -> None:
    confirmed: list[bytes] = []
    async with trio.open_nursery() as nursery:
        daemon = await disk.launch(nursery, log, fsync_policy=policy)
        async with await Connection.open(await daemon.ready()) as client:
            await client.subscribe(TOPIC)
            async with disk.fault(daemon, SYNC_FAILS):
                report.did(SYNC_FAILS.name)
                try:
                    while not await client.refusal(TOPIC, b"%d" % len(confirmed)):
                        confirmed.append(b"%d" % len(confirmed))
                except Lost:
                    pass
                await client.aclose()
                status = await daemon.wait()
        report.check_equal(status, 1, "the daemon has ended with status 1")
        words = daemon.last_words
        report.check("fsync failed" in words, f"its last words: {words}")
    async with trio.open_nursery() as nursery:
        daemon = await disk.launch(nursery, log, retry_backoff_ms=600_000)
        async with await Connection.open(await daemon.ready()) as client:
            found = await everything(client, await client.subscribe(TOPIC))
        found = found[: len(confirmed)]
        report.check(found == confirmed, f"all {len(confirmed)} that were confirmed are there")
        nursery.cancel_scope.cancel()


@click.command()
def main() -> None:
    """Let an fsync fail, and see that the daemon ends rather than tries it again."""
    print("fsync-error: the disk fails to fsync")
    with tempfile.TemporaryDirectory(prefix="blipmq-fsync-error-") as directory:
        conclude("fsync-error", drill, Path(directory))


if __name__ == "__main__":
    main()
