"""Take permissions of the log's directory and files away, before a start and while it runs.

The daemon must refuse to start, or end, and say why; the log is as it was, and when the permission
is back everything is there. The kernel looks at no permissions for root, so under root the daemon
is run without the capabilities that say so.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Final

import click
import trio

from tools.chaos.connection import Connection, Lost
from tools.chaos.daemon import BLIPMQD, Daemon, Program
from tools.chaos.stopped_log import BODIES, TOPIC, StoppedLog, everything, refusal
from tools.chaos.verdict import Report, conclude

SEGMENT_BYTES: Final = 4096
AS_ROOT: Final = Program(prefix=("setpriv", "--bounding-set=-dac_override,-dac_read_search"))
"""The daemon as a process for which permissions count."""


async def drill(directory: Path) -> list[str]:
    """What was not as it must be."""
    report = Report()
    program = AS_ROOT if os.geteuid() == 0 else BLIPMQD
    if program.prefix:
        report.did(f"this is root; the daemon is run by {' '.join(program.prefix)}")
    home = directory / "home"
    home.mkdir()
    log = await StoppedLog.make(home / "log", program)
    report.did(f"a log was written, mode {log.directory.stat().st_mode & 0o777:o}")
    await _refuses(report, log, program, home, 0o500, 2, home / "new", "may not make wal_path")
    await _refuses(report, log, program, log.directory, 0o000, 2, log.directory, "may not enter it")
    await _refuses(
        report, log, program, log.directory, 0o500, 1, log.directory, "may not write to it"
    )
    await _refuses(
        report, log, program, log.segment, 0o000, 1, log.segment, "may not read a segment"
    )
    await _loses_it_while_it_runs(report, log, program)
    return report.violations


@contextmanager
def _mode(path: Path, mode: int) -> Iterator[None]:
    """The path has another mode inside the context."""
    before = path.stat().st_mode
    path.chmod(mode)
    try:
        yield
    finally:
        path.chmod(before)


async def _refuses(
    report: Report,
    log: StoppedLog,
    program: Program,
    path: Path,
    mode: int,
    status: int,
    named: Path,
    what: str,
) -> None:
    before = log.content
    wal_path = named if named.parent == path else log.directory
    with _mode(path, mode):
        report.did(f"{what}: mode {mode:03o} of {path.name}")
        found, words = await refusal(wal_path, program)
    report.check_equal(found, status, f"the daemon does not start, status {status}")
    report.check("Permission denied" in words and str(named) in words, f"it says: {words}")
    report.check(log.content == before, "the log is as it was")


async def _loses_it_while_it_runs(report: Report, log: StoppedLog, program: Program) -> None:
    confirmed: list[bytes] = []
    answer = ""
    async with trio.open_nursery() as nursery:
        daemon = await Daemon.launch(
            nursery, log.directory, program, wal__segment_bytes=SEGMENT_BYTES
        )
        async with await Connection.open(await daemon.ready()) as client:
            with _mode(log.directory, 0o500):
                report.did("the daemon runs and may not make files any more")
                try:
                    for number in count():
                        body = b"later %d " % number + bytes(500)
                        answer = await client.refusal(TOPIC, body)
                        if answer:
                            break
                        confirmed.append(body)
                except Lost as error:
                    answer = f"the connection was lost: {error}"
                await client.aclose()
                status = await daemon.wait()
        report.check(
            answer.startswith("NACK 500 ") and "Permission denied" in answer,
            f"after {len(confirmed)} publishes, when it needs a new segment: {answer}",
        )
        report.check_equal(status, 1, "the daemon has ended with status 1")
    async with trio.open_nursery() as nursery:
        report.did("the permission is back; the daemon is started")
        daemon = await Daemon.launch(
            nursery, log.directory, program, retry_backoff_ms=600_000, max_retries=10
        )
        async with await Connection.open(await daemon.ready()) as client:
            found = await everything(client, await client.subscribe(TOPIC))
        expected = [*BODIES, *confirmed]
        report.check(found == expected, f"all {len(expected)} that were confirmed are there")
        nursery.cancel_scope.cancel()


@click.command()
def main() -> None:
    """Take permissions away, and see that the daemon says so and loses nothing."""
    print("permission: the log's directory cannot be used")
    with tempfile.TemporaryDirectory(prefix="blipmq-permission-") as directory:
        conclude("permission", drill, Path(directory))


if __name__ == "__main__":
    main()
