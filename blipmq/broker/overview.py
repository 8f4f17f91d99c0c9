"""What there is, for who watches: plain snapshots of topics, subscriptions and dead letters.

Changes nothing, and hands out nothing that anybody could change. What looks at much is a generator,
so that others may run between two of its steps; no step takes long, however much there is.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from heapq import nlargest, nsmallest
from typing import Final, Generic, TypeVar

import attrs

from blipmq.broker.attachment import Attachment
from blipmq.broker.context import Context
from blipmq.broker.cursor import Cursor
from blipmq.broker.message import NEVER
from blipmq.broker.shared import SharedSubscription
from blipmq.broker.shared_cursor import SharedCursor
from blipmq.broker.sharing import Sharing
from blipmq.broker.subscription import Subscription
from blipmq.broker.topic import DEAD_LETTERS, Topic
from blipmq.broker.topics import Topics

Row = TypeVar("Row")
Key = TypeVar("Key", str, int)
T = TypeVar("T")
Sorted = TypeVar("Sorted", bytes, int)

Steps = Generator[None, None, T]
"""Steps to a result; the broker may change between two of them."""

_RANKED_STEP: Final = 500
"""How many topics or subscriptions one step ranks by their backlogs."""
_STEP: Final = 2_000
"""How many places of subscriptions in topics one step looks at."""


@attrs.frozen
class Page(Generic[Key]):
    """Which rows: the first `limit` behind `after`, or, `by_backlog`, those with the most messages.

    `contains` is what a topic's name has in it.
    """

    limit: int
    after: Key | None = None
    by_backlog: bool = False
    contains: str = ""


@attrs.frozen
class Paged(Generic[Row]):
    """Rows, and whether there are more behind the last of them."""

    rows: list[Row]
    more: bool


@attrs.frozen
class Amount:
    """Messages, their bytes, and the age of the oldest; None when that is not known."""

    messages: int = 0
    bytes: int = 0
    oldest_seconds: float | None = 0.0


@attrs.frozen
class TopicView:
    """`published` counts since the topic came to be. A `backlog` is that of all subscriptions."""

    topic: str
    published: int
    published_bytes: int
    subscriptions: int
    kept_messages: int
    backlog: Amount


@attrs.frozen
class SubscriptionView:
    """`kind` is "version 1", "named" or "unnamed"; `topics` is how many topics it is in.

    `unsettled` of its messages are out. `full_members` have as much as they may hold. `slow`: it
    has a backlog that nobody who is there takes, or publishers wait for it.
    """

    id: int
    kind: str
    name: str | None
    topic: str
    pattern: bool
    qos: int
    topics: int
    members: int
    full_members: int
    parked: bool
    behind: bool
    slow: bool
    unsettled: int
    backlog: Amount
    owner: str | None = None


@attrs.frozen
class DeadLettersView:
    """The dead letters of `topic`, each counted once for every subscription that has it."""

    topic: str
    subscriptions: int
    backlog: Amount


@attrs.frozen
class SessionView:
    """One connection's conversation. `held` messages of its attachments are out.

    `uncommitted` of its writes are not committed yet, `output_bytes` wait to be sent to it, and
    while it is `paused` nothing of it is carried out, for others' sake.
    """

    version: int
    owner: str | None
    subscriptions: int
    held: int
    uncommitted: int
    output_bytes: int
    paused: bool


@attrs.define(eq=False)
class Overview:
    """Reads of one broker."""

    context: Context
    topics: Topics
    sharing: Sharing
    version_1: dict[int, Subscription]

    def topic_page(self, page: Page[str], now: float) -> Steps[Paged[TopicView]]:
        """Topics by name, or by their backlogs."""
        found = yield from self._topics(page, list(self.topics))
        rows = []
        for topic in found[: page.limit]:
            backlog = yield from _with_kept(topic, now)
            rows.append(
                TopicView(
                    _text(topic.name),
                    topic.frontier.messages_before,
                    topic.frontier.bytes_before,
                    len(topic.cursors),
                    topic.kept_messages,
                    backlog,
                )
            )
            yield
        return Paged(rows, len(found) > page.limit)

    def dead_letter_page(self, page: Page[str], now: float) -> Steps[Paged[DeadLettersView]]:
        """The topics that have given up messages, by name, or by how many."""
        wanted = DEAD_LETTERS, page.contains.encode("utf-8", "surrogatepass")
        dead = yield from _where(list(self.topics), lambda topic: _is_of(topic.name, *wanted))
        found = yield from self._topics(attrs.evolve(page, contains=""), dead)
        rows = []
        for topic in found[: page.limit]:
            backlog = yield from _with_kept(topic, now)
            origin = _text(topic.name[len(DEAD_LETTERS) :])
            rows.append(DeadLettersView(origin, len(topic.cursors), backlog))
            yield
        return Paged(rows, len(found) > page.limit)

    def _topics(self, page: Page[str], topics: list[Topic]) -> Steps[list[Topic]]:
        """One more than the page has room for, if there are more."""
        wanted = page.contains.encode("utf-8", "surrogatepass")
        if wanted:
            topics = yield from _where(topics, lambda topic: wanted in topic.name)
        if page.by_backlog:
            return (yield from _largest(topics, _of_topic, page.limit + 1))
        # UTF-8 sorts as its characters do.
        after = None if page.after is None else page.after.encode("utf-8", "surrogatepass")
        return (yield from _first(topics, _name, after, page.limit + 1))

    def subscription_page(
        self, page: Page[int], now: float, topic: str | None = None
    ) -> Steps[Paged[SubscriptionView]]:
        """Subscriptions by id, or by their backlogs; of a topic or pattern, if one is given."""
        everyone: list[Subscription | SharedSubscription] = [
            *self.version_1.values(),
            *self.sharing,
        ]
        if topic is not None:
            wanted = topic.encode("utf-8", "surrogatepass")
            everyone = yield from _where(everyone, lambda one: _is_in(one, wanted))
        if page.by_backlog:
            found = yield from _largest(everyone, _of_subscription, page.limit + 1)
        else:
            found = yield from _first(everyone, _id, page.after, page.limit + 1)
        rows = []
        for subscription in found[: page.limit]:
            row = yield from self._row(subscription, now)
            rows.append(row)
            yield
        return Paged(rows, len(found) > page.limit)

    def subscription(self, id_: int, now: float) -> Steps[SubscriptionView | None]:
        """One by its id, if there is such a one."""
        found = self.version_1.get(id_) or self.sharing.find(id_)
        if found is None:
            return None
        return (yield from self._row(found, now))

    def _row(
        self, subscription: Subscription | SharedSubscription, now: float
    ) -> Steps[SubscriptionView]:
        cursors = _cursors(subscription)
        backlog = yield from _amount(cursors, now)
        if isinstance(subscription, SharedSubscription):
            backlog = _with_unsent(backlog, [*subscription.members], now)
        if isinstance(subscription, Subscription):
            connected = subscription.session is not None
            return SubscriptionView(
                subscription.id,
                "version 1",
                None,
                _text(subscription.topic.name),
                False,
                subscription.qos,
                1,
                1 if connected else 0,
                0,
                subscription.parked_until is not None,
                False,
                False,
                subscription.unsettled.messages - subscription.returned.messages,
                backlog,
                subscription.owner,
            )
        shared = [c for c in cursors[:_STEP] if isinstance(c, SharedCursor)]
        members = list(subscription.members)
        full = [m for m in members if subscription.qos and m.prefetch and not m.room]
        waiting = backlog.messages - sum(m.held for m in members)
        pressed = any(cursor in self.context.pressed for cursor in shared)
        pressed = pressed or any(m.unsent.full_until is not None for m in members)
        return SubscriptionView(
            subscription.id,
            "named" if subscription.name else "unnamed",
            _text(subscription.name) or None,
            _text(subscription.selector),
            subscription.pattern,
            subscription.qos,
            len(cursors),
            len(members),
            len(full),
            False,
            any(cursor.behind is not None for cursor in shared),
            pressed or (bool(members) and len(full) == len(members) and waiting > 0),
            sum(m.held for m in members),
            backlog,
            subscription.owner,
        )


def _text(name: bytes) -> str:
    return name.decode("utf-8", "replace")


def _is_of(name: bytes, prefix: bytes, part: bytes) -> bool:
    return name.startswith(prefix) and part in name[len(prefix) :]


def _name(topic: Topic) -> bytes:
    return topic.name


def _id(subscription: Subscription | SharedSubscription) -> int:
    return subscription.id


def _rank(ranked: tuple[int, object]) -> int:
    return ranked[0]


def _selector(subscription: Subscription | SharedSubscription) -> bytes:
    if isinstance(subscription, Subscription):
        return subscription.topic.name
    return subscription.selector


def _is_in(subscription: Subscription | SharedSubscription, topic: bytes) -> bool:
    if _selector(subscription) == topic:
        return True
    return isinstance(subscription, SharedSubscription) and topic in subscription.cursors


def _cursors(subscription: Subscription | SharedSubscription) -> Sequence[Cursor]:
    if isinstance(subscription, Subscription):
        return [subscription]
    return list(subscription.cursors.values())


def _of_topic(topic: Topic) -> tuple[int, Sequence[Cursor]]:
    return topic.kept_messages, topic.cursors


def _of_subscription(
    subscription: Subscription | SharedSubscription,
) -> tuple[int, Sequence[Cursor]]:
    return 0, _cursors(subscription)


def _largest(
    items: Sequence[T], parts: Callable[[T], tuple[int, Sequence[Cursor]]], limit: int
) -> Steps[list[T]]:
    """The `limit` with the most messages: those that `parts` says, and those of its cursors."""
    found: list[tuple[int, T]] = []
    for position, item in enumerate(items, 1):
        kept, cursors = parts(item)
        backlog = yield from _amount(cursors, 0.0)
        found.append((kept + backlog.messages, item))
        if not position % _RANKED_STEP:
            found = nlargest(limit, found, key=_rank)
            yield
    return [item for _, item in nlargest(limit, found, key=_rank)]


def _where(items: Sequence[T], wanted: Callable[[T], bool]) -> Steps[list[T]]:
    found: list[T] = []
    for start in range(0, len(items), _STEP):
        found += filter(wanted, items[start : start + _STEP])
        yield
    return found


def _first(
    items: Sequence[T], key: Callable[[T], Sorted], after: Sorted | None, limit: int
) -> Steps[list[T]]:
    """The `limit` smallest of those above `after`."""
    found: list[T] = []
    for start in range(0, len(items), _STEP):
        some = items[start : start + _STEP]
        found += some if after is None else [item for item in some if key(item) > after]
        found = nsmallest(limit, found, key=key)
        yield
    return found


def _with_unsent(amount: Amount, members: Sequence[Attachment], now: float) -> Amount:
    """With what was relayed to these and is not sent."""
    oldest = min((member.unsent.oldest_arrived for member in members), default=NEVER)
    age = 0.0 if oldest == NEVER else max(0.0, now - oldest)
    return Amount(
        amount.messages + sum(member.unsent.messages for member in members),
        amount.bytes + sum(member.unsent.bytes for member in members),
        None if amount.oldest_seconds is None else max(amount.oldest_seconds, age),
    )


def _amount(cursors: Sequence[Cursor], now: float) -> Steps[Amount]:
    """What all of these hold."""
    messages, size, arrived, known = 0, 0, NEVER, True
    for position, cursor in enumerate(list(cursors), 1):
        messages += cursor.held
        size += cursor.held_bytes
        arrived = min(arrived, cursor.oldest_arrived)
        if isinstance(cursor, SharedCursor) and cursor.on_disk[0]:
            known = False
        if not position % _STEP:
            yield
    age = 0.0 if arrived == NEVER else max(0.0, now - arrived)
    return Amount(messages, size, age if known else None)


def _with_kept(topic: Topic, now: float) -> Steps[Amount]:
    """What the subscriptions of a topic hold, and what is kept for a first one."""
    amount = yield from _amount(topic.cursors, now)
    if not topic.kept:
        return amount
    size = sum(delivery.size for delivery in topic.kept)
    age = max(0.0, now - topic.kept[0].arrived)
    oldest = None if amount.oldest_seconds is None else max(amount.oldest_seconds, age)
    return Amount(amount.messages + topic.kept_messages, amount.bytes + size, oldest)
