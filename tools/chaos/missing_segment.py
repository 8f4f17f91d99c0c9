"""Take segments of a killed daemon's log away, or put something else in their place.

The log is of several segments, all of which hold messages that somebody wants. The daemon must
refuse to start without any one of them as it was, name the file, and leave the rest as it is. But
when the end of the last one is gone, it cannot know that it was there: it cuts what is torn.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

import attrs
import click
import trio

from tools.chaos.connection import Connection
from tools.chaos.daemon import Daemon
from tools.chaos.stopped_log import BODIES, TOPIC, StoppedLog, everything
from tools.chaos.verdict import Report, conclude

SEGMENT_BYTES: Final = 4096

Damage = Callable[[StoppedLog, Path, StoppedLog], None]
"""Damages one segment of a log; there is another log to take one from."""


def missing(log: StoppedLog, segment: Path, other: StoppedLog) -> None:
    """The file is not there."""
    segment.unlink()


def empty(log: StoppedLog, segment: Path, other: StoppedLog) -> None:
    """The file is there, and nothing in it."""
    segment.write_bytes(b"")


def truncated(log: StoppedLog, segment: Path, other: StoppedLog) -> None:
    """The second half is not there."""
    content = segment.read_bytes()
    segment.write_bytes(content[: len(content) // 2])


def zero_filled(log: StoppedLog, segment: Path, other: StoppedLog) -> None:
    """The file has its size, and no content."""
    segment.write_bytes(bytes(segment.stat().st_size))


def half_zero_filled(log: StoppedLog, segment: Path, other: StoppedLog) -> None:
    """The file has its size, and zeros in its second half."""
    content = segment.read_bytes()
    segment.write_bytes(content[: len(content) // 2].ljust(len(content), b"\0"))


def of_another_log(log: StoppedLog, segment: Path, other: StoppedLog) -> None:
    """A whole segment with the right name and number, written by another daemon."""
    shutil.copy(other.directory / segment.name, segment)


def of_another_number(log: StoppedLog, segment: Path, other: StoppedLog) -> None:
    """Another segment of this very log."""
    shutil.copy(next(path for path in log.segments if path != segment), segment)


def no_segment(log: StoppedLog, segment: Path, other: StoppedLog) -> None:
    """A file of somebody else."""
    segment.write_bytes(b"\x7fELF" + b"not a log at all " * 300)


DAMAGES: Final[tuple[Damage, ...]] = (
    missing,
    empty,
    truncated,
    zero_filled,
    half_zero_filled,
    of_another_number,
    of_another_log,
    no_segment,
)
LIKE_A_CRASH: Final = (truncated, half_zero_filled)
"""In the last segment these cannot be told from what a crash leaves behind."""
PLACES: Final = {"first": 0, "middle": 3, "last": -1}


@attrs.frozen
class Case:
    """One damage, to the first, the middle or the last segment."""

    damage: Damage
    place: str

    @property
    def refused(self) -> bool:
        return self.place != "last" or self.damage not in LIKE_A_CRASH


CASES: Final = tuple(Case(damage, place) for place in PLACES for damage in DAMAGES)


async def drill(directory: Path, cases: Iterable[Case] = CASES) -> list[str]:
    """What was not as it must be."""
    report = Report()
    whole = await StoppedLog.make(directory / "whole", wal__segment_bytes=SEGMENT_BYTES)
    other = await StoppedLog.make(directory / "other", wal__segment_bytes=SEGMENT_BYTES)
    report.did(f"two logs of {len(whole.segments)} segments were written, their daemons killed")
    for case in cases:
        log = whole.copy(directory / "damaged")
        segment = log.segments[PLACES[case.place]]
        report.did(f"the {case.place} segment, {segment.name}: {case.damage.__name__}")
        case.damage(log, segment, other)
        if case.refused:
            await _is_refused(report, log, segment)
        else:
            await _is_cut(report, log)
    return report.violations


async def _is_refused(report: Report, log: StoppedLog, segment: Path) -> None:
    before = log.content
    text = await log.refusal()
    report.check(segment.name in text, f"refused: {text.replace(f'{log.directory}/', '')}")
    report.check(log.content == before, "the log is as it was")


async def _is_cut(report: Report, log: StoppedLog) -> None:
    async with trio.open_nursery() as nursery:
        daemon = await Daemon.launch(nursery, log.directory, retry_backoff_ms=600_000)
        async with await Connection.open(await daemon.ready()) as connection:
            found = await everything(connection, await connection.subscribe(TOPIC))
        report.check(daemon.logged("torn tail cut off"), "taken for a torn tail, and reported")
        report.check(found == list(BODIES[: len(found)]), "the messages before it are there")
        nursery.cancel_scope.cancel()


@click.command()
def main() -> None:
    """Take segments of a log away or damage them, and see that the daemon refuses to start."""
    print("missing-segment: segments of a log are lost, or are not what they should be")
    with tempfile.TemporaryDirectory(prefix="blipmq-segment-") as directory:
        conclude("missing-segment", drill, Path(directory))


if __name__ == "__main__":
    main()
