"""What is in a log: by segment, by topic and by subscription.

What the facts of a log come to is decided elsewhere; here it is the interface `State`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import attrs

from blipmq.protocol.run import stored_run
from blipmq.wal.facts import (
    DELAYED_ID,
    DELAYED_TOPIC,
    Checkpoint,
    Fact,
    RunRecord,
    SubscriptionState,
    UnsettledRange,
)
from blipmq.wal.salvage import Damage, SalvageReader
from blipmq.wal.scan import LogScan, Progress, silent

Ranges = Sequence[tuple[int, int, int]]
"""First number, last number, attempts."""


class Holder(Protocol):
    """A durable subscription, as the facts leave it; it wants `unsettled`, and from `cursor` on.

    `state` is what the log says of the rest.
    """

    @property
    def state(self) -> SubscriptionState: ...
    @property
    def cursor(self) -> int: ...
    @property
    def unsettled(self) -> Ranges: ...


class State(Protocol):
    """Takes the facts of a log in order, then says which messages are wanted."""

    @property
    def subscriptions(self) -> Mapping[int, Holder]: ...
    @property
    def reserved(self) -> int: ...
    def apply(self, id_: int, fact: Fact) -> None: ...
    def wanted(self, record: RunRecord) -> Sequence[tuple[int, Ranges]]:
        """By which subscription, and what of the run."""

    def kept(self, record: RunRecord) -> bool:
        """Whether any of the run waits for a subscription that is to come."""

    def kept_from(self, topic: bytes) -> int:
        """From which number on."""


def kept(state: State, record: RunRecord) -> bool:
    """Whether any of a run is kept; what is delayed is not, whoever is there."""
    return record.topic != DELAYED_TOPIC and state.kept(record)


def states(state: State) -> Iterator[SubscriptionState]:
    """What a checkpoint says of the durable subscriptions."""
    for holder in state.subscriptions.values():
        ranges = tuple(UnsettledRange(*row) for row in holder.unsettled)
        yield attrs.evolve(holder.state, cursor=holder.cursor, unsettled=ranges)


@attrs.define
class Amount:
    """Messages with their frames' bytes; `first`, `last` and `oldest_ms` are 0 without any.

    `oldest_ms` is when the oldest was written, in milliseconds since the epoch.
    """

    messages: int = 0
    bytes: int = 0
    first: int = 0
    last: int = 0
    oldest_ms: int = 0

    def add(self, record: RunRecord, first: int, last: int) -> None:
        """Messages first to last of a run."""
        self.first = self.first or first
        self.last = last
        self.messages += last - first + 1
        self.bytes += _bytes(record, first, last)
        if not self.oldest_ms or record.time_ms < self.oldest_ms:
            self.oldest_ms = record.time_ms


@attrs.frozen
class SegmentSurvey:
    """One segment; its times are those of its first and last run, 0 without any."""

    sequence: int
    bytes: int
    records: int
    first_ms: int
    last_ms: int
    torn_bytes: int

    @classmethod
    def of(cls, reader: SalvageReader) -> SegmentSurvey:
        return cls(
            reader.sequence,
            reader.size,
            reader.records,
            reader.first_time_ms,
            reader.last_time_ms,
            reader.torn,
        )


@attrs.frozen
class SubscriptionSurvey:
    """One durable subscription and what it has not settled."""

    state: SubscriptionState
    cursor: int
    unsettled: Amount = attrs.Factory(Amount)


@attrs.define
class Survey:
    """`topics` counts all messages in the log, `kept` those of topics without a subscription.

    `delayed` are those that are to be published yet, by the topic that they are for.
    """

    segments: list[SegmentSurvey] = attrs.Factory(list)
    topics: dict[bytes, Amount] = attrs.Factory(dict)
    subscriptions: dict[int, SubscriptionSurvey] = attrs.Factory(dict)
    kept: dict[bytes, Amount] = attrs.Factory(dict)
    delayed: dict[bytes, Amount] = attrs.Factory(dict)
    checkpoint: Checkpoint | None = None
    checkpoint_segment: int = 0
    next_number: int = 0
    torn_bytes: int = 0
    damages: list[Damage] = attrs.Factory(list)

    def _count(self, record: RunRecord, state: State) -> None:
        last = record.first + record.count - 1
        self.topics.setdefault(record.topic, Amount()).add(record, record.first, last)
        for id_, ranges in state.wanted(record):
            if id_ in self.subscriptions:
                amount = self.subscriptions[id_].unsettled
            else:
                topic = stored_run(record.topic, record.first, bytes(record.data)).topic
                amount = self.delayed.setdefault(topic, Amount())
            for range_first, range_last, _ in ranges:
                amount.add(record, range_first, range_last)
        if kept(state, record):
            first = max(record.first, state.kept_from(record.topic))
            self.kept.setdefault(record.topic, Amount()).add(record, first, last)


def survey(scan: LogScan, state: State, progress: Progress = silent) -> Survey:
    """Read the whole log. `state` is a new one; it is given the log's facts."""
    for id_, fact in scan.facts:
        state.apply(id_, fact)
    found = Survey(checkpoint=scan.checkpoint, checkpoint_segment=scan.last)
    for holder in state.subscriptions.values():
        if holder.state.id != DELAYED_ID:
            found.subscriptions[holder.state.id] = SubscriptionSurvey(holder.state, holder.cursor)
    for record in scan.runs(progress):
        found._count(record, state)
    found.segments = [SegmentSurvey.of(reader) for _, reader in sorted(scan.readers.items())]
    found.next_number = max(scan.next_number, state.reserved)
    found.torn_bytes = scan.torn_bytes
    found.damages = scan.damages
    return found


def _bytes(record: RunRecord, first: int, last: int) -> int:
    if last - first + 1 == record.count:
        return len(record.data)
    run = stored_run(record.topic, record.first, bytes(record.data))
    return run.offsets[last - record.first + 1] - run.offsets[first - record.first]
