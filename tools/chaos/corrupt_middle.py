"""Flip bits of a killed daemon's log, and see that it refuses to start on every one of them.

It must end with status 1 and name the file and the offset, and leave the log as it is. One bit of
every byte of the header and of three records is flipped, which recovery alone has to notice; in
each of their fields once more with a whole daemon.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import attrs
import click

from blipmq.errors import CorruptLog
from blipmq.wal.record import RECORD_HEADER_BYTES, SEGMENT_HEADER_BYTES
from tools.chaos.stopped_log import StoppedLog
from tools.chaos.verdict import conclude

HEADER_FIELDS: Final = {
    "magic": (0, 8),
    "format version": (8, 12),
    "salt": (12, 16),
    "sequence number": (16, 24),
    "reserved": (24, 28),
    "checksum": (28, SEGMENT_HEADER_BYTES),
}
RECORD_FIELDS: Final = {"id": (0, 8), "length": (8, 12), "checksum": (12, RECORD_HEADER_BYTES)}


@attrs.frozen
class Field:
    """Bytes of a log that mean something; the record they are part of begins at `record`."""

    name: str
    record: int
    start: int
    end: int


def fields(log: StoppedLog) -> Iterator[Field]:
    """Those of the header, and of the first, the middle and the last record."""
    for name, (start, end) in HEADER_FIELDS.items():
        yield Field(f"{name} of the header", 0, start, end)
    records = log.records()
    places = {"first": records[0], "middle": records[len(records) // 2], "last": records[-1]}
    for which, (start, end) in places.items():
        for name, (first, last) in RECORD_FIELDS.items():
            yield Field(f"{name} of the {which} record", start, start + first, start + last)
        payload = start + RECORD_HEADER_BYTES
        yield Field(f"payload of the {which} record", start, payload, end - 1)
        yield Field(f"last byte of the {which} record", start, end - 1, end)


async def drill(directory: Path, rounds: int, chance: random.Random, step: int = 1) -> list[str]:
    """Flip a bit of every `step`th byte, and start so many daemons (0: one for each field).

    What was not as it must be.
    """
    whole = await StoppedLog.make(directory / "whole")
    known = list(fields(whole))
    violations = []
    flips = 0
    for field in known:
        for offset in range(field.start, field.end, step):
            bit = chance.randrange(8)
            log = _damaged(whole, directory / "damaged", offset, bit)
            violations += _told(log, _reason(log), field, offset, bit)
            flips += 1
    print(f"  a bit of each of {flips} bytes: recovery refuses it, with the offset")
    for field in known if rounds == 0 else chance.sample(known, rounds):
        offset, bit = chance.randrange(field.start, field.end), chance.randrange(8)
        log = _damaged(whole, directory / "damaged", offset, bit)
        before = log.content
        print(f"  bit {bit} of byte {offset}, in the {field.name}: a daemon refuses it")
        violations += _told(log, await log.refusal(), field, offset, bit)
        if log.content != before:
            violations.append(f"bit {bit} of byte {offset}: the log was changed")
    return violations


def _damaged(whole: StoppedLog, directory: Path, offset: int, bit: int) -> StoppedLog:
    log = whole.copy(directory)
    content = bytearray(log.segment.read_bytes())
    content[offset] ^= 1 << bit
    log.segment.write_bytes(content)
    return log


def _reason(log: StoppedLog) -> str:
    try:
        log.recover()
    except CorruptLog as error:
        return str(error)
    return "recovery takes it"


def _told(log: StoppedLog, text: str, field: Field, offset: int, bit: int) -> list[str]:
    """What is wrong with a refusal that has to name the record."""
    if f"{log.segment.name}: offset {field.record}: " in text:
        return []
    return [f"bit {bit} of byte {offset}, in the {field.name}: {text}"]


@click.command()
@click.option("--rounds", default=0, help="How many daemons are started; 0: one for each field.")
@click.option("--seed", default=1, show_default=True, help="Repeats a run.")
def main(rounds: int, seed: int) -> None:
    """Flip bits of a killed daemon's log, and see that it refuses to start on every one."""
    print("corrupt-middle: bits of a log flip")
    with tempfile.TemporaryDirectory(prefix="blipmq-middle-") as directory:
        chance = random.Random(seed)  # noqa: S311, no secret
        conclude("corrupt-middle", drill, Path(directory), rounds, chance)


if __name__ == "__main__":
    main()
