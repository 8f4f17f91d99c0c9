"""A subscription, and what it has seen of each message."""

from __future__ import annotations

import math
from collections.abc import Callable

import attrs

from tools.history.message import Message, Source


@attrs.define(eq=False)
class Holder:
    """Whom messages are sent to: one connection of one member.

    `ended_at` says when it ended, or, while it has not, infinity.
    """

    name: str
    ended_at: Callable[[], float] = lambda: math.inf
    left: bool = False
    """It has begun to leave the subscription by itself."""


@attrs.define(eq=False)
class Copy:
    """One message in one subscription."""

    message: Message
    sends: int = 0
    sends_in_life: int = 0
    life: int = 0
    holder: Holder | None = None
    sent_at: float = 0.0
    until: float = 0.0
    """Until then it is its holder's, unless that gives it back."""
    given_back: bool = False
    releases: int = 0
    accepted_by: Holder | None = None
    """Who has sent an acceptance that counts, if it arrives."""
    accepted_at: float | None = None
    """The broker has taken note of it, by then at the latest."""
    accepted_in: int = 0
    rejected: bool = False
    buried: int = 0
    buried_at: float = math.inf
    """When a dead letter of it came last, if that is still in the log."""

    @property
    def done(self) -> bool:
        return self.accepted_by is not None or self.buried > 0


@attrs.define(eq=False)
class Subscription:
    """`matches` says which topics. A `shared` one is durable, and so is a `parked` one.

    `since` is when it was there for certain; None: it may have been lost since.
    """

    name: str
    matches: Callable[[str], bool]
    qos: int = 1
    ack_wait: float = 30.0
    max_attempts: int = 0
    """0: no limit."""
    durable: bool = True
    start_new: bool = False
    """It gets nothing that was published before it was made."""
    anybody_accepts: bool = False
    """Not only the member that was the last to receive a message, nor only on that connection."""
    counts_attempts: bool = True
    """Deliveries say how many there were."""
    since: float | None = None
    made_after: float = math.inf
    """Before that it was not there."""
    copies: dict[tuple[bytes, int | None], Copy] = attrs.Factory(dict)
    """By body and tag: with another tag, a message has been published once more."""
    highest: dict[tuple[str, bytes | None], tuple[int, bytes]] = attrs.Factory(dict)
    """By topic and key, the highest tag of a first delivery so far, and its message."""
    latest: dict[tuple[Source, str, bytes | None], Message] = attrs.Factory(dict)
    """Of each source's messages, the last one that was delivered."""

    def copy(self, message: Message, tag: int | None) -> Copy:
        """Of this tag, None at QoS 0."""
        found = self.copies.get((message.body, tag))
        if found is None:
            found = self.copies[message.body, tag] = Copy(message)
        return found

    def copies_of(self, message: Message) -> list[Copy]:
        """With whatever tag it came."""
        tags = message.tags.get(message.topic, [])
        found = (self.copies.get((message.body, tag)) for tag in (None, *tags))
        return [copy for copy in found if copy is not None]
