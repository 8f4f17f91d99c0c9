"""A message as its consumer sees it, and what it is settled with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Protocol, Self

from trio.lowlevel import cancel_shielded_checkpoint, checkpoint_if_cancelled

from blipmq.client.outgoing import Body, milliseconds, properties_of
from blipmq.errors import BadRequest, BlipMQError, FramingError
from blipmq.protocol.frames import Outcome
from blipmq.protocol.properties import (
    NO_PROPERTIES,
    DeadLetter,
    MessageProperties,
    parse_message_properties,
)

REQUEST_HEADER = "blipmq-request"
"""Carried by a request, and by the reply to it, which it belongs to."""


class Settlement(Protocol):
    """What a message is settled with: one subscription, on one connection."""

    waits: bool
    """Whether `room` is to be awaited before anything is settled."""
    steps: int
    """So many settlements are made between two trips through the scheduler."""
    calls: int
    """How many were, since the last trip."""
    accepted: list[int]
    """Tags of messages that are accepted, one by one."""
    quick: int
    """While `accepted` is shorter, a tag may be added to it in place of a call of `settle`."""
    working: set[Message]
    """What somebody works on: it is kept alive until it is settled."""
    batches: set[Iterable[Message]]
    """As `working`."""

    async def room(self) -> None:
        """Waits until a settlement can be sent. Raises why none can be sent any more."""

    def settle(self, first: int, last: int, outcome: Outcome, delay_ms: int) -> None:
        """All from the first tag to the last, each of which was handed over and not settled.

        Never waits. Raises `UnsupportedByBroker`, or `ClientClosed`.
        """

    async def respond(self, topic: str, body: Body, properties: MessageProperties | None) -> None:
        """Publishes a reply at QoS 0."""


class Message:
    """One delivery. `tag` is None at QoS 0; a redelivery of a message has the tag it had before.

    `async with message` accepts it when its block is left, has it retried when the block raises an
    exception, and releases it when the block is cancelled; meanwhile it is kept alive, however
    long that takes. All calls that settle return without waiting for the broker: settlements are
    sent, gathered into ranges, within a few milliseconds, and leaving the client's block waits
    until the broker has them. They may be called after another: the first one counts.
    """

    __slots__ = ("_lease", "_properties", "_settled", "body", "qos", "tag", "topic")

    body: bytes
    topic: str
    qos: int
    """The lower of the publisher's and the subscription's."""
    tag: int | None

    # They are made one by one, and many a second: a call of __init__ would cost more than the rest.
    _lease: Settlement
    _properties: bytes | MessageProperties
    _settled: bool

    def __repr__(self) -> str:
        return f"Message(topic={self.topic!r}, qos={self.qos}, tag={self.tag})"

    # What it carries.

    @property
    def properties(self) -> MessageProperties:
        """All properties that came with it; parsed when first asked for."""
        found = self._properties
        if isinstance(found, bytes):
            if not found:
                return NO_PROPERTIES
            try:
                found = parse_message_properties(found, from_client=False)
            except BadRequest as error:
                raise FramingError(f"a message with malformed properties: {error}") from None
            self._properties = found
        return found

    @property
    def attempt(self) -> int:
        """How often it was delivered, counted from 1. Always 1 on version 1."""
        return self.properties.attempt

    @property
    def headers(self) -> Mapping[str, bytes]:
        """Of headers that recur, the last; `properties.headers` has all."""
        return dict(self.properties.headers)

    @property
    def key(self) -> bytes | None:
        return self.properties.key

    @property
    def message_id(self) -> bytes | None:
        return self.properties.message_id

    @property
    def reply_to(self) -> str | None:
        topic = self.properties.reply_to
        return None if topic is None else topic.decode()

    @property
    def content_type(self) -> str | None:
        return self.properties.content_type

    @property
    def trace_context(self) -> str | None:
        return self.properties.trace_context

    @property
    def timestamp(self) -> float | None:
        """Seconds since the epoch, as its publisher has put it."""
        at = self.properties.timestamp_ms
        return None if at is None else at / 1000

    @property
    def dead_letter(self) -> DeadLetter | None:
        """On a `$dead.` topic: why it was given up, and by which subscription."""
        return self.properties.dead_letter

    # What becomes of it.

    async def accept(self) -> None:
        """Tells the broker that this message is done with, so that it does not come again.

        Does nothing at QoS 0, and nothing when it is settled already. If the broker knows better
        (its retries used up, say, or delivered to someone else by now) nothing is raised.

        A checkpoint. Cancelled, the message is not accepted, and accept() may be called again.
        Raises `ClientClosed` after the client's block has ended. When the connection that
        brought the message is lost, nothing is sent, for the message comes again; this is
        counted in `Client.refusals`. On version 1, `ConnectionLost` is raised then.
        """
        await checkpoint_if_cancelled()
        lease, tag = self._lease, self.tag
        if tag is not None and not self._settled:
            accepted = lease.accepted
            if len(accepted) < lease.quick:
                accepted.append(tag)
                self._settled = True
            else:
                await self._settle(Outcome.ACCEPT)
                return
        lease.calls += 1
        if lease.calls >= lease.steps:
            lease.calls = 0
            await cancel_shielded_checkpoint()

    async def retry(self, delay: float | None = None) -> None:
        """Has it delivered again, after `delay` seconds; without, after the broker's backoff.

        As `accept` otherwise. On version 1 it comes again by itself, and `delay` raises
        `UnsupportedByBroker`.
        """
        await self._settle(Outcome.RETRY, 0 if delay is None else max(1, _delay_ms(delay)))

    async def reject(self) -> None:
        """Gives it up: it goes to the dead letters at once. As `accept` otherwise.

        Raises `UnsupportedByBroker` on version 1.
        """
        await self._settle(Outcome.REJECT)

    async def release(self) -> None:
        """Gives it back: it is delivered again at once, and this delivery does not count.

        As `accept` otherwise. Raises `UnsupportedByBroker` on version 1.
        """
        await self._settle(Outcome.RELEASE)

    async def extend(self) -> None:
        """Starts its ack wait anew. A checkpoint; inside `async with message` nobody needs it.

        Raises `UnsupportedByBroker` on version 1.
        """
        await checkpoint_if_cancelled()
        if self.tag is not None and not self._settled:
            self._lease.settle(self.tag, self.tag, Outcome.EXTEND, 0)
        await cancel_shielded_checkpoint()

    async def reply(
        self,
        body: Body,
        *,
        content_type: str | None = None,
        headers: Mapping[str, bytes] | None = None,
    ) -> None:
        """Answers a message that came from `Client.request`, at QoS 0.

        Raises `ValueError` when the message does not say where a reply goes. A checkpoint;
        cancelled, the reply is sent or not.
        """
        if self.reply_to is None:
            raise ValueError("the message has no reply topic")
        headers = dict(headers or {})
        request = self.headers.get(REQUEST_HEADER)
        if request is not None:
            headers[REQUEST_HEADER] = request
        properties = properties_of(content_type=content_type, headers=headers, qos=0)
        await self._lease.respond(self.reply_to, body, properties)

    async def __aenter__(self) -> Self:
        """Keeps it alive from now on. Not a checkpoint; leaving the block is one."""
        if self.tag is not None:
            self._lease.working.add(self)
        return self

    async def __aexit__(
        self,
        type_: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Settles it, if the block has not: see the class. Then a checkpoint, if all was well."""
        lease = self._lease
        lease.working.discard(self)
        if type_ is not None:
            conclude(self, Outcome.RETRY if issubclass(type_, Exception) else Outcome.RELEASE)
            return
        if lease.waits:
            await self.accept()
            return
        tag = self.tag
        if tag is not None and not self._settled:
            accepted = lease.accepted
            if len(accepted) < lease.quick:
                accepted.append(tag)
            else:
                lease.settle(tag, tag, Outcome.ACCEPT, 0)
            self._settled = True
        await checkpoint_if_cancelled()
        lease.calls += 1
        if lease.calls >= lease.steps:
            lease.calls = 0
            await cancel_shielded_checkpoint()

    async def _settle(self, outcome: Outcome, delay_ms: int = 0) -> None:
        await checkpoint_if_cancelled()
        lease, tag = self._lease, self.tag
        if tag is not None and not self._settled:
            if lease.waits:
                await lease.room()
            if not self._settled:
                lease.settle(tag, tag, outcome, delay_ms)
                self._settled = True
        lease.calls += 1
        if lease.calls >= lease.steps:
            lease.calls = 0
            await cancel_shielded_checkpoint()


def received(body: bytes, topic: str, qos: int, tag: int | None, lease: Settlement) -> Message:
    """A message without properties."""
    found = Message()
    found.body, found.topic, found.qos, found.tag = body, topic, qos, tag
    found._lease, found._properties, found._settled = lease, NO_PROPERTIES, False
    return found


def settle_all(messages: Sequence[Message], outcome: Outcome) -> None:
    """Settles those that are not, neighbours together. Never waits. Raises as `accept`."""
    lease: Settlement | None = None
    first = last = start = 0
    for at, message in enumerate(messages):
        tag = message.tag
        if tag is None or message._settled:
            continue
        if tag == last + 1 and message._lease is lease:
            last = tag
            continue
        if lease is not None:
            _settle_row(messages[start:at], lease, first, last, outcome)
        lease, first, last, start = message._lease, tag, tag, at
    if lease is not None:
        _settle_row(messages[start:], lease, first, last, outcome)


def _settle_row(
    messages: Sequence[Message], lease: Settlement, first: int, last: int, outcome: Outcome
) -> None:
    lease.settle(first, last, outcome, 0)
    for message in messages:
        message._settled = True


def conclude(message: Message, outcome: Outcome) -> None:
    """Settles a message behind an exception, which no error of this may hide."""
    if message.tag is None or message._settled:
        return
    try:
        message._lease.settle(message.tag, message.tag, outcome, 0)
    except BlipMQError:
        return
    message._settled = True


def lease_of(message: Message) -> Settlement:
    return message._lease


def unsettled(messages: Iterable[Message], lease: Settlement) -> list[int]:
    """The tags of those that this lease holds and that are not settled, in order."""
    tags = {
        message.tag
        for message in messages
        if message.tag is not None and message._lease is lease and not message._settled
    }
    return sorted(tags)


def _delay_ms(delay: float) -> int:
    delay_ms = milliseconds(delay, "delay")
    if delay_ms >= 1 << 32:
        raise ValueError(f"delay {delay!r}; at most {(1 << 32) // 1000} seconds")
    return delay_ms
