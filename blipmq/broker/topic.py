"""A topic: a list of runs, how far it is committed, and what is kept while nobody wants it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Protocol

import attrs

from blipmq.broker.context import Context
from blipmq.broker.message import NEVER, NOWHERE, OVERHEAD_BYTES, Charge, Delivery, Node
from blipmq.broker.stats import DropReason
from blipmq.protocol.run import Run

if TYPE_CHECKING:
    from blipmq.broker.cursor import Cursor

DEAD_LETTERS = b"$dead."
"""What the names of topics begin with that hold dead letters."""
WINDOW_BYTES = 2 * 1024 * 1024
"""What a topic holds of its latest messages for the cursors that are behind."""


class Listener(Protocol):
    """Whoever waits for messages."""

    def on_visible(self) -> None:
        """More messages are before the frontier."""


@attrs.define(eq=False)
class Topic:
    """Holds only the end of its list: what comes before lives by the cursors that stand there.

    What lies before `frontier` is committed and may be delivered. `tail` is the node that the
    next run fills. `durable` counts the QoS 1 cursors; while there is none, committed QoS 1
    messages are `kept`. While any cursor is `behind` (it is to be read from the log) the topic also
    holds a `window` of its latest committed nodes, at which such a cursor joins the list again.
    """

    name: bytes
    context: Context
    tail: Node = attrs.Factory(lambda: Node(0, 0))
    frontier: Node = attrs.field()
    cursors: list[Cursor] = attrs.Factory(list)
    waiting: list[Listener] = attrs.Factory(list)
    """Those that are to be told, once, when there is more before the frontier."""
    paused: list[Callable[[], None]] = attrs.Factory(list)
    """To be called, once, when a cursor that publishers wait for has caught up."""
    durable: int = 0
    behind: int = 0
    window: Node | None = None
    kept: deque[Delivery] = attrs.Factory(deque)
    kept_messages: int = 0
    charge: Charge = attrs.field()
    _trim_at_messages: int = 0
    _trim_at_bytes: int = 0
    _full_at: int = 0
    """How many bytes of messages there have been when some cursor may be full."""

    @charge.default
    def _charge(self) -> Charge:
        return Charge(self.context.stats, len(self.name) + OVERHEAD_BYTES)

    @frontier.default
    def _frontier(self) -> Node:
        return self.tail

    def join(self, cursor: Cursor) -> None:
        """One more cursor."""
        self.cursors.append(cursor)
        self.durable += cursor.qos
        self.context.routes.pop(self.name, None)

    def leave(self, cursor: Cursor) -> None:
        """One cursor less."""
        self.cursors.remove(cursor)
        self.durable -= cursor.qos
        self.context.routes.pop(self.name, None)

    @property
    def unused(self) -> bool:
        """Whether nothing would be lost by forgetting the topic."""
        return not (self.cursors or self.kept or self.frontier is not self.tail)

    @property
    def holds_dead_letters(self) -> bool:
        return self.name.startswith(DEAD_LETTERS)

    def expires(self, arrived: float, ttl_ms: int | None = None) -> float:
        """When a message that arrived then expires; `ttl_ms` is its own, 0: never."""
        if self.holds_dead_letters:
            return NEVER
        if ttl_ms is None:
            ttl_ms = self.context.retention.message_ttl_ms
        return arrived + ttl_ms / 1000 if ttl_ms else NEVER

    def append(self, run: Run, now: float) -> Node:
        """Put a numbered run at the end. A QoS 0 run is committed by itself."""
        node = self.tail
        node.run = run
        node.arrived = now
        node.expires = self.expires(now, run.ttl_ms)
        node.next = self.tail = node.following()
        if run.qos == 0:
            self.commit(node, now)
        else:
            self.context.routes.pop(self.name, None)  # what comes behind it has to wait
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
        for cursor in self.cursors:
            cursor.step(0)
        self._advance(now)

    def _advance(self, now: float) -> None:
        node = self.frontier
        while node.committed and node.next is not None:
            if node.run is not None:
                self._on_visible(node, node.run, now)
            node = node.next
        self.frontier = node
        self._trim(now)
        if self.waiting:
            waiting, self.waiting = self.waiting, []
            for cursor in waiting:
                cursor.on_visible()

    def _on_visible(self, node: Node, run: Run, now: float) -> None:
        """Nobody may want it any more, who did when it was published."""
        if run.qos and not self.durable:
            self.keep(run, run.first, now, node.arrived, node.expires)
        elif not self.cursors:
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
        for cursor in self.cursors:
            cursor.trim(now)
        if self.window is not None:
            self.narrow_window(WINDOW_BYTES)

    def narrow_window(self, bytes_max: int) -> None:
        """Hold no more than about so many bytes for the cursors that are behind."""
        node = self.window
        begin = self.frontier.bytes_before - bytes_max
        while node is not None and node is not self.frontier and node.bytes_before < begin:
            node = node.next
        self.window = node

    def join_behind(self, node: Node) -> None:
        """A cursor that stood at `node` is behind from now on."""
        self.behind += 1
        if self.window is None:
            # What is not committed yet cannot be read from the log.
            self.window = min(node, self.frontier, key=attrgetter("messages_before"))
            self.narrow_window(WINDOW_BYTES)

    def leave_behind(self) -> None:
        """One cursor is behind no more."""
        self.behind -= 1
        if not self.behind:
            self.window = None

    @property
    def window_number(self) -> int:
        """From this number on the messages are in memory; all before are committed."""
        node = self.window
        while node is not None:
            if node.run is not None:
                return node.run.first
            node = node.next
        return self.context.next_number

    @property
    def window_arrived(self) -> float:
        """When the first of the messages arrived that are in memory; `NEVER` without one."""
        node = self.window
        while node is not None:
            if node.run is not None:
                return node.arrived
            node = node.next
        return NEVER

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

    @property
    def is_full(self) -> bool:
        """Whether a shared subscription has as large a backlog as it may have."""
        size = self.tail.bytes_before
        if size < self._full_at or not self.durable:
            return False
        limits = self.context.limits
        most = limits.max_backlog_bytes
        if limits.drop_oldest or self.holds_dead_letters:
            return False
        held = max((cursor.backlog_bytes for cursor in self.cursors), default=0)
        self._full_at = size + max(0, most - held)
        return held >= most

    def resume(self) -> None:
        """Publishers need not wait any more."""
        paused, self.paused = self.paused, []
        for resume in paused:
            resume()

    def drop_kept(self, reason: DropReason) -> None:
        """Nobody wants what is kept."""
        while self.kept:
            self._drop_kept(self.kept[0].count, reason)

    def release_kept(self) -> None:
        """What is kept is wanted no more from here, but from the log."""
        self._take_all_kept()

    @property
    def earliest(self) -> Node:
        """The oldest node that a cursor stands on, of those that are in memory."""
        nodes = [cursor.node for cursor in self.cursors if cursor.node is not NOWHERE]
        return min(nodes, key=attrgetter("messages_before"), default=self.frontier)

    def wanted_from(self) -> int | None:
        """The lowest number that a QoS 1 subscription has not settled, or that is kept, if any.

        Everything in the log is committed, so what is not committed yet does not count.
        """
        if not self.durable:
            return self.kept[0].first if self.kept else None
        floors = [cursor.floor for cursor in self.cursors if cursor.qos]
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
    def first_uncommitted(self) -> int:
        """The number of the first message that is not visible yet, or the next to be given out."""
        run = self.frontier.run
        return self.context.next_number if run is None else run.first

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
        for cursor in self.cursors:
            cursor.trim(now)
            times.append(cursor.oldest_expires)
        earliest = min(times, default=NEVER)
        return None if earliest == NEVER else earliest
