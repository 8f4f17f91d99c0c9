"""Let a write to the log fail with EIO, and see that the daemon ends rather than limps on.

The publish that was not written gets NACK 500, the daemon says why and ends with status 1. What was
confirmed before is there after a restart, in order, what was accepted does not come back, and what
was refused was not written.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import click

from tools.chaos.disk_fault import WRITE_FAILS, FaultyDisk
from tools.chaos.failing_disk import fail_and_restart
from tools.chaos.verdict import Report, conclude


async def drill(directory: Path, disk: FaultyDisk | None = None) -> list[str]:
    """What was not as it must be."""
    report = Report()
    disk = disk or await FaultyDisk.find(directory)
    report.did(disk.how)
    for policy in ("always", "none"):
        report.did(f"fsync_policy = {policy}")
        log = directory / policy
        found = await fail_and_restart(report, disk, log, WRITE_FAILS, fsync_policy=policy)
        report.check("refused" not in found, "what was refused was not written")
    return report.violations


@click.command()
def main() -> None:
    """Let a write to the log fail, and see that the daemon ends rather than limps on."""
    print("io-error: the disk fails to write")
    with tempfile.TemporaryDirectory(prefix="blipmq-io-error-") as directory:
        conclude("io-error", drill, Path(directory))


if __name__ == "__main__":
    main()
