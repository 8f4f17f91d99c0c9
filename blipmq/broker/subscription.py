"""A version 1 subscription: a cursor in one topic that is polled, one message at a time."""

from __future__ import annotations

from operator import attrgetter

import attrs

from blipmq.broker.cursor import Cursor
from blipmq.broker.message import NEVER, OVERHEAD_BYTES, Charge, Delivery, DeliveryTable
from blipmq.broker.retry import DeliveryDeadlines
from blipmq.broker.stats import Backlog, DropReason
from blipmq.protocol.run import Run
from blipmq.wal.facts import Attempted, SubscriptionState, UnsettledRange


@attrs.define
class Taken:
    """Message `index` of a run, for a subscriber; `tag` is 0 when there is nothing to settle."""

    run: Run
    index: int
    tag: int
    attempt: int


@attrs.define(eq=False, kw_only=True)
class Subscription(Cursor):
    """A version 1 subscription.

    `id` names it on the wire, too; `owner` is the key id of the API key it belongs to. It holds
    `queue_capacity` messages and `queue_bytes` bytes, waiting and unsettled together; when more
    come the oldest waiting ones go. `parked_until` is when a parked one ends; None while its
    connection is there.
    """

    owner: str
    session: object | None = None
    parked_until: float | None = None
    deadlines: DeliveryDeadlines = attrs.Factory(DeliveryDeadlines)
    exhausted: DeliveryTable = attrs.Factory(DeliveryTable)
    """Read back from the log, and delivered as often as allowed: to be given up."""
    charge: Charge = attrs.field()

    @charge.default
    def _charge(self) -> Charge:
        # A checkpoint repeats the topic's name for every subscription.
        return Charge(self.context.stats, len(self.topic.name) + OVERHEAD_BYTES)

    # What it holds

    @property
    def floor(self) -> int | None:
        floor, spent = super().floor, self.exhausted.lowest
        return floor if spent is None or (floor or spent.first) < spent.first else spent.first

    def backlog(self, now: float) -> Backlog:
        """What an operator sees of it."""
        topic = self.topic.name.decode()
        members = 0 if self.session is None else 1
        return Backlog(str(self.id), topic, self.held, self.held_bytes, self.age(now), members)

    def age(self, now: float) -> float:
        """Seconds since its oldest message arrived; 0 without one."""
        arrived = self.oldest_arrived
        return 0.0 if arrived == NEVER else max(0.0, now - arrived)

    def state(self) -> SubscriptionState:
        """What the log has to know of it."""
        number = self.number
        ranges = [UnsettledRange(d.first, d.last, d.attempt) for d in self.unsettled]
        ranges += [UnsettledRange(d.first, d.last, d.attempt) for d in self.exhausted]
        ranges.sort(key=attrgetter("first"))
        if number is None:
            number = self.context.next_number
        return SubscriptionState(self.id, self.owner, self.topic.name, number, tuple(ranges))

    # Delivering

    def take(self, holder: object, now: float) -> Taken | None:
        """The next message for `holder`; None when nothing waits.

        A message that was not settled in time comes after those that were waiting by then, so that
        one that fails again and again does not keep the others waiting.
        """
        self.trim(now)
        while True:
            fresh = self.at_message(now)
            returned = self.returned.longest_waiting
            if returned is None or (fresh and self.node.arrived < returned.since):
                break
            if returned.expires > now:
                return self._take_returned(returned, holder, now)
            self._drop(returned, None, now)
        if not fresh:
            return None
        node, index = self.node, self.index
        run = node.run
        assert run is not None
        self.step(1)
        stats = self.context.stats
        if not (run.qos and self.qos):
            stats.delivered[0] += 1
            return Taken(run, index, 0, 1)
        number = run.first + index
        delivery = Delivery(number, number, run, 0, node.expires, node.arrived)
        self._deliver(delivery, holder, now)
        return Taken(run, index, number, 1)

    def _take_returned(self, delivery: Delivery, holder: object, now: float) -> Taken:
        self.forget(delivery)
        if delivery.count > 1:
            self.add_waiting(delivery.split(delivery.first + 1))
        self._deliver(delivery, holder, now)
        index = delivery.first - delivery.run.first
        return Taken(delivery.run, index, delivery.first, delivery.attempt)

    def _deliver(self, delivery: Delivery, holder: object, now: float) -> None:
        delivery.attempt += 1
        delivery.holder = holder
        delivery.deadline = now + self.context.backoff(delivery.attempt)
        self.unsettled.add(delivery)
        self.deadlines.add(delivery)
        self.context.timers.at(self, delivery.deadline)
        stats = self.context.stats
        stats.inflight += delivery.count
        stats.delivered[1] += delivery.count
        if delivery.attempt > 1:
            stats.redelivered += delivery.count
            self.context.log(Attempted(self.id, delivery.first, delivery.last, delivery.attempt))

    # Settling

    def accept(self, tag: int) -> bool:
        """Settle one delivery; False when there is none with this tag, or it is settled already."""
        found = self.unsettled.overlapping(tag, tag)
        if not found or not (found[0].attempt or found[0].recovered):
            return False
        self._settle(self._cut_out(found[0], tag))
        return True

    def _cut_out(self, delivery: Delivery, number: int) -> Delivery:
        """Split what holds `number` so that it stands alone."""
        if delivery.count == 1:
            return delivery
        # A version 1 delivery is one message: a longer one was never out.
        assert delivery.holder is None
        self.forget(delivery)
        parts = [delivery]
        if number > delivery.first:
            parts.append(delivery.split(number))
        alone = parts[-1]
        if number < alone.last:
            parts.append(alone.split(number + 1))
        for part in parts:
            self.add_waiting(part)
        return alone

    def recover(
        self, run: Run, first: int, last: int, attempts: int, arrived: float, expires: float
    ) -> None:
        """Take back messages that the log says are not settled.

        Whoever had them is gone, so what was delivered as often as allowed is given up: at the
        next tick, when the log can be written to.
        """
        delivery = Delivery(first, last, run, attempts, expires, arrived, recovered=True)
        if attempts >= self.context.max_attempts:
            self.exhausted.add(delivery)
            self.context.timers.at(self, arrived)
        else:
            self.add_waiting(delivery)

    def _settle(self, delivery: Delivery) -> None:
        """It is done with, however it ended."""
        self._remove(delivery)
        self.settle_numbers(delivery.first, delivery.last)

    def _remove(self, delivery: Delivery) -> None:
        self.unsettled.remove(delivery)
        if delivery.holder is None:
            self.returned.remove(delivery)
        else:
            self.deadlines.discard(delivery)
            self.context.stats.inflight -= delivery.count

    def release(self, holder: object, now: float) -> None:
        """The connection is gone: what it held comes back at once, and the attempt counts."""
        for delivery in [d for d in self.unsettled if d.holder is holder]:
            self.deadlines.discard(delivery)
            self._come_back(delivery, delivery.arrived, now)

    def _come_back(self, delivery: Delivery, since: float, now: float) -> None:
        stats = self.context.stats
        stats.inflight -= delivery.count
        delivery.holder = None
        delivery.since = since
        self.returned.add(delivery)
        if delivery.expires <= now:
            self._drop(delivery, None, now)
        elif delivery.attempt >= self.context.max_attempts:
            self._drop(delivery, DropReason.MAX_RETRIES, now)
        else:
            if delivery.attempt == 1:
                # Later attempts are logged when they begin.
                self.context.log(Attempted(self.id, delivery.first, delivery.last, 1))
            if delivery.expires != NEVER:
                self.context.timers.at(self.topic, delivery.expires)

    def tick(self, now: float) -> float | None:
        """Take back what was not settled in time. Returns when the next deadline is, if any."""
        while (spent := self.exhausted.lowest) is not None:
            self.exhausted.remove(spent)
            self.give_up(spent.run, spent.first, spent.last, DropReason.MAX_RETRIES, now)
        for delivery in self.deadlines.pop_due(now):
            self._come_back(delivery, now, now)
        return self.deadlines.earliest()

    # Dropping

    def trim(self, now: float) -> None:
        """Drop what has expired, and the oldest waiting ones while it holds too much."""
        while (oldest := self.returned.lowest) is not None and oldest.expires <= now:
            self._drop(oldest, None, now)
        self.at_message(now)
        limits = self.context.limits
        excess = self.held - self.foreign - limits.queue_capacity
        while excess > 0 and (dropped := self._drop_oldest(excess, now, DropReason.CAPACITY)):
            excess -= dropped
        while self.held_bytes > limits.queue_bytes and self.held - self._out > 1:
            if not self._drop_oldest(1, now, DropReason.BYTES):
                break

    @property
    def _out(self) -> int:
        return self.unsettled.messages - self.returned.messages

    def _drop_oldest(self, count: int, now: float, reason: DropReason) -> int:
        """Drop up to `count` of the oldest waiting messages of one run; how many went."""
        oldest = self.returned.lowest
        if oldest is not None:
            if count < oldest.count:
                self.forget(oldest)
                self.add_waiting(oldest.split(oldest.first + count))
                self.add_waiting(oldest)
            self._drop(oldest, reason, now)
            return oldest.count
        if not self.at_message(now):
            return 0
        assert self.node.run is not None
        return self.pass_over(min(count, self.node.run.count - self.index), reason, now)

    def _drop(self, delivery: Delivery, reason: DropReason | None, now: float) -> None:
        self._remove(delivery)
        self.give_up(delivery.run, delivery.first, delivery.last, reason, now)

    def drop_all(self, reason: DropReason) -> None:
        """The subscription ends: count what nobody will get from it."""
        self.context.stats.inflight -= self._out
        self.context.stats.dropped[reason] += self.held

    # What an operator asks

    def purge(self, now: float) -> int:
        purged = self.returned.messages
        for delivery in list(self.returned):
            self.forget(delivery)
            self.settle_numbers(delivery.first, delivery.last)
        purged += self.pass_all()
        self.count_lost(purged, DropReason.PURGED)
        return purged

    def withdraw(self, number: int, now: float) -> bool:
        for delivery in self.pass_up_to(number, now):
            self.add_waiting(delivery)
        found = self.unsettled.overlapping(number, number)
        if not found or found[0].holder is not None:
            return False
        self.forget(self._cut_out(found[0], number))
        return True
