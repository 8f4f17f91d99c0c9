"""A cursor: a position in a topic, and the deliveries before it that are not settled.

Its messages are, in the order of their numbers: those that were settled; those in `unsettled`,
of which `returned` wait to be delivered (again) and the others are out; and those from the cursor
on, up to the topic's frontier, which wait for their first delivery.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import attrs

from blipmq.broker.context import Context
from blipmq.broker.message import NEVER, Delivery, DeliveryTable, Node, ReturnedTable
from blipmq.broker.stats import DropReason
from blipmq.broker.topic import Topic
from blipmq.protocol.run import Run
from blipmq.wal.facts import Settled, SubscriptionState


@attrs.define(eq=False)
class Cursor(ABC):
    """One subscription's place in one topic.

    `id` names it in the log. `born` is the number that was next when it was made: QoS 0 messages
    before are not for it.
    """

    id: int
    topic: Topic
    qos: int
    node: Node
    born: int
    context: Context
    index: int = 0
    foreign: int = 0
    """QoS 0 messages ahead of the cursor that are older than `born`."""
    unsettled: DeliveryTable = attrs.Factory(DeliveryTable)
    returned: ReturnedTable = attrs.Factory(ReturnedTable)

    @property
    def name(self) -> bytes:
        """What dead letters call the subscription."""
        return b""

    # What it holds

    @property
    def waiting(self) -> int:
        """Messages from the cursor to the frontier."""
        at = self.node.messages_before + self.index
        return max(0, self.topic.frontier.messages_before - at)

    @property
    def waiting_bytes(self) -> int:
        """Bytes of the messages from the cursor to the frontier."""
        node = self.node
        passed = 0
        if self.index and node.run is not None:
            passed = node.run.offsets[self.index] - node.run.offsets[0]
        return max(0, self.topic.frontier.bytes_before - node.bytes_before - passed)

    @property
    def held(self) -> int:
        """Messages, waiting and unsettled together."""
        return self.waiting + self.unsettled.messages

    @property
    def held_bytes(self) -> int:
        return self.waiting_bytes + self.unsettled.bytes

    @property
    def floor(self) -> int | None:
        """The lowest number that is not settled; None: every message so far is."""
        lowest = self.unsettled.lowest
        return self.number if lowest is None else lowest.first

    @property
    def number(self) -> int | None:
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

    @property
    def oldest_arrived(self) -> float:
        """When the oldest message arrived that is not settled; `NEVER` without one."""
        arrived = self.node.arrived if self.waiting else NEVER
        lowest = self.unsettled.lowest
        return arrived if lowest is None else min(arrived, lowest.arrived)

    @abstractmethod
    def state(self) -> SubscriptionState:
        """What the log has to know of it."""

    # Moving

    def at_message(self, now: float) -> bool:
        """Move the cursor to a message that may be delivered, if there is one."""
        while self.waiting:
            node, run = self.node, self.node.run
            assert run is not None
            if run.qos == 0 and run.first < self.born:
                self.foreign -= run.count
                self.step(run.count)
            elif node.expires <= now:
                self.pass_over(run.count - self.index, None, now)
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

    def pass_over(self, count: int, reason: DropReason | None, now: float) -> int:
        """Move the cursor past messages that are not to be delivered; None: they have expired."""
        run = self.node.run
        assert run is not None
        first = run.first + self.index
        self.step(count)
        if run.qos and self.qos:
            self.give_up(run, first, first + count - 1, reason, now)
        else:
            self.count_lost(count, reason)
        return count

    # Deliveries

    def add_waiting(self, delivery: Delivery) -> None:
        """Let an unsettled range wait for a delivery: one that came back, was kept or read."""
        self.unsettled.add(delivery)
        self.returned.add(delivery)

    def forget(self, delivery: Delivery) -> None:
        """Take one out that waits."""
        self.unsettled.remove(delivery)
        self.returned.remove(delivery)

    def settle_numbers(self, first: int, last: int) -> None:
        """They are done with, however it ended."""
        self.context.log(Settled(self.id, first, last))

    def give_up(
        self, run: Run, first: int, last: int, reason: DropReason | None, now: float
    ) -> None:
        """Messages of QoS 1 that were taken out are not delivered any more; None: expired.

        Those that failed go to the dead letters, together with their settlement.
        """
        self.count_lost(last - first + 1, reason)
        if not self.context.bury(self, run, first, last, reason, now):
            self.settle_numbers(first, last)

    def count_lost(self, count: int, reason: DropReason | None) -> None:
        if reason is None:
            self.context.stats.expired += count
        else:
            self.context.stats.dropped[reason] += count

    # What an operator asks

    @abstractmethod
    def purge(self, now: float) -> int:
        """Settle all that waits, and count it as dropped; what is out stays out. How many."""

    @abstractmethod
    def withdraw(self, number: int, now: float) -> bool:
        """Take a message of QoS 1 out that waits, for the caller to settle it.

        Returns whether it waits: False when it is out, or settled already.
        """

    def pass_all(self) -> int:
        """Move the cursor to the frontier, and settle what it passes; how many messages."""
        first, end = self.number, self.topic.first_uncommitted
        passed = self.waiting - self.foreign
        if self.qos and self.waiting and first is not None:
            self.settle_numbers(first, end - 1)
        self.stand_at_frontier()
        return passed + self.foreign

    def stand_at_frontier(self) -> None:
        """Move the cursor to the frontier."""
        self.node, self.index, self.foreign = self.topic.frontier, 0, 0
        node: Node | None = self.node
        while node is not None:
            run = node.run
            if run is not None and run.qos == 0 and run.first < self.born:
                self.foreign += run.count
            node = node.next

    def pass_up_to(self, number: int, now: float) -> list[Delivery]:
        """Move the cursor behind this number; what it passes, for its first delivery."""
        passed = []
        while self.at_message(now):
            node, run = self.node, self.node.run
            assert run is not None
            first, last = run.first + self.index, min(run.last, number)
            if last < first:
                break
            passed.append(Delivery(first, last, run, 0, node.expires, node.arrived))
            self.step(last - first + 1)
        return passed

    # What a topic asks of its cursors

    @property
    def backlog_bytes(self) -> int:
        """What counts against `max_backlog_bytes`."""
        return 0

    @abstractmethod
    def trim(self, now: float) -> None:
        """Let go of what has expired, or is too much."""
