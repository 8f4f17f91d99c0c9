"""Messages out of a log and into one, as they are outside of it: one by one, with a topic."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

import attrs

from blipmq.errors import BadRequest
from blipmq.protocol import encoder
from blipmq.protocol.frames import LENGTH_MAX_PUBLISH, LENGTH_MIN, U16
from blipmq.protocol.properties import (
    NO_PROPERTIES,
    MessageProperties,
    encode_message_properties,
    parse_message_properties,
)
from blipmq.protocol.run import stored_run
from blipmq.wal.facts import (
    DELAYED_ID,
    DELAYED_TOPIC,
    Checkpoint,
    Fact,
    Opened,
    RunRecord,
    Seen,
    SubscriptionState,
)
from blipmq.wal.log import Log
from blipmq.wal.scan import LogScan, Progress, silent
from blipmq.wal.survey import State, kept, states

_RUN_MESSAGES_MAX: Final = 1_000
_RUN_BYTES_MAX: Final = 1 << 20
_TOPIC_BYTES_MAX: Final = 0xFFFF
_HEAD_BYTES: Final = 3
"""Of the payload, besides topic, properties with their length, and body."""


@attrs.frozen
class StoredMessage:
    """One message. `time_ms` is when it was logged, in milliseconds since the epoch; 0: unknown.

    `subscriptions` are the ids of those that want it; `kept` says that it waits for one to come.
    One with a delay is to be published yet, so long after that time.
    """

    topic: bytes
    body: bytes
    number: int = 0
    qos: int = 1
    time_ms: int = 0
    subscriptions: tuple[int, ...] = ()
    kept: bool = False
    properties: MessageProperties = NO_PROPERTIES

    @property
    def delayed(self) -> bool:
        return self.properties.delay_ms > 0

    def frame(self, number: int) -> bytes:
        """As it is logged, with this number. Raises ValueError for properties that are none."""
        if self.properties == NO_PROPERTIES:
            return encoder.publish(number, 1, self.topic, self.body)
        properties = encode_message_properties(self.properties)
        return encoder.message(number, 1, self.topic, properties, self.body)

    def check(self) -> None:
        """Raises ValueError when a broker would not take such a message."""
        if not self.topic:
            raise ValueError("the topic is empty")
        if len(self.topic) > _TOPIC_BYTES_MAX:
            raise ValueError(f"the topic has {len(self.topic)} bytes, not up to {_TOPIC_BYTES_MAX}")
        try:
            self.topic.decode()
        except UnicodeDecodeError:
            raise ValueError("the topic is not UTF-8") from None
        properties = b""
        if self.properties != NO_PROPERTIES:
            properties = encode_message_properties(self.properties)
            try:
                parse_message_properties(properties, from_client=False)
            except BadRequest:
                raise ValueError("the properties are such that no broker takes them") from None
            properties = U16.pack(len(properties)) + properties
        size = LENGTH_MIN + _HEAD_BYTES + len(self.topic) + len(properties) + len(self.body)
        if size > LENGTH_MAX_PUBLISH:
            raise ValueError(f"the body has {len(self.body)} bytes, more than a frame can hold")


def export(
    scan: LogScan,
    state: State,
    *,
    topic: bytes | None = None,
    settled: bool = False,
    progress: Progress = silent,
) -> Iterator[StoredMessage]:
    """The messages of a log in order, of one topic or of all.

    Those that nobody wants any more only if `settled`. `state` is a new one; it is given the log's
    facts. Afterwards `scan.damages` says what could not be read.
    """
    for id_, fact in scan.facts:
        state.apply(id_, fact)
    for record in scan.runs(progress):
        # Delayed messages are of no topic yet.
        if topic is None or record.topic in (topic, DELAYED_TOPIC):
            for message in _messages(record, state):
                if topic not in (None, message.topic):
                    break
                if settled or message.kept or message.subscriptions:
                    yield message


def _messages(record: RunRecord, state: State) -> Iterator[StoredMessage]:
    run = stored_run(record.topic, record.first, bytes(record.data))
    holders: list[list[int]] = [[] for _ in range(run.count)]
    for id_, ranges in state.wanted(record):
        for first, last, _ in ranges:
            for number in range(first, last + 1):
                holders[number - run.first].append(id_)
    kept_from = state.kept_from(record.topic) if kept(state, record) else None
    for index, ids in enumerate(holders):
        number = run.first + index
        yield StoredMessage(
            run.topic,
            run.body(index),
            number,
            run.qos,
            record.time_ms,
            tuple(ids),
            kept_from is not None and number >= kept_from,
            run.properties(index),
        )


@attrs.define
class Imported:
    """How many messages of a topic were imported, and how many subscriptions they are for.

    Without one they are kept for the first that comes.
    """

    subscriptions: int
    messages: int = 0


@attrs.define(eq=False)
class Importer:
    """Appends messages to a log that is open and was not recovered yet; then close the log.

    `state` is a new one. `reserve` is how many numbers a checkpoint reserves, and `time_ms` the
    time of messages that have none.
    """

    log: Log
    state: State
    reserve: int
    time_ms: int
    topics: dict[bytes, Imported] = attrs.Factory(dict)
    _next_number: int = 1
    _seen: tuple[Seen, ...] = ()
    _kept: dict[bytes, int] = attrs.Factory(dict)
    _durable: dict[bytes, int] = attrs.Factory(dict)
    _pending: list[StoredMessage] = attrs.Factory(list)
    _pending_bytes: int = 0

    def run(self, messages: Iterable[StoredMessage]) -> None:
        """Append all, at QoS 1, with new numbers above all that were ever given out.

        They are as a publish would leave them: for the subscriptions that their topic has, else
        kept. Raises LogError, CorruptLog when the log is damaged, and ValueError for a message that
        no broker takes; what came before it is imported then.
        """
        self._recover()
        for message in messages:
            message.check()
            if self._pending and not self._joins(message):
                self._flush()
            self._pending.append(message)
            self._pending_bytes += len(message.body)
        self._flush()
        self.log.sync()

    def _recover(self) -> None:
        state = self.state
        facts, number = self.log.recover()
        for id_, fact in facts:
            state.apply(id_, fact)
            if isinstance(fact, Checkpoint):
                self._seen = fact.seen
        for record in self.log.runs():
            if kept(state, record):
                first = max(record.first, state.kept_from(record.topic))
                self._kept.setdefault(record.topic, first)
        for holder in state.subscriptions.values():
            topic = holder.state.topic
            if not holder.state.pattern:
                self._durable[topic] = self._durable.get(topic, 0) + 1
        self._next_number = max(number, state.reserved, 1)
        self._roll()

    def _roll(self) -> None:
        """Begin a segment. It removes none: what is wanted the daemon knows better."""
        checkpoint = Checkpoint(
            self._next_number + self.reserve,
            (),
            tuple(states(self.state)),
            tuple(self._kept.items()),
            self._seen,
        )
        self.log.roll(checkpoint, self._next_number, lambda topic: 0)

    def _joins(self, message: StoredMessage) -> bool:
        first = self._pending[0]
        return (
            message.topic == first.topic
            and message.time_ms == first.time_ms
            and (message.properties == NO_PROPERTIES) == (first.properties == NO_PROPERTIES)
            and message.properties.ttl_ms == first.properties.ttl_ms
            and message.properties.delay_ms == first.properties.delay_ms
            and len(self._pending) < _RUN_MESSAGES_MAX
            and self._pending_bytes < _RUN_BYTES_MAX
        )

    def _flush(self) -> None:
        """Append what is pending, as one run."""
        messages, self._pending, self._pending_bytes = self._pending, [], 0
        if not messages:
            return
        if self.log.full:
            self._roll()
        topic, first, delayed = messages[0].topic, self._next_number, messages[0].delayed
        frames = [message.frame(number) for number, message in enumerate(messages, first)]
        self._next_number += len(messages)
        its_topic = DELAYED_TOPIC if delayed else topic
        record = RunRecord(its_topic, first, len(messages), b"".join(frames))
        facts: list[Fact] = [record]
        if delayed and DELAYED_ID not in self.state.subscriptions:
            state = SubscriptionState(DELAYED_ID, "", DELAYED_TOPIC, first)
            facts.insert(0, Opened(state))
            self.state.apply(first, Opened(state))
        self.log.append(facts, self._next_number, messages[0].time_ms or self.time_ms)
        if topic not in self._durable and not delayed:
            self._kept.setdefault(topic, first)
        imported = self.topics.setdefault(topic, Imported(self._durable.get(topic, 0)))
        imported.messages += len(messages)
