"""A cursor that falls behind the window kept in memory, and is then read back from the log."""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from blipmq.broker.behind import Behind, Range
from blipmq.broker.member_cursor import MemberCursor
from blipmq.broker.message import NEVER, NOWHERE, Delivery, Node
from blipmq.broker.stats import DropReason
from blipmq.protocol.run import Run
from blipmq.wal.facts import RunRecord

LOAD_BYTES = 1024 * 1024
"""What is read from the log at a time."""


@attrs.define(eq=False, kw_only=True)
class LogCursor(MemberCursor):
    """While it is `behind` it stands nowhere in the list, and what was read waits as returned."""

    behind: Behind | None = None
    _since: float = 0.0

    # What it holds

    @property
    def on_disk(self) -> tuple[int, int]:
        """Messages and bytes that are to be read from the log."""
        behind = self.behind
        if behind is None:
            return 0, 0
        frontier = self.topic.frontier
        messages = behind.messages + frontier.durable_messages_before - behind.mark_messages
        size = behind.bytes + frontier.durable_bytes_before - behind.mark_bytes
        return max(0, messages), max(0, size)

    @property
    def held(self) -> int:
        return super().held + self.on_disk[0]

    @property
    def held_bytes(self) -> int:
        return super().held_bytes + self.on_disk[1]

    @property
    def number(self) -> int | None:
        return super().number if self.behind is None else self.behind.number

    @property
    def floor(self) -> int | None:
        floor = super().floor
        if self.behind is None or floor is None:
            return floor
        return min(floor, self.behind.floor)

    # Falling behind

    def fall_behind(self) -> None:
        """Let go of all that waits: it is read from the log when it is wanted.

        Does nothing when there is no log, or nothing to let go.
        """
        if not self.context.durable or not self.qos:
            return
        returned = [d for d in self.returned if d.run.qos]
        if self.behind is not None:
            behind = self.behind
        elif self.waiting or returned:
            behind = self._go_behind()
        else:
            return
        for delivery in returned:
            self.forget(delivery)
            self._settled(delivery)
            behind.messages += delivery.count
            behind.bytes += delivery.size
        behind.pending = _merged([(d.first, d.last, d.attempt) for d in returned], behind.pending)

    def _go_behind(self) -> Behind:
        number = self.number
        node, frontier = self.node, self.topic.frontier
        behind = Behind(self.context.next_number if number is None else number)
        run = node.run
        if run is not None and run.qos:
            passed, passed_bytes = self.index, run.offsets[self.index] - run.offsets[0]
        else:
            passed = passed_bytes = 0
        behind.messages = max(
            0, frontier.durable_messages_before - node.durable_messages_before - passed
        )
        behind.bytes = max(
            0, frontier.durable_bytes_before - node.durable_bytes_before - passed_bytes
        )
        behind.mark_volatile = node.volatile_messages_before
        self.stand_behind(behind, node)
        return behind

    def stand_behind(self, behind: Behind, node: Node) -> None:
        """Be read from the log from now on; the cursor stood at `node`."""
        frontier = self.topic.frontier
        behind.mark_messages = frontier.durable_messages_before
        behind.mark_bytes = frontier.durable_bytes_before
        self.behind = behind
        self.node, self.index, self.foreign = NOWHERE, 0, 0
        self.topic.join_behind(node)
        self.context.stats.behind += 1
        self._on_ready()

    def count_behind(self, record: RunRecord, ranges: Iterable[Range]) -> None:
        """The log has these numbers of a run for it."""
        assert self.behind is not None
        count = sum(last - first + 1 for first, last, _ in ranges)
        self.behind.messages += count
        self.behind.bytes += len(record.data) * count // record.count

    # Catching up

    def _want_more(self) -> None:
        behind = self.behind
        assert behind is not None
        if behind.loading or self.returned.bytes > LOAD_BYTES // 2:
            return
        if behind.next_read(self.topic.window_number) is None:
            self._join()
        else:
            behind.loading = True
            self.context.want_load(self)

    def loaded(
        self, runs: Iterable[tuple[Run, float]], start: int, reached: int, place: object
    ) -> None:
        """Runs were read, each with when it arrived: all from number `start` to `reached` - 1."""
        behind = self.behind
        if behind is None:
            return
        behind.loading = False
        # A run is written later than it arrived, and may not wait behind what is in the list.
        latest = self.topic.window_arrived
        for run, arrived in runs:
            expires = self.topic.expires(arrived, run.ttl_ms)
            self._since = arrived = max(self._since, min(arrived, latest))
            # What a run has before and behind that is read by itself, if it is wanted.
            begin, end = max(run.first, start), min(run.last, reached - 1)
            if end < begin:
                continue
            for first, last, attempts in behind.wanted(begin, end):
                delivery = Delivery(first, last, run, attempts, expires, arrived)
                delivery.cursor = self
                self.add_waiting(delivery)
                behind.messages -= delivery.count
                behind.bytes -= delivery.size
        behind.advance(start, reached, place)
        if behind.next_read(self.topic.window_number) is None:
            self._join()
        self._on_ready()

    def _join(self) -> None:
        """Go on in the list: all before its window was read."""
        behind, topic = self.behind, self.topic
        node = topic.window
        assert behind is not None
        assert node is not None
        earliest = self.context.arrived(behind.from_ms) if behind.from_ms else -NEVER
        while node.next is not None and (
            node.run is None or node.run.last < behind.number or node.arrived < earliest
        ):
            node = node.next
        self.node = node
        self.index = 0 if node.run is None else max(0, behind.number - node.run.first)
        self.step(0)
        self._count_passed(behind, node)
        self.leave_behind()

    def pass_all(self) -> int:
        if self.behind is None:
            return super().pass_all()
        # Nothing is read of what is on the disk: its numbers are settled.
        behind, passed, end = self.behind, self.on_disk[0], self.topic.first_uncommitted
        for first, last, _ in behind.pending:
            self.settle_numbers(first, last)
        if behind.number < end:
            self.settle_numbers(behind.number, end - 1)
        self.leave_behind()
        self.stand_at_frontier()
        self._count_passed(behind, self.node)
        return passed

    def _count_passed(self, behind: Behind, node: Node) -> None:
        """It goes on at `node`: the QoS 0 messages before it are in no log."""
        passed = node.volatile_messages_before - behind.mark_volatile
        self.context.stats.dropped[DropReason.BEHIND] += max(0, passed)

    def leave_behind(self) -> None:
        """Be read from the log no more, if it was."""
        if self.behind is not None:
            self.behind = None
            self.context.loads.pop(self, None)
            self.topic.leave_behind()
            self.context.stats.behind -= 1


def _merged(new: list[Range], old: list[Range]) -> list[Range]:
    """All ranges, ascending; those that follow each other with equal attempts are one."""
    merged: list[Range] = []
    for first, last, attempts in sorted(new + old):
        if merged and merged[-1][1] + 1 == first and merged[-1][2] == attempts:
            merged[-1] = (merged[-1][0], last, attempts)
        else:
            merged.append((first, last, attempts))
    return merged
