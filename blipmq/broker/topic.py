"""A topic: a list of runs, how far it is committed, and what is kept while nobody wants it."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

import attrs

from blipmq.broker.context import Context
from blipmq.broker.message import NEVER, OVERHEAD_BYTES, Charge, Delivery, Node
from blipmq.broker.stats import DropReason
from blipmq.protocol.run import Run

if TYPE_CHECKING:
    from blipmq.broker.subscription import Subscription


@attrs.define(eq=False)
class Topic:
    """Holds only the end of its list: what comes before lives by the cursors that stand there.

    What lies before `frontier` is committed and may be delivered. `tail` is the node that the
    next run fills. `durable` counts the QoS 1 subscriptions; while there is none, committed QoS 1
    messages are `kept`.
    """

    name: bytes
    context: Context
    tail: Node = attrs.Factory(lambda: Node(0, 0))
    frontier: Node = attrs.field()
    subscriptions: list[Subscription] = attrs.Factory(list)
    durable: int = 0
    kept: deque[Delivery] = attrs.Factory(deque)
    kept_messages: int = 0
    charge: Charge = attrs.field()
    _trim_at_messages: int = 0
    _trim_at_bytes: int = 0

    @charge.default
    def _charge(self) -> Charge:
        return Charge(self.context.stats, len(self.name) + OVERHEAD_BYTES)

    @frontier.default
    def _frontier(self) -> Node:
        return self.tail

    @property
    def unused(self) -> bool:
        """Whether nothing would be lost by forgetting the topic."""
        return not (self.subscriptions or self.kept or self.frontier is not self.tail)

    def expires(self, arrived: float) -> float:
        """When a message that arrived then expires."""
        ttl_ms = self.context.retention.message_ttl_ms
        return arrived + ttl_ms / 1000 if ttl_ms else NEVER

    def append(self, run: Run, now: float) -> Node:
        """Put a numbered run at the end. A QoS 0 run is committed by itself."""
        node = self.tail
        node.run = run
        node.arrived = now
        node.expires = self.expires(now)
        node.next = self.tail = Node(node.messages_before + run.count, node.bytes_before + run.size)
        if run.qos == 0:
            self.commit(node, now)
        return node

    def commit(self, node: Node, now: float) -> None:
        """The run may be delivered, once everything before it may be."""
        node.committed = True
        self._advance(now)
        if node.expires != NEVER:
            self.context.timers.at(self, node.expires)

    def fail(self, nodes: Sequence[Node], now: float) -> None:
        """These runs, in their order, were never published: take them out."""
        failed = set(map(id, nodes))
        messages = size = 0
        node: Node | None = nodes[0]
        while node is not None:
            node.messages_before -= messages
            node.bytes_before -= size
            if id(node) in failed:
                messages += node.count
                size += node.size
                node.run = None
                node.committed = True
            node = node.next
        for subscription in self.subscriptions:
            subscription.step(0)
        self._advance(now)

    def _advance(self, now: float) -> None:
        node = self.frontier
        while node.committed and node.next is not None:
            if node.run is not None:
                self._on_visible(node, node.run, now)
            node = node.next
        self.frontier = node
        self._trim(now)

    def _on_visible(self, node: Node, run: Run, now: float) -> None:
        """Nobody may want it any more, who did when it was published."""
        if run.qos and not self.durable:
            self.keep(run, run.first, now, node.arrived, node.expires)
        elif not self.subscriptions:
            self.context.stats.dropped[DropReason.NO_SUBSCRIBER] += run.count

    def _trim(self, now: float) -> None:
        """Let full subscriptions drop their oldest, now and then, so that none holds much more."""
        frontier = self.frontier
        if (
            frontier.messages_before < self._trim_at_messages
            and frontier.bytes_before < self._trim_at_bytes
        ):
            return
        limits = self.context.limits
        self._trim_at_messages = frontier.messages_before + max(1, limits.queue_capacity // 8)
        self._trim_at_bytes = frontier.bytes_before + max(1, limits.queue_bytes // 8)
        for subscription in self.subscriptions:
            subscription.trim(now)

    def keep(self, run: Run, first: int, now: float, arrived: float, expires: float) -> None:
        """Keep a committed run, from message `first` on, for the first QoS 1 subscription.

        Beyond the limits the oldest of this topic go, or of the topic that has kept for longest.
        """
        context = self.context
        self._add_kept(Delivery(first, run.last, run, 0, expires, arrived))
        excess = self.kept_messages - context.retention.kept_messages
        while excess > 0:
            excess -= self._drop_kept(min(excess, self.kept[0].count), DropReason.KEPT)
        while context.stats.kept_bytes > context.retention.kept_bytes:
            next(iter(context.keeping)).drop_oldest_kept()
        self._expire_kept(now)

    def drop_oldest_kept(self) -> None:
        """Memory is wanted for others."""
        self._drop_kept(self.kept[0].count, DropReason.KEPT)

    def _add_kept(self, delivery: Delivery) -> None:
        self.kept.append(delivery)
        self.kept_messages += delivery.count
        self.context.stats.kept_messages += delivery.count
        self.context.stats.kept_bytes += delivery.size
        self.context.keeping.setdefault(self)

    def _take_kept(self) -> Delivery:
        oldest = self.kept.popleft()
        self.kept_messages -= oldest.count
        self.context.stats.kept_messages -= oldest.count
        self.context.stats.kept_bytes -= oldest.size
        if not self.kept:
            del self.context.keeping[self]
        return oldest

    def _drop_kept(self, count: int, reason: DropReason | None) -> int:
        oldest = self._take_kept()
        if count < oldest.count:
            self._add_kept(oldest.split(oldest.first + count))
            self.kept.rotate(1)
        if reason is None:
            self.context.stats.expired += count
        else:
            self.context.stats.dropped[reason] += count
        return count

    def _take_all_kept(self) -> list[Delivery]:
        return [self._take_kept() for _ in range(len(self.kept))]

    def _expire_kept(self, now: float) -> None:
        while self.kept and self.kept[0].expires <= now:
            self._drop_kept(self.kept[0].count, None)

    def take_kept(self, now: float) -> list[Delivery]:
        """Hand over everything that is kept."""
        self._expire_kept(now)
        return self._take_all_kept()

    def wanted_from(self) -> int | None:
        """The lowest number that a QoS 1 subscription has not settled, or that is kept, if any.

        Everything in the log is committed, so what is not committed yet does not count.
        """
        if not self.durable:
            return self.kept[0].first if self.kept else None
        floors = [s.floor for s in self.subscriptions if s.qos]
        return min((floor for floor in floors if floor is not None), default=None)

    def kept_from(self) -> int | None:
        """The lowest number that a first QoS 1 subscription would get, if any."""
        if self.kept:
            return self.kept[0].first
        node: Node | None = self.frontier
        while node is not None:
            if node.run is not None and node.run.qos:
                return node.run.first
            node = node.next
        return None

    @property
    def uncommitted_qos0(self) -> int:
        """How many QoS 0 messages wait for the commit of what is before them."""
        count = 0
        node: Node | None = self.frontier
        while node is not None:
            if node.run is not None and not node.run.qos:
                count += node.run.count
            node = node.next
        return count

    def tick(self, now: float) -> float | None:
        """Let go of what has expired. Returns when the next message expires, if any may."""
        self._expire_kept(now)
        times = [self.kept[0].expires] if self.kept else []
        for subscription in self.subscriptions:
            subscription.trim(now)
            times.append(subscription.oldest_expires)
        earliest = min(times, default=NEVER)
        return None if earliest == NEVER else earliest
