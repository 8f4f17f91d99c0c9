"""What a broker should do, in plain lists: every message is an object in each queue it is for."""

from __future__ import annotations

from collections.abc import Hashable

import attrs


@attrs.define(eq=False)
class Message:
    """`place` is its place among all messages ever published."""

    place: int
    topic: bytes
    qos: int
    arrived: float
    expires: float
    committed: bool
    failed: bool = False
    visible: bool = False

    @property
    def body(self) -> bytes:
        return b"%d" % self.place


@attrs.define(eq=False)
class Item:
    """A message in one subscription. `holder` has it until `deadline`; None: it waits.

    `since` is when it began to wait: it arrived, or it was not settled in time.
    """

    message: Message
    since: float
    attempt: int = 0
    holder: Hashable | None = None
    deadline: float = 0.0


@attrs.define(eq=False)
class Queue:
    """One subscription. `connection` is None while it is parked, until `parked_until`."""

    id: int
    owner: str
    topic: bytes
    qos: int
    connection: Hashable | None
    items: list[Item]
    parked_until: float = 0.0

    @property
    def waiting(self) -> list[Item]:
        return [i for i in self.items if i.message.visible and i.holder is None]

    @property
    def next(self) -> Item | None:
        """What has waited longest."""
        return min(self.waiting, key=lambda i: (i.since, i.message.place), default=None)

    def delivered(self, place: int) -> Item | None:
        """The item of a message that was delivered and is not settled."""
        found = (i for i in self.items if i.message.place == place and i.attempt)
        return next(found, None)


@attrs.define(eq=False)
class Model:
    """The rules, at one point in time after the other. Times are in seconds."""

    ttl: float
    backoff: float
    attempts_max: int
    expiry: float
    now: float = 0.0
    places: int = 0
    queues: list[Queue] = attrs.Factory(list)
    on_their_way: list[Message] = attrs.Factory(list)
    """Not visible yet: not committed, or behind one that is not."""
    kept: list[Message] = attrs.Factory(list)

    def publish(self, topic: bytes, count: int, qos: int, committed: bool) -> list[Message]:
        expires = self.now + self.ttl if self.ttl else float("inf")
        messages = [
            Message(self.places + i, topic, qos, self.now, expires, committed) for i in range(count)
        ]
        self.places += count
        for queue in self.queues:
            if queue.topic == topic:
                queue.items += [Item(message, self.now) for message in messages]
        self.on_their_way += messages
        self._show(topic)
        return messages

    def commit(self, messages: list[Message]) -> None:
        for message in messages:
            message.committed = True
            self._show(message.topic)

    def fail(self, messages: list[Message]) -> None:
        for message in messages:
            message.failed = True
            for queue in self.queues:
                queue.items = [item for item in queue.items if item.message is not message]
            self._show(message.topic)

    def _durable(self, topic: bytes) -> bool:
        return any(queue.topic == topic and queue.qos for queue in self.queues)

    def _show(self, topic: bytes) -> None:
        """Make visible what is committed, up to the first message that is on its way."""
        for message in [m for m in self.on_their_way if m.topic == topic]:
            if not (message.committed or message.failed):
                break
            self.on_their_way.remove(message)
            message.visible = not message.failed
            if message.visible and message.qos and not self._durable(topic):
                self.kept.append(message)
        self.expire()

    def expire(self) -> None:
        """What waits longer than it may is gone."""
        self.kept = [message for message in self.kept if message.expires > self.now]
        for queue in self.queues:
            late = [item for item in queue.waiting if item.message.expires <= self.now]
            queue.items = [item for item in queue.items if item not in late]

    def subscribe(self, id_: int, owner: str, topic: bytes, qos: int, connection: Hashable) -> None:
        items: list[Item] = []
        if qos and not self._durable(topic):
            early = [m for m in self.kept + self.on_their_way if m.topic == topic and m.qos]
            items = [Item(message, message.arrived) for message in early]
            self.kept = [message for message in self.kept if message.topic != topic]
        self.queues.append(Queue(id_, owner, topic, qos, connection, items))

    def parked(self, owner: str, topic: bytes) -> Queue | None:
        """The one that was parked first."""
        found = [
            queue
            for queue in self.queues
            if queue.connection is None and (queue.owner, queue.topic) == (owner, topic)
        ]
        return min(found, key=lambda queue: queue.parked_until, default=None)

    def deliver(self, queue: Queue, item: Item, connection: Hashable) -> None:
        if not (queue.qos and item.message.qos):
            queue.items.remove(item)
            return
        item.attempt += 1
        item.holder = connection
        item.deadline = self.now + self.backoff * 2 ** (item.attempt - 1)

    def _come_back(self, queue: Queue, item: Item, since: float) -> None:
        item.holder = None
        item.since = since
        if item.attempt >= self.attempts_max:
            queue.items.remove(item)

    def disconnect(self, connection: Hashable) -> None:
        for queue in self.queues:
            for item in [item for item in queue.items if item.holder is connection]:
                self._come_back(queue, item, item.message.arrived)
        for queue in [queue for queue in self.queues if queue.connection is connection]:
            if queue.qos:
                # Of those parked at one moment, the one that was subscribed first is first.
                self.queues.remove(queue)
                self.queues.append(queue)
                queue.connection, queue.parked_until = None, self.now + self.expiry
            else:
                self.queues.remove(queue)
        self.expire()

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        for queue in self.queues:
            late = [i for i in queue.items if i.holder is not None and i.deadline <= self.now]
            for item in late:
                self._come_back(queue, item, item.deadline)
        self.queues = [
            queue
            for queue in self.queues
            if queue.connection is not None or queue.parked_until > self.now
        ]
        self.expire()

    @property
    def held(self) -> int:
        return sum(item.holder is not None for queue in self.queues for item in queue.items)
