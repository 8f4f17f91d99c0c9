"""What of a cursor's messages is on the disk alone, and what of it to read next."""

from __future__ import annotations

from bisect import bisect_left

import attrs

_GAP_MAX = 4096
"""Numbers between two ranges that are read along rather than to begin another read."""
_RANGES_MAX = 1024

Range = tuple[int, int, int]
"""First number, last number, attempts."""


@attrs.define(eq=False)
class Behind:
    """A cursor that is to be read from the log: the ranges in `pending`, and all from `number` on.

    `messages` and `bytes` count what of it was published before the `mark`, the state of the
    topic's durable counts when the cursor fell behind; they may be estimates. Messages that were
    written before `from_ms` are not for it.
    """

    number: int
    pending: list[Range] = attrs.Factory(list)
    messages: int = 0
    bytes: int = 0
    mark_messages: int = 0
    mark_bytes: int = 0
    mark_volatile: int = 0
    from_ms: int = 0
    loading: bool = False
    reached: int = 0
    """Where the last read ended."""
    place: object | None = None
    """What the log's reader wants to be told when the next read goes on there."""

    @property
    def floor(self) -> int:
        """The lowest number that is still to be read."""
        return self.pending[0][0] if self.pending else self.number

    def next_read(self, window: int) -> tuple[int, int] | None:
        """Which numbers to read next: from first, before stop; None: nothing before `window`."""
        if not self.pending:
            return (self.number, window) if self.number < window else None
        first, last, _ = self.pending[0]
        for begin, end, _ in self.pending[1:_RANGES_MAX]:
            if begin - last > _GAP_MAX:
                break
            last = end
        stop = last + 1
        if self.number - last <= _GAP_MAX and last == self.pending[-1][1]:
            stop = max(stop, window)
        return first, stop

    def wanted(self, first: int, last: int) -> list[Range]:
        """What of these numbers is wanted."""
        found: list[Range] = []
        at = bisect_left(self.pending, first, key=_last)
        while at < len(self.pending) and self.pending[at][0] <= last:
            begin, end, attempts = self.pending[at]
            found.append((max(begin, first), min(end, last), attempts))
            at += 1
        if last >= self.number:
            found.append((max(first, self.number), last, 0))
        return found

    def withdraw(self, number: int) -> bool:
        """Want this number no more; whether it was wanted."""
        at = bisect_left(self.pending, number, key=_last)
        if at < len(self.pending) and self.pending[at][0] <= number:
            first, last, attempts = self.pending[at]
            rest = [(first, number - 1, attempts), (number + 1, last, attempts)]
            self.pending[at : at + 1] = [range_ for range_ in rest if range_[0] <= range_[1]]
        elif number >= self.number:
            if number > self.number:
                self.pending.append((self.number, number - 1, 0))
            self.number = number + 1
        else:
            return False
        self.bytes -= self.bytes // max(1, self.messages)
        self.messages -= 1
        return True

    def advance(self, first: int, reached: int, place: object | None) -> None:
        """Everything from `first` on and before `reached` was read.

        What has come back meanwhile with lower numbers was not.
        """
        self.reached, self.place = reached, place
        if first <= self.number:
            self.number = max(self.number, reached)
        start = bisect_left(self.pending, first, key=_last)
        stop = bisect_left(self.pending, reached, lo=start, key=_first)
        left: list[Range] = []
        for begin, end, attempts in self.pending[start:stop]:
            if begin < first:
                left.append((begin, first - 1, attempts))
            if end >= reached:
                left.append((reached, end, attempts))
        self.pending[start:stop] = left


def _first(range_: Range) -> int:
    return range_[0]


def _last(range_: Range) -> int:
    return range_[1]
