"""A subscription: a cursor in a topic, and the deliveries that are not settled.

Its messages are, in the order of their numbers: those that were settled; those in `unsettled`,
of which `returned` wait to be delivered (again) and the others are out; and those from the cursor
on, up to the topic's frontier, which wait for their first delivery.
"""

from __future__ import annotations

import attrs

from blipmq.broker.context import Context
from blipmq.broker.message import (
    NEVER,
    OVERHEAD_BYTES,
    Charge,
    Delivery,
    DeliveryTable,
    Node,
    ReturnedTable,
)
from blipmq.broker.retry import DeliveryDeadlines
from blipmq.broker.stats import Backlog, DropReason
from blipmq.broker.topic import Topic
from blipmq.protocol.run import Run
from blipmq.wal.record import Attempted, Settled, SubscriptionState, UnsettledRange


@attrs.define
class Taken:
    """Message `index` of a run, for a subscriber; `tag` is 0 when there is nothing to settle."""

    run: Run
    index: int
    tag: int
    attempt: int


@attrs.define(eq=False)
class Subscription:
    """A version 1 subscription.

    `id` names it on the wire; `owner` is the key id of the API key it belongs to. It holds
    `queue_capacity` messages and `queue_bytes` bytes, waiting and unsettled together; when more
    come the oldest waiting ones go. `born` is the number that was next when it was made: QoS 0
    messages before are not for it. `parked_until` is when a parked one ends; None while its
    connection is there.
    """

    id: int
    owner: str
    topic: Topic
    qos: int
    node: Node
    born: int
    context: Context
    session: object | None = None
    parked_until: float | None = None
    index: int = 0
    foreign: int = 0
    """QoS 0 messages ahead of the cursor that are older than `born`."""
    unsettled: DeliveryTable = attrs.Factory(DeliveryTable)
    returned: ReturnedTable = attrs.Factory(ReturnedTable)
    deadlines: DeliveryDeadlines = attrs.Factory(DeliveryDeadlines)

    charge: Charge = attrs.field()

    @charge.default
    def _charge(self) -> Charge:
        # A checkpoint repeats the topic's name for every subscription.
        return Charge(self.context.stats, len(self.topic.name) + OVERHEAD_BYTES)

    # What it holds

    @property
    def waiting(self) -> int:
        """Messages from the cursor to the frontier."""
        at = self.node.messages_before + self.index
        return max(0, self.topic.frontier.messages_before - at)

    @property
    def held(self) -> int:
        """Messages, waiting and unsettled together."""
        return self.waiting + self.unsettled.messages

    @property
    def held_bytes(self) -> int:
        node = self.node
        passed = 0
        if self.index and node.run is not None:
            passed = node.run.offsets[self.index] - node.run.offsets[0]
        waiting = self.topic.frontier.bytes_before - node.bytes_before - passed
        return max(0, waiting) + self.unsettled.bytes

    @property
    def floor(self) -> int | None:
        """The lowest number that is not settled; None: every message so far is."""
        lowest = self.unsettled.lowest
        return self.cursor if lowest is None else lowest.first

    @property
    def cursor(self) -> int | None:
        """The number that the cursor stands on; None at the end of the topic."""
        node: Node | None = self.node
        index = self.index
        while node is not None:
            if node.run is not None and index < node.run.count:
                return node.run.first + index
            node, index = node.next, 0
        return None

    @property
    def oldest_expires(self) -> float:
        """When the next waiting message expires."""
        times = [self.node.expires if self.waiting else NEVER]
        if self.returned.lowest is not None:
            times.append(self.returned.lowest.expires)
        return min(times)

    def backlog(self, now: float) -> Backlog:
        """What an operator sees of it."""
        topic = self.topic.name.decode()
        return Backlog(str(self.id), topic, self.held, self.held_bytes, self.age(now))

    def age(self, now: float) -> float:
        """Seconds since its oldest message arrived; 0 without one."""
        arrived = [self.node.arrived] if self.waiting else []
        if self.unsettled.lowest is not None:
            arrived.append(self.unsettled.lowest.arrived)
        return max(0.0, now - min(arrived)) if arrived else 0.0

    def state(self) -> SubscriptionState:
        """What the log has to know of it."""
        cursor = self.cursor
        ranges = [UnsettledRange(d.first, d.last, d.attempt) for d in self.unsettled]
        if cursor is None:
            cursor = self.context.next_number
        return SubscriptionState(self.id, self.owner, self.topic.name, cursor, tuple(ranges))

    # Delivering

    def take(self, holder: object, now: float) -> Taken | None:
        """The next message for `holder`; None when nothing waits.

        A message that was not settled in time comes after those that were waiting by then, so that
        one that fails again and again does not keep the others waiting.
        """
        self.trim(now)
        fresh = self._at_message(now)
        returned = self.returned.longest_waiting
        if returned is not None and not (fresh and self.node.arrived < returned.since):
            return self._take_returned(returned, holder, now)
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
        self._forget(delivery)
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

    def _at_message(self, now: float) -> bool:
        """Move the cursor to a message that may be delivered, if there is one."""
        while self.waiting:
            node, run = self.node, self.node.run
            assert run is not None
            if run.qos == 0 and run.first < self.born:
                self.foreign -= run.count
                self.step(run.count)
            elif node.expires <= now:
                self._pass(run.count - self.index, None)
            else:
                return True
        return False

    def step(self, count: int) -> None:
        """Move the cursor past `count` messages of its run, and off a run that is finished.

        So a cursor holds no run that it wants nothing of.
        """
        self.index += count
        while self.node.next is not None and self.index >= self.node.count:
            self.node, self.index = self.node.next, 0

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
        self._forget(delivery)
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

        Whoever had them is gone, so what was delivered as often as allowed is given up.
        """
        delivery = Delivery(first, last, run, attempts, expires, arrived, recovered=True)
        self.add_waiting(delivery)
        if attempts >= self.context.max_attempts:
            self._drop(delivery, DropReason.MAX_RETRIES)

    def add_waiting(self, delivery: Delivery) -> None:
        """Let an unsettled range wait for a delivery: one that came back, was kept or recovered."""
        self.unsettled.add(delivery)
        self.returned.add(delivery)

    def _forget(self, delivery: Delivery) -> None:
        self.unsettled.remove(delivery)
        self.returned.remove(delivery)

    def _settle(self, delivery: Delivery) -> None:
        """It is done with, however it ended."""
        self._remove(delivery)
        self.context.log(Settled(self.id, delivery.first, delivery.last))

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
            self._drop(delivery, None)
        elif delivery.attempt >= self.context.max_attempts:
            self._drop(delivery, DropReason.MAX_RETRIES)
        else:
            if delivery.attempt == 1:
                # Later attempts are logged when they begin.
                self.context.log(Attempted(self.id, delivery.first, delivery.last, 1))
            if delivery.expires != NEVER:
                self.context.timers.at(self.topic, delivery.expires)

    def tick(self, now: float) -> float | None:
        """Take back what was not settled in time. Returns when the next deadline is, if any."""
        for delivery in self.deadlines.pop_due(now):
            self._come_back(delivery, now, now)
        return self.deadlines.earliest()

    # Dropping

    def trim(self, now: float) -> None:
        """Drop what has expired, and the oldest waiting ones while it holds too much."""
        while (oldest := self.returned.lowest) is not None and oldest.expires <= now:
            self._drop(oldest, None)
        self._at_message(now)
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
                self._forget(oldest)
                self.add_waiting(oldest.split(oldest.first + count))
                self.add_waiting(oldest)
            self._drop(oldest, reason)
            return oldest.count
        if not self._at_message(now):
            return 0
        assert self.node.run is not None
        return self._pass(min(count, self.node.run.count - self.index), reason)

    def _drop(self, delivery: Delivery, reason: DropReason | None) -> None:
        self._count(delivery.count, reason)
        self._settle(delivery)

    def _pass(self, count: int, reason: DropReason | None) -> int:
        """Move the cursor past messages that are not to be delivered; None: they have expired."""
        run = self.node.run
        assert run is not None
        first = run.first + self.index
        self.step(count)
        self._count(count, reason)
        if run.qos and self.qos:
            self.context.log(Settled(self.id, first, first + count - 1))
        return count

    def _count(self, count: int, reason: DropReason | None) -> None:
        if reason is None:
            self.context.stats.expired += count
        else:
            self.context.stats.dropped[reason] += count

    def drop_all(self, reason: DropReason) -> None:
        """The subscription ends: count what nobody will get from it."""
        self.context.stats.inflight -= self._out
        self.context.stats.dropped[reason] += self.held
