"""A cursor whose deliveries are with members: out, put aside for one, coming back, settled.

It does not know what is taken next, nor where messages come from.
"""

from __future__ import annotations

import heapq
from abc import abstractmethod
from typing import TYPE_CHECKING

import attrs

from blipmq.broker.attachment import Attachment
from blipmq.broker.cursor import Cursor
from blipmq.broker.message import NEVER, Delivery
from blipmq.broker.retry import backoff
from blipmq.broker.stats import DropReason
from blipmq.broker.taken import TakenRange
from blipmq.protocol.frames import Outcome
from blipmq.wal.facts import Attempted

if TYPE_CHECKING:
    from blipmq.broker.shared import SharedSubscription

_STALE_MAX = 64


@attrs.define(eq=False, kw_only=True)
class MemberCursor(Cursor):
    """Deliveries are ranges of a run, each to one member.

    A delivery in `unsettled` is out (it has a holder), or returned, or reserved for a member, or
    waits for a later time, its `deadline`.
    """

    subscription: SharedSubscription
    _due: list[tuple[float, int]] = attrs.Factory(list)
    """A heap of deadline and first number, stale ones included."""

    @abstractmethod
    def _on_ready(self) -> None:
        """There may be something for the members."""

    @abstractmethod
    def _on_late(self, member: Attachment) -> None:
        """A member let something fall due."""

    # To members

    def _deliver(self, delivery: Delivery, member: Attachment, now: float) -> None:
        delivery.attempt += 1
        delivery.holder = delivery.receiver = member
        self.unsettled.add(delivery)
        member.deliveries.add(delivery)
        member.held += delivery.count
        member.held_bytes += delivery.size
        self._set_deadline(delivery, now + self.subscription.ack_wait)
        stats = self.context.stats
        stats.inflight += delivery.count
        stats.delivered[1] += delivery.count
        if delivery.attempt > 1:
            stats.redelivered += delivery.count
            self.context.log(Attempted(self.id, delivery.first, delivery.last, delivery.attempt))

    def _set_deadline(self, delivery: Delivery, deadline: float) -> None:
        delivery.deadline = deadline
        heapq.heappush(self._due, (deadline, delivery.first))
        self.context.timers.at(self, deadline)
        if len(self._due) > 2 * len(self.unsettled) + _STALE_MAX:
            self._due = [(d.deadline, d.first) for d in self.unsettled if d.deadline != NEVER]
            heapq.heapify(self._due)

    def _reserve(self, delivery: Delivery) -> None:
        member = delivery.key_member
        assert isinstance(member, Attachment)
        delivery.reserved = True
        member.reserve(delivery)
        self.subscription.reserved += delivery.count
        self.subscription.wake(member)

    def take_reserved(
        self, delivery: Delivery, member: Attachment, now: float
    ) -> TakenRange | None:
        """What was put aside for a member, which takes it now; None when it has expired."""
        delivery.reserved = False
        self.subscription.reserved -= delivery.count
        self.unsettled.remove(delivery)
        self._forget_receiver(delivery)
        if delivery.expires <= now:
            self._settled(delivery)
            self.give_up(delivery.run, delivery.first, delivery.last, None, now)
            return None
        self._deliver(delivery, member, now)
        start = delivery.first - delivery.run.first
        return TakenRange(
            delivery.run, start, start + delivery.count, delivery.attempt, tagged=True
        )

    def unreserve(self, delivery: Delivery) -> None:
        """The member for which it was put aside has left."""
        delivery.reserved = False
        delivery.key_member = None
        self.subscription.reserved -= delivery.count
        self._wait(delivery)

    # From members

    def settle(
        self, delivery: Delivery, first: int, last: int, outcome: Outcome, delay: float, now: float
    ) -> None:
        """What the receiver of a delivery says of the numbers first to last of it."""
        part = self._cut(delivery, first, last)
        match outcome:
            case Outcome.ACCEPT:
                self._take_out(part)
                self.settle_numbers(part.first, part.last)
            case Outcome.REJECT:
                self._take_out(part)
                self.give_up(part.run, part.first, part.last, DropReason.REJECTED, now)
            case Outcome.RETRY:
                self._retry(part, delay, now)
            case Outcome.RELEASE:
                if part.holder is not None:
                    part.attempt -= 1
                    self.context.log(Attempted(self.id, part.first, part.last, part.attempt))
                self._come_back(part, part.arrived, now)
            case Outcome.EXTEND:
                self._extend(part, now)

    def _retry(self, delivery: Delivery, delay: float, now: float) -> None:
        if self._spent(delivery) or delivery.expires <= now:
            self._come_back(delivery, now, now)
            return
        self._take_out(delivery)
        self._log_first_attempt(delivery)
        self.unsettled.add(delivery)
        base_ms = self.context.retries.retry_backoff_ms
        self._set_deadline(delivery, now + (delay or backoff(base_ms, delivery.attempt)))

    def _extend(self, delivery: Delivery, now: float) -> None:
        member = delivery.receiver
        assert isinstance(member, Attachment)
        if delivery.holder is None:
            # It fell due, but nobody else has received it since.
            self._stop_waiting(delivery)
            delivery.holder = member
            member.held += delivery.count
            member.held_bytes += delivery.size
            self.context.stats.inflight += delivery.count
        self._set_deadline(delivery, now + self.subscription.ack_wait)

    def lose(self, delivery: Delivery, *, counts: bool, now: float) -> None:
        """Its receiver has left: what is out comes back at once."""
        if delivery.holder is None:
            # It fell due before; nobody may settle it any more.
            delivery.receiver = None
            if not delivery.reserved:
                delivery.key_member = None
            return
        if not counts:
            delivery.attempt -= 1
            self.context.log(Attempted(self.id, delivery.first, delivery.last, delivery.attempt))
        delivery.key_member = None
        self._come_back(delivery, delivery.arrived, now)

    def tick(self, now: float) -> float | None:
        """Take back what was not settled in time, and let go what waited for its time."""
        due = self._due
        while due and due[0][0] <= now:
            deadline, first = heapq.heappop(due)
            delivery = self.unsettled.starting_at(first)
            if delivery is None or delivery.deadline != deadline:
                continue
            if delivery.holder is None:
                delivery.deadline = NEVER
                delivery.since = now
                self._wait(delivery)
                self._on_ready()
            else:
                self._fall_due(delivery, now)
        return due[0][0] if due else None

    def _fall_due(self, delivery: Delivery, now: float) -> None:
        """Its receiver may still settle it, until it is delivered again."""
        member = delivery.holder
        assert isinstance(member, Attachment)
        if delivery.expires <= now or self._spent(delivery):
            self._come_back(delivery, now, now)
        else:
            self._let_go(delivery, member)
            self._log_first_attempt(delivery)
            delivery.since = now
            self._wait(delivery)
        self._on_late(member)

    def _come_back(self, delivery: Delivery, since: float, now: float) -> None:
        """A delivery that a member had is to be delivered again, to any, or is given up."""
        self._take_back(delivery)
        if delivery.expires <= now or self._spent(delivery):
            reason = None if delivery.expires <= now else DropReason.MAX_RETRIES
            self._settled(delivery)
            self.give_up(delivery.run, delivery.first, delivery.last, reason, now)
            return
        self._log_first_attempt(delivery)
        delivery.since = since
        self.unsettled.add(delivery)
        self._wait(delivery)
        self._on_ready()

    def _spent(self, delivery: Delivery) -> bool:
        return 0 < self.subscription.max_attempts <= delivery.attempt

    def _log_first_attempt(self, delivery: Delivery) -> None:
        if delivery.attempt == 1:
            # Later attempts are logged when they begin.
            self.context.log(Attempted(self.id, delivery.first, delivery.last, 1))

    # Where a delivery is

    def _cut(self, delivery: Delivery, first: int, last: int) -> Delivery:
        """Split a delivery so that first to last of it stand alone."""
        if first > delivery.first:
            delivery = self._split(delivery, first)
        if last < delivery.last:
            self._split(delivery, last + 1)
        return delivery

    def _split(self, delivery: Delivery, number: int) -> Delivery:
        tables = [self.unsettled]
        if isinstance(delivery.receiver, Attachment):
            tables.append(delivery.receiver.deliveries)
        if delivery.holder is None and delivery.deadline == NEVER and not delivery.reserved:
            tables.append(self.returned)
        for table in tables:
            table.remove(delivery)
        rest = delivery.split(number)
        for table in tables:
            table.add(delivery)
            table.add(rest)
        if rest.deadline != NEVER:
            heapq.heappush(self._due, (rest.deadline, rest.first))
        return rest

    def _take_out(self, delivery: Delivery) -> None:
        """Out of every table."""
        self._take_back(delivery)
        self._settled(delivery)

    def _take_back(self, delivery: Delivery) -> None:
        """From its receiver and all others; who holds its keys goes on to hold them."""
        self.unsettled.remove(delivery)
        member = delivery.receiver
        if isinstance(member, Attachment):
            member.deliveries.remove(delivery)
            delivery.receiver = None
            if delivery.holder is member:
                self._let_go(delivery, member)
            else:
                self._stop_waiting(delivery)

    def _let_go(self, delivery: Delivery, member: Attachment) -> None:
        """It is out no more."""
        delivery.holder = None
        delivery.deadline = NEVER
        member.held -= delivery.count
        member.held_bytes -= delivery.size
        self.context.stats.inflight -= delivery.count

    def _stop_waiting(self, delivery: Delivery) -> None:
        """It waits for a member no more, neither for any nor for the one that holds its key."""
        if not delivery.reserved:
            self.returned.remove(delivery)
            return
        member = delivery.key_member
        assert isinstance(member, Attachment)
        member.reserved.remove(delivery)
        delivery.reserved = False
        self.subscription.reserved -= delivery.count
        self._on_ready()

    def _wait(self, delivery: Delivery) -> None:
        """Let it wait for a member again, as long as it may."""
        self.returned.add(delivery)
        if delivery.expires != NEVER:
            self.context.timers.at(self.topic, delivery.expires)

    def _settled(self, delivery: Delivery) -> None:
        """Its keys have so many unsettled messages less."""
        keys, run, member = self.subscription.keys, delivery.run, delivery.key_member
        delivery.key_member = None
        if keys is None or run.keys is None or not isinstance(member, Attachment):
            return
        for number in range(delivery.first, delivery.last + 1):
            key = run.keys[number - run.first]
            if key is not None:
                keys.settle(key, member)

    def _withdraw(self, delivery: Delivery) -> None:
        """Take out what nobody holds."""
        if delivery.reserved:
            self._stop_waiting(delivery)
        elif delivery.deadline == NEVER:
            self.returned.remove(delivery)
        self.unsettled.remove(delivery)
        self._forget_receiver(delivery)
        self._settled(delivery)

    def forget(self, delivery: Delivery) -> None:
        """Take one out that waits; its last receiver may not settle it any more."""
        super().forget(delivery)
        self._forget_receiver(delivery)

    def _forget_receiver(self, delivery: Delivery) -> None:
        member = delivery.receiver
        if isinstance(member, Attachment):
            member.deliveries.remove(delivery)
            delivery.receiver = None
