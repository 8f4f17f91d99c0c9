"""`blipmq wal`: looking into a log, checking, repairing and copying it, and moving messages."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Final

import click

from blipmq.broker.broker import NUMBERS_RESERVED
from blipmq.broker.limits import Limits, Retention
from blipmq.broker.restore import Restoration
from blipmq.cli.json_lines import to_line
from blipmq.cli.message_file import MessageFile
from blipmq.cli.progress import progress
from blipmq.cli.repair_report import damage_text, print_repair
from blipmq.cli.survey_report import counted, print_survey, survey_json, topic_text
from blipmq.config.settings import WalSettings
from blipmq.errors import CorruptLog, LogError
from blipmq.wal.backup import backup
from blipmq.wal.disk import DirectoryLocked
from blipmq.wal.log import Log
from blipmq.wal.repair import Repair, carry_out, plan, save_copy
from blipmq.wal.salvage import LiveDisk
from blipmq.wal.scan import LogScan, NoLog
from blipmq.wal.segment import segment_name
from blipmq.wal.survey import survey
from blipmq.wal.transfer import Importer, export

DAMAGED: Final = 1
DEFAULT_CAPACITY: Final = min(Retention().kept_messages, Limits().queue_capacity)
NOTHING_TO_REPAIR: Final = "nothing to repair: the daemon can start"

_PATH = click.argument("path", type=click.Path(path_type=Path))


@click.group()
def wal() -> None:
    """Look into the log of a daemon, PATH being its wal_path, and mend it.

    inspect, verify, export and backup may be used while the daemon runs.
    """


@wal.command("inspect")
@_PATH
@click.option("--json", "as_json", is_flag=True, help="For programs: one JSON object.")
def inspect_(path: Path, as_json: bool) -> int:
    """Show what is in a log, by segment, topic and subscription."""
    scan = _scan(path)
    with progress("reading", scan.size) as done:
        found = survey(scan, Restoration(), done)
    if as_json:
        click.echo(json.dumps(survey_json(path, found, _now_ms()), ensure_ascii=False, indent=2))
    else:
        print_survey(path, found, _now_ms())
    return DAMAGED if found.damages else 0


@wal.command()
@_PATH
def verify(path: Path) -> int:
    """Check every record of a log.

    The exit status is 0 when the daemon can start on it, 1 when it is damaged, and 2 when the path
    cannot be used.
    """
    scan = _scan(path)
    messages = 0
    with progress("checking", scan.size) as done:
        for record in scan.runs(done):
            messages += record.count
    _say_torn(scan)
    if _say_damages(scan):
        click.echo(f"`blipmq wal repair --dry-run {path}` says what can be saved")
        return DAMAGED
    records = sum(reader.records for reader in scan.readers.values())
    segments, all_records = counted(len(scan.readers), "segment"), counted(records, "record")
    click.echo(f"clean: {segments}, {all_records}, {counted(messages, 'message')}")
    return 0


@wal.command()
@_PATH
@click.option("--dry-run", is_flag=True, help="Only say what would be done, and what is lost.")
def repair(path: Path, dry_run: bool) -> int:
    """Cut what is damaged out of a log, so that the daemon starts on it.

    The daemon must not be running. A copy of the log, as it was, is saved beside it first.
    """
    if dry_run:
        needed = _plan(path)
        print_repair(needed)
        click.echo("dry run: nothing was changed" if needed.needed else NOTHING_TO_REPAIR)
        return 0
    _scan(path)  # a directory that holds no log is left as it is
    with _taken(path) as log:
        needed = _plan(path)
        print_repair(needed)
        if not needed.needed:
            click.echo(NOTHING_TO_REPAIR)
            return 0
        whole = path.resolve()
        now = datetime.fromtimestamp(_now_ms() // 1000, UTC)
        copy = whole.with_name(f"{whole.name}.before-repair-{now:%Y%m%dT%H%M%SZ}")
        with progress("saving a copy", needed.scan.size) as done:
            save_copy(whole, copy, done)
        click.echo(f"the log as it was: {copy}")
        carry_out(needed, log.disk, _salt())
        for damage in _plan(path).damages:
            where = f"{path / damage.name}: offset {damage.start}"
            raise CorruptLog(f"{where}: {damage.reason}; restore a backup, or report this")
    click.echo("repaired: the daemon can start")
    return 0


@wal.command("export")
@_PATH
@click.option("--topic", help="Only this topic.")
@click.option("--all", "settled", is_flag=True, help="Also what nobody wants any more.")
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Instead of standard output.",
)
def export_(path: Path, topic: str | None, settled: bool, output: Path | None) -> int:
    """Write messages as JSON Lines, an object each.

    Those that a subscription has not settled, or that are kept for a first one.
    """
    scan = _scan(path)
    name = None if topic is None else topic.encode()
    with _writing(output) as file, progress("exporting", scan.size) as done:
        count = 0
        for message in export(scan, Restoration(), topic=name, settled=settled, progress=done):
            file.write(to_line(message).encode() + b"\n")
            count += 1
    click.echo(f"exported {counted(count, 'message')}", err=True)
    return DAMAGED if _say_damages(scan, err=True) else 0


@wal.command("import")
@_PATH
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
def import_(path: Path, file: Path) -> int:
    """Append the messages of FILE to a log, for the daemon to deliver.

    FILE is JSON Lines, as export writes them, or a log of the older single-file format. The
    messages get new numbers. Those of a topic without a durable subscription are kept for the first
    one that comes. The daemon must not be running; the directory is made if need be.
    """
    source = MessageFile(file)
    try:
        with progress("checking", source.size) as done:
            for _ in source.messages(done):
                pass
    except LogError as error:
        raise type(error)(f"{error}; nothing was imported") from None
    if source.torn:
        click.echo(f"{file}: torn tail of {source.torn} bytes, as a crash leaves it, is left out")
    with _taken(path) as log, progress("importing", source.size) as done:
        importer = Importer(log, Restoration(), NUMBERS_RESERVED, _now_ms())
        importer.run(source.messages(done))
    for topic, imported in importer.topics.items():
        holders = imported.subscriptions
        whose = f"for {counted(holders, 'subscription')}" if holders else "kept"
        click.echo(f"{topic_text(topic)}: {counted(imported.messages, 'message')}, {whose}")
    total = sum(imported.messages for imported in importer.topics.values())
    click.echo(f"imported {counted(total, 'message')}")
    if any(i.messages > DEFAULT_CAPACITY for i in importer.topics.values()):
        click.echo(
            "the daemon keeps up to retention.kept_messages of a topic without a subscription, and"
            " limits.queue_capacity for a version 1 subscription: raise them before it starts"
        )
    return 0


@wal.command("backup")
@_PATH
@click.argument("destination", type=click.Path(path_type=Path))
def backup_(path: Path, destination: Path) -> int:
    """Copy a log to DESTINATION, a new directory, whether a daemon uses it or not.

    The copy has everything that was committed before. Start a daemon on it to restore.
    """
    scan = _scan(path)
    try:
        with progress("copying", scan.size) as done:
            copied = backup(path, destination, done)
    except CorruptLog as error:
        text = f"{error}; the daemon must be stopped and `blipmq wal repair {path}` run"
        raise CorruptLog(text) from None
    segments, messages = len(copied.segments), copied.messages
    click.echo(
        f"copied {counted(segments, 'segment')}, {copied.bytes} bytes,"
        f" {counted(messages, 'message')}"
    )
    click.echo(f"to restore: stop the daemon, and start it with wal_path = {str(destination)!r}")
    return 0


def _scan(path: Path) -> LogScan:
    """Begin to read a log, whoever has it. Raises NoLog saying what to do."""
    if not path.exists():
        raise NoLog(f"{path}: there is no such directory; the daemon's setting wal_path names it")
    if path.is_file():
        text = "this is a file; a log is a directory, and `blipmq wal import` reads older ones"
        raise NoLog(f"{path}: {text}")
    return LogScan.of(LiveDisk(path))


def _plan(path: Path) -> Repair:
    scan = _scan(path)
    with progress("reading", scan.size) as done:
        return plan(scan, Restoration(), NUMBERS_RESERVED, done)


@contextmanager
def _taken(path: Path) -> Iterator[Log]:
    """The log, with nobody else having it. Raises LogError when a daemon does."""
    try:
        log = Log.open(LiveDisk(path), WalSettings().segment_bytes, _salt)
    except LogError as error:
        if isinstance(error.__context__, DirectoryLocked):
            raise LogError(f"{error}; stop the daemon first") from None
        raise
    try:
        yield log
    except CorruptLog as error:
        text = f"{error}; `blipmq wal repair --dry-run {path}` says what can be saved"
        raise CorruptLog(text) from None
    finally:
        log.close()


def _say_torn(scan: LogScan) -> None:
    torn = [(r.sequence, r.kept_end, r.torn) for r in scan.readers.values() if r.torn]
    if scan.begun is not None:
        torn.append((scan.begun, 0, scan.begun_bytes))
    for sequence, offset, size in torn:
        where = f"{scan.disk.directory / segment_name(sequence)}: offset {offset}"
        click.echo(f"{where}: torn tail of {size} bytes, as a crash leaves it; the daemon cuts it")


def _say_damages(scan: LogScan, *, err: bool = False) -> bool:
    for damage in scan.damages:
        click.echo(f"{scan.disk.directory}/{damage_text(damage)}", err=err)
    return bool(scan.damages)


@contextmanager
def _writing(output: Path | None) -> Iterator[IO[bytes]]:
    if output is None:
        with click.open_file("-", "wb") as file:
            yield file
        return
    try:
        with output.open("wb") as file:
            yield file
    except OSError as error:
        raise LogError(f"{output}: {error.strerror}; choose another file") from None


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _salt() -> int:
    return secrets.randbits(32)
