"""Looking at dead letters without taking them: from the log, or from memory where there is none."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Final

import attrs
import trio

from blipmq.broker.operator import Letter, Letters, Range
from blipmq.nursery.state import DaemonState
from blipmq.protocol.run import stored_run
from blipmq.wal.reading import Chunk, LogReader

PAGE_BYTES: Final = 1024 * 1024
"""What a page holds of messages, about; one message at least."""
_READS_MAX: Final = 16
"""Parts of the log that are read for one page."""


@attrs.frozen(eq=False)
class Found:
    """Dead letters in the order of their numbers; all below `next` are in it. None: no more."""

    letters: list[Letter]
    next: int | None


@attrs.define(eq=False)
class Peek:
    """Reads for one request at a time."""

    state: DaemonState
    _turn: trio.Lock = attrs.Factory(trio.Lock)

    async def read(
        self, letters: Letters, first: int, limit: int, chosen: Sequence[int] | None = None
    ) -> Found:
        """Up to `limit` dead letters from number `first` on; of those `chosen`, if they are given.

        Raises LogError when the log cannot be read.
        """
        reader = self.state.reader
        ranges = self.state.broker.operator.numbers(letters)
        if chosen is not None:
            ranges = _chosen(ranges, chosen)
        if reader is None:
            return self._in_memory(letters, first, limit, ranges)
        async with self._turn:
            return await self._in_log(reader, letters.topic.name, first, limit, ranges)

    def _in_memory(
        self, letters: Letters, first: int, limit: int, ranges: Sequence[Range]
    ) -> Found:
        found: list[Letter] = []
        size = 0
        for letter in self.state.broker.operator.in_memory(letters):
            if letter.number < first or not _within(letter.number, ranges):
                continue
            if len(found) == limit or size >= PAGE_BYTES:
                return Found(found, letter.number)
            found.append(letter)
            size += letter.size
        return Found(found, None)

    async def _in_log(
        self, reader: LogReader, topic: bytes, first: int, limit: int, ranges: Sequence[Range]
    ) -> Found:
        found: list[Letter] = []
        size = 0
        for _ in range(_READS_MAX):
            wanted = next((r for r in ranges if r[1] >= first), None)
            if wanted is None:
                return Found(found, None)
            first = max(first, wanted[0])
            call = partial(_read, reader, topic, first, ranges[-1][1] + 1)
            chunk = await self.state.outside.run_blocking(call)
            for record in chunk.runs:
                run = stored_run(record.topic, record.first, bytes(record.data))
                for index in range(max(0, first - run.first), run.count):
                    letter = Letter(run, index, record.time_ms)
                    if not _within(letter.number, ranges):
                        continue
                    if len(found) == limit or size >= PAGE_BYTES:
                        return Found(found, letter.number)
                    found.append(letter)
                    size += letter.size
            first = chunk.reached
        return Found(found, first)


def _read(reader: LogReader, topic: bytes, first: int, stop: int) -> Chunk:
    """In a thread. Nothing is held open, so that segments may go."""
    try:
        return reader.read(topic, first, stop, PAGE_BYTES)
    finally:
        reader.close()


def _within(number: int, ranges: Sequence[Range]) -> bool:
    low, high = 0, len(ranges)
    while low < high:
        middle = (low + high) // 2
        if ranges[middle][1] < number:
            low = middle + 1
        else:
            high = middle
    return low < len(ranges) and ranges[low][0] <= number


def _chosen(ranges: Sequence[Range], chosen: Sequence[int]) -> list[Range]:
    return [(number, number) for number in sorted(set(chosen)) if _within(number, ranges)]
