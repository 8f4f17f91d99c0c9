"""A shared subscription's place in one topic: what goes to which member, and how much may wait."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from blipmq.broker.attachment import Attachment
from blipmq.broker.keys import KeyTable
from blipmq.broker.log_cursor import LogCursor
from blipmq.broker.message import NOWHERE, Charge, Delivery, DeliveryTable, ReturnedTable
from blipmq.broker.stats import DropReason
from blipmq.broker.taken import TakenRange, fit
from blipmq.protocol.run import Run
from blipmq.wal.facts import SubscriptionState, UnsettledRange

CURSOR_BYTES = 1536
"""What a place in a topic costs in memory, with its tables, roughly."""
_TRIM_MAX = 256
"""How many runs may expire in one go, since each message of them becomes a dead letter."""


@attrs.define(eq=False, kw_only=True)
class SharedCursor(LogCursor):
    """`parent` is the id of a pattern's subscription, else 0."""

    parent: int = 0
    listening: bool = False
    """Whether the topic is to tell when there is more."""
    closed: bool = False
    blocked: bool = False
    """Whether it waits for a member to take what was put aside for it."""
    charge: Charge = attrs.field()

    @charge.default
    def _charge(self) -> Charge:
        return Charge(self.context.stats, len(self.topic.name) + CURSOR_BYTES)

    @property
    def name(self) -> bytes:
        """What dead letters call the subscription."""
        return self.subscription.name

    @property
    def backlog_bytes(self) -> int:
        return self.held_bytes if self.qos else 0

    @property
    def idle(self) -> bool:
        """Whether nothing would be lost by forgetting it."""
        return not self.unsettled and self.behind is None and self.node is self.topic.tail

    def state(self) -> SubscriptionState:
        """What the log has to know of it."""
        number = self.number
        ranges = [UnsettledRange(d.first, d.last, d.attempt) for d in self.unsettled]
        if self.behind is not None:
            ranges += [UnsettledRange(*range_) for range_ in self.behind.pending]
            ranges.sort(key=lambda range_: range_.first)
        return self.subscription.state_of(
            self.id,
            self.topic.name,
            self.context.next_number if number is None else number,
            tuple(ranges),
            self.parent,
        )

    # To members

    def take(self, member: Attachment, messages: int, size: int, now: float) -> TakenRange | None:
        """A range of at most so many messages and bytes, but one message at least, for a member.

        None when nothing is there for it. What fell due again, and what waits for its first
        delivery behind it, keep to the order in which they came to wait.
        """
        self.blocked = False
        while True:
            if self.behind is not None:
                self._want_more()
            fresh = self.at_message(now)
            returned = self.returned.longest_waiting
            if returned is not None and not (fresh and self.node.arrived < returned.since):
                if not self._may_go(returned, now):
                    continue
                if not self._ours(returned, member):
                    if not self._reserve_returned(returned):
                        self.blocked = True
                        return None
                    continue
                return self._take_returned(returned, member, messages, size, now)
            if not fresh:
                return None
            run = self.node.run
            assert run is not None
            if run.keys is not None and self.qos and run.qos and self.subscription.keys is not None:
                taken = self._take_keyed(run, member, messages, size, now)
                if taken is None and not self.blocked:
                    continue
                return taken
            return self._take_fresh(run, member, fit(run, self.index, messages, size), now)

    def _may_go(self, delivery: Delivery, now: float) -> bool:
        """Give up what has expired, or was delivered too often before a restart."""
        reason: DropReason | None = None
        if delivery.expires > now:
            if not self._spent(delivery):
                return True
            reason = DropReason.MAX_RETRIES
        self.forget(delivery)
        self._settled(delivery)
        self.give_up(delivery.run, delivery.first, delivery.last, reason, now)
        return False

    def _take_fresh(self, run: Run, member: Attachment, stop: int, now: float) -> TakenRange:
        node, start = self.node, self.index
        self.step(stop - start)
        if not (run.qos and self.qos):
            self.context.stats.delivered[0] += stop - start
            if self in self.context.pressed:
                self._relieve()
            return TakenRange(run, start, stop)
        first = run.first
        delivery = Delivery(first + start, first + stop - 1, run, 0, node.expires, node.arrived)
        delivery.cursor = self
        self._deliver(delivery, member, now)
        return TakenRange(run, start, stop, tagged=True)

    def _take_returned(
        self, delivery: Delivery, member: Attachment, messages: int, size: int, now: float
    ) -> TakenRange:
        start = delivery.first - delivery.run.first
        count = min(fit(delivery.run, start, messages, size) - start, delivery.count)
        if count < delivery.count:
            self._split(delivery, delivery.first + count)
        self.forget(delivery)
        self._deliver(delivery, member, now)
        return TakenRange(delivery.run, start, start + count, delivery.attempt, tagged=True)

    # Keys

    def _ours(self, delivery: Delivery, member: Attachment) -> bool:
        """Whether the first message of a returned delivery may go to this member; cuts it so."""
        keys, run = self.subscription.keys, delivery.run
        if keys is None or run.keys is None:
            return True
        if delivery.count > 1:
            self._split(delivery, delivery.first + 1)
        key = run.keys[delivery.first - run.first]
        if key is None:
            return True
        holder = keys.holder(key, member)
        if delivery.key_member is not holder:
            keys.add(key, holder)
            delivery.key_member = holder
        return holder is member

    def _reserve_returned(self, delivery: Delivery) -> bool:
        if not self.subscription.may_reserve(delivery.count):
            return False
        self.returned.remove(delivery)
        self._reserve(delivery)
        return True

    def _take_keyed(
        self, run: Run, member: Attachment, messages: int, size: int, now: float
    ) -> TakenRange | None:
        """The next messages of the run that are for this member.

        Those before that are for others are put aside for them, up to `key_lookahead`.
        """
        keys = self.subscription.keys
        assert keys is not None
        assert run.keys is not None
        self._put_others_aside(run, keys, run.keys, member)
        if self.blocked or self.node.run is not run:
            return None
        start = self.index
        stop = fit(run, start, messages, size)
        for index in range(start, stop):
            key = run.keys[index]
            if key is not None and keys.holder(key, member) is not member:
                stop = index
                break
            self._take_fresh(run, member, index + 1, now)
            if key is not None:
                keys.add(key, member)
                delivery = self.unsettled.starting_at(run.first + index)
                assert delivery is not None
                delivery.key_member = member
        return TakenRange(run, start, stop, tagged=True)

    def _put_others_aside(
        self, run: Run, keys: KeyTable, names: Sequence[bytes | None], member: Attachment
    ) -> None:
        """Move on to the next message of the run that this member may have, if there is one."""
        while self.node.run is run:
            node, key = self.node, names[self.index]
            holder = member if key is None else keys.holder(key, member)
            if key is None or holder is member:
                return
            if not self.subscription.may_reserve(1):
                self.blocked = True
                return
            number = run.first + self.index
            delivery = Delivery(number, number, run, 0, node.expires, node.arrived)
            delivery.cursor, delivery.key_member = self, holder
            keys.add(key, holder)
            self.unsettled.add(delivery)
            self.step(1)
            self._reserve(delivery)

    # Room

    def trim(self, now: float) -> None:
        """Let go of what has expired, and of memory when it holds too much of it."""
        for _ in range(_TRIM_MAX):
            oldest = self.returned.lowest
            if oldest is None or oldest.expires > now:
                break
            self._may_go(oldest, now)
        self.at_message(now)
        limits = self.context.limits
        if not self.qos:
            self._press(now)
            while self.waiting_bytes > limits.qos0_window_bytes and self.node.run is not None:
                run = self.node.run
                stop = fit(
                    run, self.index, run.count, self.waiting_bytes - limits.qos0_window_bytes
                )
                self.pass_over(stop - self.index, DropReason.QOS0_WINDOW, now)
        elif self.waiting_bytes > limits.window_bytes:
            self.fall_behind()
        if self.qos and self.drops_oldest:
            self._drop_backlog(now)

    def _press(self, now: float) -> None:
        """Have publishers wait, for a while, before messages are dropped."""
        limits, pressed = self.context.limits, self.context.pressed
        if self not in pressed and self.waiting_bytes > limits.qos0_window_bytes // 2:
            pressed[self] = now + limits.slow_consumer_wait_ms / 1000

    def _relieve(self) -> None:
        if self.closed or self.waiting_bytes <= self.context.limits.qos0_window_bytes // 4:
            del self.context.pressed[self]
            self.topic.resume()

    @property
    def drops_oldest(self) -> bool:
        """Whether a full one drops its oldest messages rather than to refuse new ones."""
        return self.context.limits.drop_oldest or self.topic.holds_dead_letters

    def _drop_backlog(self, now: float) -> None:
        """Drop the oldest messages of a backlog that is larger than it may be."""
        excess = self.held_bytes - self.context.limits.max_backlog_bytes
        while excess > 0:
            oldest = self.returned.lowest
            if oldest is not None:
                size = oldest.size
                self.forget(oldest)
                self._settled(oldest)
                self.give_up(oldest.run, oldest.first, oldest.last, DropReason.BACKLOG, now)
            elif self.behind is not None:
                self._want_more()
                return
            elif self.at_message(now):
                run = self.node.run
                assert run is not None
                size = run.offsets[-1] - run.offsets[self.index]
                self.pass_over(run.count - self.index, DropReason.BACKLOG, now)
            else:
                return
            excess -= size

    # What an operator asks

    def purge(self, now: float) -> int:
        purged = 0
        for delivery in [d for d in self.unsettled if d.holder is None]:
            self._withdraw(delivery)
            self.settle_numbers(delivery.first, delivery.last)
            purged += delivery.count
        purged += self.pass_all()
        self.count_lost(purged, DropReason.PURGED)
        if self in self.context.pressed:
            self._relieve()
        self.subscription.on_ready(self)
        return purged

    def withdraw(self, number: int, now: float) -> bool:
        if self.behind is None:
            for delivery in self.pass_up_to(number, now):
                delivery.cursor = self
                self.add_waiting(delivery)
        found = self.unsettled.overlapping(number, number)
        if not found:
            return self.behind is not None and self.behind.withdraw(number)
        if found[0].holder is not None:
            return False
        self._withdraw(self._cut(found[0], number, number))
        return True

    # Messages

    def on_visible(self) -> None:
        self.listening = False
        self.subscription.on_ready(self)

    def listen(self) -> None:
        """Have the topic tell when there is more."""
        if not self.listening and self.behind is None:
            self.listening = True
            self.topic.waiting.append(self)

    def drop_all(self, reason: DropReason) -> None:
        """The subscription ends: count what nobody will get from it."""
        self.closed = True
        stats = self.context.stats
        stats.dropped[reason] += self.held
        stats.inflight -= sum(d.count for d in self.unsettled if d.holder is not None)
        if self in self.context.pressed:
            self._relieve()
        self.leave_behind()
        # Its deliveries refer to it: memory is to be free at once, not when cycles are looked for.
        self.node, self.index = NOWHERE, 0
        self.unsettled, self.returned = DeliveryTable(), ReturnedTable()

    def _on_ready(self) -> None:
        self.subscription.on_ready(self)

    def _on_late(self, member: Attachment) -> None:
        self.subscription.on_late(self, member)
