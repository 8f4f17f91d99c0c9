"""What is to be done: how many of whom, which topics, sizes and bounds. The same for any broker."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from enum import IntEnum

import attrs

from tools.bench.load.body import BODY_BYTES_MIN

AHEAD_MESSAGES = 20_000
WINDOW_MESSAGES = 1_000
SAMPLED = 256
"""Unless there is a rate, one message in so many of a topic carries a time stamp."""
_RING_FRAMES = 2_048
_BLOCK_BYTES = 1 << 18


class Guarantee(IntEnum):
    """What clients ask for. Whether messages also outlive the broker is the broker's setting."""

    AT_MOST_ONCE = 0
    AT_LEAST_ONCE = 1
    """Confirmed to the publisher, acknowledged by the subscriber."""


class Miscounted(Exception):
    """A message is missing, or came twice, or out of order: the figures of the run mean nothing."""


@attrs.frozen(kw_only=True)
class Work:
    """Either `messages`, of all publishers together, or `seconds` is given.

    Topic t belongs to publisher t % publishers and to subscriber t % subscribers; where there are
    fewer topics than clients, client c has topic c % topics. A publisher goes round its topics and
    its `sizes`, in bytes of a body.

    No subscriber is ever sent more than `ahead` messages beyond what it received, and no publisher
    has more than `window` that are not confirmed, where there are confirms. `rate` is messages a
    second of all publishers; each is then sent at its time, or as soon as the bounds allow,
    and carries the time at which it should have been sent. `preload`: everything is published
    before subscribers begin to take, and time counts from then.
    """

    guarantee: Guarantee
    publishers: int = 1
    subscribers: int = 1
    topics: int = 1
    sizes: tuple[int, ...] = (256,)
    messages: int | None = None
    seconds: float | None = None
    rate: float | None = None
    ahead: int = AHEAD_MESSAGES
    window: int = WINDOW_MESSAGES
    preload: bool = False
    topic_prefix: str = attrs.field(factory=lambda: f"bench-{secrets.token_hex(3)}")

    def __attrs_post_init__(self) -> None:
        if (self.messages is None) == (self.seconds is None):
            raise ValueError("either a number of messages or a number of seconds")
        if not self.sizes or min(self.sizes) < BODY_BYTES_MIN:
            raise ValueError(f"bodies take at least {BODY_BYTES_MIN} bytes: a stamp and a number")
        if min(self.publishers, self.topics, self.ahead, self.window) < 1 or self.subscribers < 0:
            raise ValueError("at least one publisher, one topic, and one message under way")
        if self.rate is not None and self.rate <= 0:
            raise ValueError("a rate is above 0")
        if self.preload and (self.messages is None or self.rate is not None):
            raise ValueError("only a number of messages, as fast as may be, is published before")

    def topic(self, number: int) -> str:
        return f"{self.topic_prefix}.{number}"

    def pattern(self, place: int) -> str | None:
        """What the subscriber at this place may subscribe to in place of all its topics.

        That is where it takes every message of many topics; `*` is the last level of their names.
        """
        if self.guarantee or self.topics == 1 or len(self.subscriber_topics(place)) < self.topics:
            return None
        return f"{self.topic_prefix}.*"

    def publisher_topics(self, place: int) -> Sequence[int]:
        """The topics of the publisher at this place, from 0."""
        return _share(self.topics, self.publishers, place)

    def subscriber_topics(self, place: int) -> Sequence[int]:
        """The topics of the subscriber at this place, from 0."""
        return _share(self.topics, self.subscribers, place)

    def published_by(self, place: int) -> int | None:
        """How many messages that publisher sends; None when its time decides."""
        if self.messages is None:
            return None
        count, rest = divmod(self.messages, self.publishers)
        return count + (place < rest)

    def common(self, publisher: int, subscriber: int) -> list[int]:
        """Places, in that publisher's round, of topics that the subscriber has too."""
        wanted = set(self.subscriber_topics(subscriber))
        return [at for at, n in enumerate(self.publisher_topics(publisher)) if n in wanted]

    def stream(self, publisher: int, topic: int) -> int:
        """Names what one publisher sends to one topic; order is promised within it."""
        return publisher * self.topics + topic

    @property
    def cycle(self) -> int:
        """After so many messages the numbers of a stream begin anew; frames are used again."""
        each = min(len(self.publisher_topics(place)) for place in range(self.publishers))
        wanted = max(_RING_FRAMES, 2 * self.window) / each
        return 1 << max(5, (int(wanted - 1)).bit_length())

    @property
    def sampled(self) -> int:
        """Numbers of a stream that this divides go with a time stamp."""
        return 1 if self.rate is not None else min(SAMPLED, self.cycle)

    @property
    def block(self) -> int:
        """The most messages that a publisher sends at once."""
        mean = sum(self.sizes) / len(self.sizes)
        return max(1, min(int(_BLOCK_BYTES // mean), self.ahead // (4 * self.publishers)))

    @property
    def spare(self) -> int:
        """What other publishers may be sending while one looks at the bound of `ahead`."""
        return (self.publishers - 1) * self.block


def _share(topics: int, clients: int, place: int) -> Sequence[int]:
    return range(place, topics, clients) if topics >= clients else (place % topics,)


def of_round(messages: int, length: int, place: int) -> int:
    """How many of so many messages fall on one place of a round of that length."""
    count, rest = divmod(messages, length)
    return count + (place < rest)
