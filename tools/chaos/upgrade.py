"""Start a daemon on a log that an older one wrote, and see that all of it is there.

The older one had a topic whose subscriber had accepted a part and held another, and a topic that
nobody subscribed to, and was killed. Its log is kept in `tools/chaos/older_log`: the format of
records before subscriptions could be shared. `--older CHECKOUT` has one written anew by the code of
that directory.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click
import trio

from tools.chaos.connection import Connection
from tools.chaos.daemon import Daemon, Program
from tools.chaos.verdict import Report, conclude

KEPT: Final = Path(__file__).parent / "older_log"
TOPIC: Final = b"demo"
ALONE: Final = b"alone"
"""Nobody subscribes to it while the older daemon runs."""
SEGMENT_BYTES: Final = 8_192
ACCEPTED: Final = 100
HELD: Final = 50
BODIES: Final = tuple(b"%d %s" % (number, b"x" * 50) for number in range(300))
ALONE_BODIES: Final = BODIES[:20]
_POLLS: Final = 500
_FORGOTTEN_SECONDS: Final = 0.5
"""What was accepted this long before a kill is not forgotten."""


async def write(directory: Path, older: Path) -> None:
    """Let the code in the checkout `older` write the log."""
    program = Program(prefix=("env", "-C", str(older)))  # Python imports from there first
    async with trio.open_nursery() as nursery:
        daemon = await Daemon.launch(
            nursery,
            directory,
            program,
            wal__segment_bytes=SEGMENT_BYTES,
            retry_backoff_ms=600_000,
        )
        async with await Connection.open(await daemon.ready()) as connection:
            subscription = await connection.subscribe(TOPIC)
            await connection.publish(TOPIC, BODIES)
            await connection.publish(ALONE, ALONE_BODIES)
            taken = await connection.poll(subscription, ACCEPTED + HELD)
            await connection.accept(subscription, [each.tag for each in taken[:ACCEPTED]])
            await trio.sleep(_FORGOTTEN_SECONDS)
        await daemon.kill()
        nursery.cancel_scope.cancel()


async def drill(directory: Path, older: Path | None) -> Sequence[str]:
    """What of the older log is not there."""
    report = Report()
    log = directory / "log"
    if older is None:
        shutil.copytree(KEPT, log)
        report.did(f"the log that an older daemon left: {len(list(log.glob('*.wal')))} segments")
    else:
        await write(log, older)
        report.did(f"a daemon of {older} wrote a log and was killed")
    for start in ("first", "second"):
        await _look(report, log, start)
    await _is_taken_over(report, log)
    return report.violations


async def _launch(nursery: trio.Nursery, log: Path) -> Daemon:
    return await Daemon.launch(
        nursery, log, retry_backoff_ms=600_000, retention__session_expiry_ms=600_000_000
    )


async def _look(report: Report, log: Path, start: str) -> None:
    """Take everything, accept nothing, kill."""
    async with trio.open_nursery() as nursery:
        daemon = await _launch(nursery, log)
        async with await Connection.open(await daemon.ready()) as connection:
            subscription = await connection.subscribe(TOPIC)
            found = [each.body for each in await connection.poll(subscription, _POLLS)]
            report.check_equal(
                found, list(BODIES[ACCEPTED:]), f"{start} start: what was not accepted is there"
            )
        await daemon.kill()
        nursery.cancel_scope.cancel()


async def _is_taken_over(report: Report, log: Path) -> None:
    """The log goes on: what is accepted and published now is so after another start."""
    async with trio.open_nursery() as nursery:
        daemon = await _launch(nursery, log)
        async with await Connection.open(await daemon.ready()) as connection:
            subscription = await connection.subscribe(TOPIC)
            taken = await connection.poll(subscription, _POLLS)
            await connection.accept(subscription, [each.tag for each in taken])
            await connection.publish(TOPIC, [b"new"])
            alone = await connection.subscribe(ALONE)
            kept = [each.body for each in await connection.poll(alone, _POLLS)]
            report.check_equal(kept, list(ALONE_BODIES), "what nobody had wanted was kept")
        report.check_equal(await daemon.terminate(), 0, "it shuts down with status 0")
    async with trio.open_nursery() as nursery:
        daemon = await _launch(nursery, log)
        async with await Connection.open(await daemon.ready()) as connection:
            subscription = await connection.subscribe(TOPIC)
            (new, *more) = await connection.poll(subscription, _POLLS)
            report.check_equal(
                (new.body, more), (b"new", []), "then only what was published since comes"
            )
            report.check(new.tag > max(each.tag for each in taken), "numbers go on where they were")
        report.check_equal(await daemon.terminate(), 0, "it shuts down with status 0")


@click.command()
@click.option(
    "--older",
    type=click.Path(exists=True, file_okay=False, resolve_path=True, path_type=Path),
    help="A checkout of an older version that is to write the log.",
)
@click.option("--keep", is_flag=True, help="Write the log that is kept anew; with --older.")
def main(older: Path | None, keep: bool) -> None:
    """Start a daemon on a log that an older one wrote."""
    print("upgrade: an old log, a new daemon")
    if keep:
        if older is None:
            raise click.UsageError("--keep needs --older")
        shutil.rmtree(KEPT, ignore_errors=True)
        trio.run(write, KEPT, older)
        for unneeded in set(KEPT.iterdir()) - set(KEPT.glob("*.wal")):
            unneeded.unlink()
        return
    with tempfile.TemporaryDirectory(prefix="blipmq-upgrade-") as directory:
        conclude("upgrade", drill, Path(directory), older)


if __name__ == "__main__":
    main()
