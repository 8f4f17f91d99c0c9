"""The facts that the log holds. How they stand in it, `blipmq.wal.record` says."""

from __future__ import annotations

from typing import Final

import attrs

DELAYED_TOPIC: Final = b""
"""The topic under which messages are logged that are published later."""
DELAYED_ID: Final = 0
"""The subscription of that topic, which has settled those that were published."""

Bytes = bytes | bytearray | memoryview


@attrs.frozen
class UnsettledRange:
    """Numbers first to last, not settled; `attempts` is how often they were delivered."""

    first: int
    last: int
    attempts: int = 0


@attrs.frozen
class SubscriptionState:
    """A subscription: what outlives the daemon of it.

    `shared` is one of version 2; without a `name` it ends with the daemon. A `pattern` has the
    pattern as its topic, and cursor 0; each topic that matches is a state of its own, whose
    `parent` is the id of the pattern. `ack_wait_ms` and `max_attempts` are those of version 2.
    """

    id: int
    owner: str
    topic: bytes
    cursor: int
    unsettled: tuple[UnsettledRange, ...] = ()
    shared: bool = False
    pattern: bool = False
    name: bytes = b""
    parent: int = 0
    ack_wait_ms: int = 0
    max_attempts: int = 0


@attrs.frozen(eq=False)
class RunRecord:
    """`count` messages of one topic, numbered from `first`; `data` is their frames, end to end."""

    topic: bytes
    first: int
    count: int
    data: Bytes
    time_ms: int = 0
    """When it was written, in milliseconds since the epoch."""


@attrs.frozen
class Settled:
    """The subscription wants none of the numbers first to last any more."""

    subscription: int
    first: int
    last: int


@attrs.frozen(eq=False)
class Moved:
    """The subscription wants none of first to last any more, and `run` is published, at once."""

    subscription: int
    first: int
    last: int
    run: RunRecord

    @property
    def settled(self) -> Settled:
        """The settlement alone."""
        return Settled(self.subscription, self.first, self.last)


@attrs.frozen
class Attempted:
    """Numbers first to last were delivered to the subscription `attempts` times in all."""

    subscription: int
    first: int
    last: int
    attempts: int


@attrs.frozen
class Synced:
    """The first `size` bytes of a segment were fsynced: no power cut took any of them."""

    segment: int
    size: int


@attrs.frozen
class Continued:
    """The segment ends here: `segment`, with that salt, is on the disk with its checkpoint."""

    segment: int
    salt: int


@attrs.frozen
class Opened:
    """A durable subscription exists from now on."""

    subscription: SubscriptionState


@attrs.frozen
class Closed:
    """A durable subscription exists no more; messages from `next_number` on are not its own."""

    subscription: int
    next_number: int


@attrs.frozen
class Seen:
    """The message ids of a topic that a publish is not to bring again: (time in ms, id)."""

    topic: bytes
    ids: tuple[tuple[int, bytes], ...]


@attrs.frozen
class Checkpoint:
    """Everything but the messages. No number below `reserved` may be given out again.

    `segments` are the older segments that are still wanted; any other may be removed. `salts` are
    theirs, in the same order; a checkpoint of an older log does not have them. `kept`
    holds, of every topic without a durable subscription, the number from which on its messages are
    kept; a topic that is not in it keeps those from the checkpoint's id on. `seen` is the
    deduplication window.
    """

    reserved: int
    segments: tuple[int, ...] = ()
    subscriptions: tuple[SubscriptionState, ...] = ()
    kept: tuple[tuple[bytes, int], ...] = ()
    seen: tuple[Seen, ...] = ()
    salts: tuple[int, ...] = ()


Fact = RunRecord | Settled | Moved | Attempted | Synced | Continued | Opened | Closed | Checkpoint


def run_in(fact: Fact) -> RunRecord | None:
    """The messages that a fact publishes, if it does."""
    if isinstance(fact, RunRecord):
        return fact
    return fact.run if isinstance(fact, Moved) else None


def without_data(fact: Fact) -> Fact:
    """A fact that may outlive the bytes it was read from: a moved run loses its frames."""
    if isinstance(fact, Moved):
        return attrs.evolve(fact, run=attrs.evolve(fact.run, data=b""))
    return fact
