"""A shared subscription's place in one topic: ranges of messages out, in, to and from members.

What falls behind the window that is kept in memory is read back from the log when it is wanted.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import attrs

from blipmq.broker.attachment import Attachment
from blipmq.broker.behind import Behind, Range
from blipmq.broker.cursor import Cursor
from blipmq.broker.keys import KeyTable
from blipmq.broker.message import (
    NEVER,
    NOWHERE,
    Charge,
    Delivery,
    DeliveryTable,
    Node,
    ReturnedTable,
)
from blipmq.broker.retry import backoff
from blipmq.broker.stats import DropReason
from blipmq.broker.taken import TakenRange, fit
from blipmq.protocol.frames import Outcome
from blipmq.protocol.run import Run
from blipmq.wal.record import Attempted, RunRecord, SubscriptionState, UnsettledRange

if TYPE_CHECKING:
    from blipmq.broker.shared import SharedSubscription

CURSOR_BYTES = 1536
"""What a place in a topic costs in memory, with its tables, roughly."""
LOAD_BYTES = 1024 * 1024
"""What is read from the log at a time."""
_TRIM_MAX = 256
"""How many runs may expire in one go, since each message of them becomes a dead letter."""
_STALE_MAX = 64


@attrs.define(eq=False, kw_only=True)
class SharedCursor(Cursor):
    """Deliveries are ranges of a run, each to one member. `parent` is the id of a pattern's
    subscription, else 0.

    A delivery in `unsettled` is out (it has a holder), or returned, or reserved for a member, or
    waits for a later time, its `deadline`.
    """

    subscription: SharedSubscription
    parent: int = 0
    behind: Behind | None = None
    listening: bool = False
    """Whether the topic is to tell when there is more."""
    closed: bool = False
    blocked: bool = False
    """Whether it waits for a member to take what was put aside for it."""
    charge: Charge = attrs.field()
    _due: list[tuple[float, int]] = attrs.Factory(list)
    """A heap of deadline and first number, stale ones included."""
    _since: float = 0.0

    @charge.default
    def _charge(self) -> Charge:
        return Charge(self.context.stats, len(self.topic.name) + CURSOR_BYTES)

    @property
    def name(self) -> bytes:
        """What dead letters call the subscription."""
        return self.subscription.name

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
    def backlog_bytes(self) -> int:
        return self.held_bytes if self.qos else 0

    @property
    def number(self) -> int | None:
        return super().number if self.behind is None else self.behind.number

    @property
    def floor(self) -> int | None:
        floor = super().floor
        if self.behind is None or floor is None:
            return floor
        return min(floor, self.behind.floor)

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

    def _spent(self, delivery: Delivery) -> bool:
        return 0 < self.subscription.max_attempts <= delivery.attempt

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

    def _reserve(self, delivery: Delivery) -> None:
        member = delivery.key_member
        assert isinstance(member, Attachment)
        delivery.reserved = True
        member.reserve(delivery)
        self.subscription.reserved += delivery.count
        self.subscription.wake(member)

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

    def _retry(self, delivery: Delivery, delay: float, now: float) -> None:
        if self._spent(delivery) or delivery.expires <= now:
            self._come_back(delivery, now, now)
            return
        self._take_out(delivery)
        self._log_first_attempt(delivery)
        self.unsettled.add(delivery)
        base_ms = self.context.retries.retry_backoff_ms
        self._set_deadline(delivery, now + (delay or backoff(base_ms, delivery.attempt)))

    def _log_first_attempt(self, delivery: Delivery) -> None:
        if delivery.attempt == 1:
            # Later attempts are logged when they begin.
            self.context.log(Attempted(self.id, delivery.first, delivery.last, 1))

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
        self.subscription.on_ready(self)

    def _wait(self, delivery: Delivery) -> None:
        """Let it wait for a member again, as long as it may."""
        self.returned.add(delivery)
        if delivery.expires != NEVER:
            self.context.timers.at(self.topic, delivery.expires)

    def _let_go(self, delivery: Delivery, member: Attachment) -> None:
        """It is out no more."""
        delivery.holder = None
        delivery.deadline = NEVER
        member.held -= delivery.count
        member.held_bytes -= delivery.size
        self.context.stats.inflight -= delivery.count

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
        self.subscription.on_ready(self)

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
                self.subscription.on_ready(self)
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
        self.subscription.on_late(self, member)

    def forget(self, delivery: Delivery) -> None:
        """Take one out that waits; its last receiver may not settle it any more."""
        super().forget(delivery)
        self._forget_receiver(delivery)

    def _forget_receiver(self, delivery: Delivery) -> None:
        member = delivery.receiver
        if isinstance(member, Attachment):
            member.deliveries.remove(delivery)
            delivery.receiver = None

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
        self.subscription.on_ready(self)

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
        self.subscription.on_ready(self)

    def count_behind(self, record: RunRecord, ranges: Iterable[Range]) -> None:
        """The log has these numbers of a run for it."""
        assert self.behind is not None
        count = sum(last - first + 1 for first, last, _ in ranges)
        self.behind.messages += count
        self.behind.bytes += len(record.data) * count // record.count

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
        self.behind = None
        self.node = node
        self.index = 0 if node.run is None else max(0, behind.number - node.run.first)
        self.step(0)
        passed = node.volatile_messages_before - behind.mark_volatile
        self.context.stats.dropped[DropReason.BEHIND] += max(0, passed)
        topic.leave_behind()
        self.context.stats.behind -= 1

    # What an operator asks

    def purge(self, now: float) -> int:
        purged = 0
        for delivery in [d for d in self.unsettled if d.holder is None]:
            self._withdraw(delivery)
            self.settle_numbers(delivery.first, delivery.last)
            purged += delivery.count
        purged += self.pass_all() if self.behind is None else self._purge_behind(self.behind)
        self.count_lost(purged, DropReason.PURGED)
        if self in self.context.pressed:
            self._relieve()
        self.subscription.on_ready(self)
        return purged

    def _purge_behind(self, behind: Behind) -> int:
        """Nothing is read of what is on the disk: its numbers are settled."""
        purged, end = self.on_disk[0], self.topic.first_uncommitted
        for first, last, _ in behind.pending:
            self.settle_numbers(first, last)
        if behind.number < end:
            self.settle_numbers(behind.number, end - 1)
        self.behind = None
        self.stand_at_frontier()
        passed = self.node.volatile_messages_before - behind.mark_volatile
        self.context.stats.dropped[DropReason.BEHIND] += max(0, passed)
        self.topic.leave_behind()
        self.context.stats.behind -= 1
        self.context.loads.pop(self, None)
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

    def _withdraw(self, delivery: Delivery) -> None:
        """Take out what nobody holds."""
        if delivery.reserved:
            self._stop_waiting(delivery)
        elif delivery.deadline == NEVER:
            self.returned.remove(delivery)
        self.unsettled.remove(delivery)
        self._forget_receiver(delivery)
        self._settled(delivery)

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
        self.context.loads.pop(self, None)
        if self in self.context.pressed:
            self._relieve()
        if self.behind is not None:
            self.behind = None
            self.topic.leave_behind()
            stats.behind -= 1
        # Its deliveries refer to it: memory is to be free at once, not when cycles are looked for.
        self.node, self.index = NOWHERE, 0
        self.unsettled, self.returned = DeliveryTable(), ReturnedTable()


def _merged(new: list[Range], old: list[Range]) -> list[Range]:
    """All ranges, ascending; those that follow each other with equal attempts are one."""
    merged: list[Range] = []
    for first, last, attempts in sorted(new + old):
        if merged and merged[-1][1] + 1 == first and merged[-1][2] == attempts:
            merged[-1] = (merged[-1][0], last, attempts)
        else:
            merged.append((first, last, attempts))
    return merged
