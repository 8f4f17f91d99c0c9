"""A version 2 subscription: what its members share, and who of them gets what."""

from __future__ import annotations

from collections import OrderedDict

import attrs

from blipmq.broker.attachment import Attachment, Consumer
from blipmq.broker.context import Context
from blipmq.broker.keys import KeyTable
from blipmq.broker.message import NEVER, OVERHEAD_BYTES, Charge
from blipmq.broker.shared_cursor import SharedCursor
from blipmq.broker.stats import Backlog, DropReason
from blipmq.broker.taken import TakenRange
from blipmq.broker.unsent import Unsent
from blipmq.protocol.frames import Outcome
from blipmq.wal.facts import SubscriptionState, UnsettledRange


@attrs.define(eq=False)
class SharedSubscription:
    """Competing consumers of one topic, or of all topics that match a pattern.

    `selector` is the topic or the pattern. With a `name` it is durable; without one it has one
    member and ends with it. `ack_wait` is in seconds; `max_attempts` 0 means no limit. `cursors`
    has its place in each topic; `id` names it in the log, and is that of its cursor when it has
    a single topic.
    """

    id: int
    owner: str
    selector: bytes
    levels: tuple[bytes, ...] | None
    """Of a pattern; None for a single topic."""
    qos: int
    name: bytes
    ack_wait: float
    max_attempts: int
    context: Context
    members: dict[Attachment, None] = attrs.Factory(dict)
    cursors: dict[bytes, SharedCursor] = attrs.Factory(dict)
    keys: KeyTable | None = None
    """While there is more than one member."""
    reserved: int = 0
    """Messages that are put aside for members."""
    charge: Charge = attrs.field()
    _ready: OrderedDict[SharedCursor, None] = attrs.Factory(OrderedDict)
    """Those that may have something; the others listen, or are being read."""
    _hungry: dict[Attachment, None] = attrs.Factory(dict)
    """Members with room that got nothing when they asked."""

    @charge.default
    def _charge(self) -> Charge:
        return Charge(self.context.stats, len(self.selector) + len(self.name) + OVERHEAD_BYTES)

    @property
    def pattern(self) -> bool:
        return self.levels is not None

    # Members

    def join(self, id_: int, consumer: Consumer, prefetch: int) -> Attachment:
        """A new member."""
        limit = self.context.limits.attachment_bytes
        member = Attachment(id_, self, consumer, prefetch, limit, Unsent(self.context))
        if self.members and self.qos:
            if self.keys is None:
                self.keys = KeyTable()
                for other in self.members:
                    self.keys.join(other)
                self._add_keys(self.keys)
            self.keys.join(member)
        self.members[member] = None
        self.context.stats.attachments += 1
        if prefetch:
            self.wake(member)
        return member

    def _add_keys(self, keys: KeyTable) -> None:
        """What the only member was the last to receive, or is put aside for it."""
        (member,) = self.members
        for cursor in self.cursors.values():
            for delivery in cursor.returned:
                delivery.key_member = None
        for delivery in dict.fromkeys((*member.deliveries, *member.reserved)):
            if delivery.run.keys is None:
                continue
            delivery.key_member = member
            for number in range(delivery.first, delivery.last + 1):
                key = delivery.run.keys[number - delivery.run.first]
                if key is not None:
                    keys.add(key, member)

    def leave(self, member: Attachment, *, counts: bool, now: float) -> None:
        """A member is gone: what it held comes back at once. `counts`: so does the attempt."""
        del self.members[member]
        member.unsent.drop(DropReason.DISCONNECTED)
        self._hungry.pop(member, None)
        self.context.stats.attachments -= 1
        if self.keys is not None:
            self.keys.leave(member)
            if len(self.members) < 2:
                self.keys = None
        touched: dict[SharedCursor, None] = {}
        while member.reserved:
            delivery = member.reserved.popleft()
            cursor = delivery.cursor
            assert isinstance(cursor, SharedCursor)
            cursor.unreserve(delivery)
            touched[cursor] = None
        for delivery in list(member.deliveries):
            cursor = delivery.cursor
            assert isinstance(cursor, SharedCursor)
            cursor.lose(delivery, counts=counts, now=now)
            touched[cursor] = None
        for cursor in touched:
            if cursor.returned.bytes > self.context.limits.window_bytes:
                cursor.fall_behind()
            self.on_ready(cursor)
        self._wake_hungry()

    def wake(self, member: Attachment) -> None:
        """There may be something for this member."""
        self._hungry.pop(member, None)
        member.consumer.wake(member)

    def on_ready(self, cursor: SharedCursor) -> None:
        """A cursor may have something for the members."""
        if not cursor.closed:
            self._ready[cursor] = None
            self._wake_hungry()

    def on_late(self, cursor: SharedCursor, member: Attachment) -> None:
        """A member let something fall due: the others get it before it comes there again."""
        if cursor.closed:
            return
        self._ready[cursor] = None
        self._hungry.pop(member, None)
        if not self._hungry:
            if member.room:
                self.wake(member)
            return
        self._wake_hungry()
        if member.reserved and member.room:
            self.wake(member)  # nobody else gets what is put aside for it
        elif member.room:
            self._hungry[member] = None

    def _wake_hungry(self) -> None:
        hungry, self._hungry = self._hungry, {}
        for member in hungry:
            member.consumer.wake(member)

    # Messages

    def deliver(self, member: Attachment, bytes_max: int, now: float) -> list[TakenRange]:
        """What the member gets now: of about so many bytes, as far as it has room."""
        taken: list[TakenRange] = []
        size = 0
        while size < bytes_max and member.unsent:
            taken.append(member.unsent.take(1 << 62, bytes_max - size))
            size += taken[-1].size
        while size < bytes_max:
            room = member.room if self.qos else 1 << 62
            if room <= 0:
                return taken
            found = self._next(member, room, bytes_max - size, now)
            if found is None:
                self._hungry[member] = None
                return taken
            taken.append(found)
            size += found.size
        return taken

    def poll(self, member: Attachment, now: float) -> TakenRange | None:
        """One message for a member that asks, whatever its prefetch is."""
        if member.unsent:
            return member.unsent.take(1, 1)
        return self._next(member, 1, 1, now)

    def _next(self, member: Attachment, messages: int, size: int, now: float) -> TakenRange | None:
        while member.reserved:
            found = self._take_reserved(member, now)
            if found is not None:
                return found
        ready = self._ready
        for _ in range(len(ready) + 1):
            cursor = next(iter(ready), None)
            if cursor is None:
                return None
            taken = cursor.take(member, messages, size, now)
            if taken is not None:
                if len(ready) > 1:
                    ready.move_to_end(cursor)
                return taken
            if cursor.blocked:
                ready.move_to_end(cursor)
                continue
            ready.pop(cursor, None)
            cursor.listen()
        return None

    def _take_reserved(self, member: Attachment, now: float) -> TakenRange | None:
        full = not self.may_reserve(1)
        delivery = member.reserved.popleft()
        cursor = delivery.cursor
        assert isinstance(cursor, SharedCursor)
        taken = cursor.take_reserved(delivery, member, now)
        if full:
            self._wake_hungry()
        return taken

    def may_reserve(self, messages: int) -> bool:
        """Whether so many more may be put aside for others."""
        return self.reserved + messages <= self.context.limits.key_lookahead

    def settle(
        self, member: Attachment, outcome: Outcome, first: int, last: int, delay: float, now: float
    ) -> bool:
        """Settle what the member was the last to receive of these numbers, if anything."""
        found = member.deliveries.overlapping(first, last)
        self.context.work += len(found) + 1
        for delivery in found:
            cursor = delivery.cursor
            assert isinstance(cursor, SharedCursor)
            begin, end = max(first, delivery.first), min(last, delivery.last)
            cursor.settle(delivery, begin, end, outcome, delay, now)
        if found and member.room:
            self.wake(member)
        return bool(found)

    # Topics

    @property
    def caught_up(self) -> bool:
        """Whether nothing waits for the members in any topic, as far as is known."""
        return not self._ready

    def open(self, cursor: SharedCursor) -> None:
        """Begin with a topic."""
        self.cursors[cursor.topic.name] = cursor
        self.on_ready(cursor)

    def close(self, cursor: SharedCursor, reason: DropReason) -> None:
        """End with a topic."""
        cursor.drop_all(reason)
        del self.cursors[cursor.topic.name]
        self._ready.pop(cursor, None)

    # Watching

    @property
    def held(self) -> int:
        """Messages, waiting and unsettled together."""
        unsent = sum(member.unsent.messages for member in self.members)
        return unsent + sum(cursor.held for cursor in self.cursors.values())

    @property
    def held_bytes(self) -> int:
        unsent = sum(member.unsent.bytes for member in self.members)
        return unsent + sum(cursor.held_bytes for cursor in self.cursors.values())

    def age(self, now: float) -> float:
        """Seconds since its oldest message in memory arrived; 0 without one."""
        everywhere = [cursor.oldest_arrived for cursor in self.cursors.values()]
        everywhere += [member.unsent.oldest_arrived for member in self.members]
        arrived = min(everywhere, default=NEVER)
        return 0.0 if arrived == NEVER else max(0.0, now - arrived)

    def backlog(self, now: float) -> Backlog:
        """What an operator sees of it."""
        return Backlog(
            self.name.decode() or str(self.id),
            self.selector.decode(),
            self.held,
            self.held_bytes,
            self.age(now),
            len(self.members),
        )

    # The log

    def state_of(
        self,
        id_: int,
        topic: bytes,
        cursor: int,
        unsettled: tuple[UnsettledRange, ...],
        parent: int,
    ) -> SubscriptionState:
        return SubscriptionState(
            id_,
            self.owner,
            topic,
            cursor,
            unsettled,
            shared=True,
            name=self.name,
            parent=parent,
            ack_wait_ms=round(self.ack_wait * 1000),
            max_attempts=self.max_attempts,
        )

    def pattern_state(self) -> SubscriptionState:
        """What the log has to know of a pattern, besides its cursors."""
        state = self.state_of(self.id, self.selector, 0, (), 0)
        return attrs.evolve(state, pattern=True)

    def states(self) -> list[SubscriptionState]:
        """What the log has to know of it."""
        states = [self.pattern_state()] if self.pattern else []
        return states + [cursor.state() for cursor in self.cursors.values()]
