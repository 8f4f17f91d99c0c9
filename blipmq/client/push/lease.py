"""What one attachment holds on one connection: how its messages are settled and kept alive."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from typing import TYPE_CHECKING, Final

import attrs

from blipmq.client.message import Message, unsettled
from blipmq.client.outgoing import Body
from blipmq.client.wire import closed
from blipmq.protocol import encoder
from blipmq.protocol.frames import Outcome
from blipmq.protocol.properties import MessageProperties

if TYPE_CHECKING:
    from blipmq.client.push.attachment import Attachment
    from blipmq.client.push.connection import PushConnection

ROWS_MAX: Final = 4096
"""In one SETTLE."""
ACCEPTED_MAX: Final = 1024
"""So many tags of what was accepted one by one are kept before they are made into rows."""
ACK_WAIT_MS: Final = 30_000
"""What a broker waits, unless the subscription or its INFO says something else."""
STEPS: Final = 256
"""So many quick calls are made between two trips through the scheduler."""


def _no_row() -> list[int]:
    """One that nothing is next to."""
    return [-1, -2, -2, -1]


@attrs.define(eq=False)
class Lease:
    """Settlements that wait to be sent, as rows of outcome, first tag, last tag and delay.

    A row grows only by the tag next to it: what lies between two tags may be on its way here, as
    a redelivery, and must not be settled unseen.
    """

    attachment: Attachment
    connection: PushConnection
    id: int
    flush_at: int
    """So many settlements are not kept waiting for more."""
    waits: bool = attrs.field(default=False, init=False)
    live: bool = attrs.field(default=True, init=False)
    """Whether settling means anything: the attachment and its connection are there."""
    begun: int = attrs.field(default=0, init=False)
    """Messages of QoS 1 that the attachment has begun."""
    rows_count: bool = attrs.field(default=False, init=False)
    """Whether what the attachment's `rows` has left are among them."""
    accepted: list[int] = attrs.field(factory=list, init=False)
    quick: int = attrs.field(default=0, init=False)
    steps: int = attrs.field(default=STEPS, init=False)
    calls: int = attrs.field(default=0, init=False)
    working: set[Message] = attrs.field(factory=set, init=False)
    batches: set[Iterable[Message]] = attrs.field(factory=set, init=False)
    _rows: list[list[int]] = attrs.field(factory=list, init=False)
    _row: list[int] = attrs.field(factory=_no_row, init=False)
    """The last of them."""
    _count: int = attrs.field(default=0, init=False)
    """Settlements in them."""
    _settled: int = attrs.field(default=0, init=False)
    """Messages that were settled, but for those in `accepted`."""
    _announced: bool = attrs.field(default=False, init=False)
    """Whether the connection knows that there is something to send."""
    _taken: int = attrs.field(default=0, init=False)

    @property
    def ack_wait_s(self) -> float:
        ack_wait_ms = self.attachment.wanted.ack_wait_ms or self.connection.ack_wait_ms
        return ack_wait_ms / 1000

    @property
    def unsettled(self) -> int:
        """Messages that were handed over and that nobody has settled."""
        left = self.attachment.left if self.rows_count else 0
        return self.begun - left - self._settled - len(self.accepted)

    def forget_rows(self) -> None:
        """What the attachment's `rows` has left will not be handed over."""
        if self.rows_count:
            self.begun -= self.attachment.left
            self.rows_count = False

    # For messages.

    async def room(self) -> None:
        """There is always room: the broker's prefetch bounds what can be settled."""

    def settle(self, first: int, last: int, outcome: Outcome, delay_ms: int) -> None:
        count = last - first + 1
        if not self.live:
            self._too_late(count)
            return
        if not self._announced:
            self._announced = True
            self.connection.settling(self)
        if outcome is Outcome.ACCEPT and first == last:
            self.accepted.append(first)
        else:
            self._put(first, last, outcome, delay_ms)
            self._count += count
            self._settled += count if outcome is not Outcome.EXTEND else 0
        waiting = self._count + len(self.accepted)
        if waiting < self.flush_at:
            self.quick = self.flush_at - self._count - 1
        else:
            self.quick = ACCEPTED_MAX
            if len(self.accepted) >= ACCEPTED_MAX:
                self._gather()
            if waiting - count < self.flush_at:
                self.connection.outbox.nudge()
        if self.connection.draining:
            self.quick = 0
            if not self.unsettled:
                self.connection.drained()

    def _gather(self) -> None:
        """Makes rows of what was accepted one by one."""
        tags, self.accepted = self.accepted, []
        if not tags:
            return
        self._count += len(tags)
        self._settled += len(tags)
        tags.sort()
        first, last = tags[0], tags[-1]
        if last - first + 1 == len(tags) and tags == list(range(first, last + 1)):
            self._put(first, last, Outcome.ACCEPT, 0)
        else:
            for tag in tags:
                self._put(tag, tag, Outcome.ACCEPT, 0)

    def _put(self, first: int, last: int, outcome: Outcome, delay_ms: int) -> None:
        row = self._row
        if row[2] + 1 == first and row[0] is outcome and row[3] == delay_ms:
            row[2] = last
        else:
            self._row = [outcome, first, last, delay_ms]
            self._rows.append(self._row)

    def _too_late(self, count: int) -> None:
        if self.connection.link.closed:
            raise closed()
        self.connection.refusals.stale += count

    async def respond(self, topic: str, body: Body, properties: MessageProperties | None) -> None:
        await self.connection.link.publish(topic, body, 0, properties)

    # For the connection.

    def take_rows(self) -> bytes:
        """All that waits, as frames."""
        self._gather()
        rows, self._rows, self._row, self._count = self._rows, [], _no_row(), 0
        self._announced, self.quick = False, 0
        return self._frames([(row[0], row[1], row[2], row[3]) for row in rows])

    def end(self) -> None:
        """From now on, settling does nothing."""
        self.live = False
        self.accepted, self.quick = [], 0
        self._rows, self._row = [], _no_row()
        self.working.clear()
        self.batches.clear()

    def extensions(self) -> bytes:
        """A SETTLE that keeps alive what is worked on; empty if nothing is.

        And what waits here to be handed over, if its consumer has taken something since the last
        time, or still works on something.
        """
        rows = _rows(Outcome.EXTEND, unsettled(chain(self.working, *self.batches), self))
        busy = bool(rows) or self.attachment.taken != self._taken
        self._taken = self.attachment.taken
        if busy:
            rows += _rows(Outcome.EXTEND, self.attachment.waiting_tags())
        return self._frames(rows)

    def _frames(self, rows: list[tuple[int, int, int, int]]) -> bytes:
        starts = range(0, len(rows), ROWS_MAX)
        return b"".join(encoder.settle(self.id, rows[at : at + ROWS_MAX]) for at in starts)


def _rows(outcome: Outcome, tags: list[int]) -> list[tuple[int, int, int, int]]:
    """Rows for these tags, neighbours together."""
    rows: list[tuple[int, int, int, int]] = []
    for tag in tags:
        if rows and rows[-1][2] + 1 == tag:
            rows[-1] = outcome, rows[-1][1], tag, 0
        else:
            rows.append((outcome, tag, tag, 0))
    return rows
