"""What a broker was asked and what it did, held against what it promises. Knows no broker."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable

import attrs


@attrs.frozen
class Source:
    """A publisher on one connection: what it sends is to be kept in order and without a gap."""

    topic: str
    name: str


@attrs.define(eq=False)
class Message:
    """One message and what became of it. Times are in seconds of any one clock."""

    source: Source
    place: int
    """The how-manieth of its source it is."""
    qos: int = 1
    confirmed: bool = False
    tag: int | None = None
    delivered_in: int | None = None
    """The life of the broker in which it was delivered last."""
    may_return: bool = False
    """There is a reason to deliver it again in that life: whoever had it is gone."""
    acceptance_sent: bool = False
    accepted_at: float | None = None
    accepted_in: int = 0

    @property
    def seen(self) -> bool:
        """Whether it was ever delivered."""
        return self.delivered_in is not None

    @property
    def owed(self) -> bool:
        """Whether the broker must still have it: it said so, or showed it, and was not told off."""
        return self.qos > 0 and (self.confirmed or self.seen) and not self.acceptance_sent


@attrs.define(eq=False)
class Ledger:
    """Everything about all messages of a drill; `violations` says what was not as promised.

    `grace_seconds` is how long before the last commit an acceptance may be forgotten.
    """

    grace_seconds: float
    violations: list[str] = attrs.Factory(list)
    forgotten_acceptances: int = 0
    """Accepted messages that came back, within the grace."""
    redeliveries: int = 0
    _messages: dict[bytes, Message] = attrs.Factory(dict)
    _sources: dict[Source, list[Message]] = attrs.Factory(dict)
    _by_tag: dict[int, bytes] = attrs.Factory(dict)
    _highest_tag: dict[str, int] = attrs.Factory(dict)
    _life: int = 1
    _committed_until: float = 0.0

    def sent(self, source: Source, body: bytes, qos: int = 1) -> None:
        """`body` is like no other."""
        messages = self._sources.setdefault(source, [])
        message = self._messages[body] = Message(source, len(messages), qos)
        messages.append(message)

    def confirmed(self, bodies: Iterable[bytes]) -> None:
        """The broker has said that these are committed, those of QoS 1."""
        for body in bodies:
            self._messages[body].confirmed = self._messages[body].qos > 0

    def delivered(self, topic: str, tag: int, body: bytes) -> None:
        """A subscriber of the topic got this. At QoS 0 a tag is nothing to settle."""
        message = self._messages.get(body)
        name = _name(body)
        if message is None:
            self._violation(f"{name} was delivered and never published")
            return
        if message.source.topic != topic:
            self._violation(f"{name} was delivered on topic {topic}")
        if message.qos == 0:
            self._delivered_at_most_once(name, message)
        else:
            self._delivered_at_least_once(topic, tag, body, message)
        message.delivered_in, message.may_return = self._life, False

    def _delivered_at_most_once(self, name: str, message: Message) -> None:
        if message.seen:
            self._violation(f"{name} was delivered twice at QoS 0")
        else:
            self._in_order_of_its_publisher(name, message)

    def _delivered_at_least_once(self, topic: str, tag: int, body: bytes, message: Message) -> None:
        name = _name(body)
        if self._by_tag.setdefault(tag, body) != body:
            self._violation(f"tag {tag} of {name} was that of {_name(self._by_tag[tag])}")
        if message.tag is None:
            self._first_delivery(topic, tag, name, message)
        elif message.tag != tag:
            self._violation(f"{name} came with tag {message.tag} and then with {tag}")
        else:
            self._redelivery(name, message)

    def _first_delivery(self, topic: str, tag: int, name: str, message: Message) -> None:
        message.tag = tag
        if tag < self._highest_tag.get(topic, 0):
            self._violation(f"{name} was first delivered after a later one of its topic")
        self._highest_tag[topic] = max(tag, self._highest_tag.get(topic, 0))
        self._in_order_of_its_publisher(name, message)

    def _in_order_of_its_publisher(self, name: str, message: Message) -> None:
        later = self._sources[message.source][message.place + 1 :]
        if any(other.seen for other in later):
            self._violation(f"{name} was first delivered after a later one of its publisher")

    def _redelivery(self, name: str, message: Message) -> None:
        self.redeliveries += 1
        if message.accepted_at is not None:
            self._came_back(name, message)
        elif message.delivered_in == self._life and not message.may_return:
            self._violation(f"{name} was delivered twice, for no reason")

    def _came_back(self, name: str, message: Message) -> None:
        assert message.accepted_at is not None
        ago = self._committed_until - message.accepted_at
        if message.accepted_in == self._life:
            self._violation(f"{name} was accepted and came back, without a kill in between")
        elif ago > self.grace_seconds:
            self._violation(f"{name} was accepted {ago * 1000:.0f} ms before the end and came back")
        else:
            self.forgotten_acceptances += 1
        message.acceptance_sent, message.accepted_at = False, None

    def accepting(self, bodies: Iterable[bytes]) -> None:
        """A subscriber is about to accept these."""
        for body in bodies:
            self._messages[body].acceptance_sent = True

    def accepted(self, bodies: Iterable[bytes], now: float) -> None:
        """The broker has taken note of these acceptances, by `now` at the latest."""
        for body in bodies:
            message = self._messages[body]
            message.accepted_at, message.accepted_in = now, self._life

    def released(self, tags: Iterable[int]) -> None:
        """The connection that these deliveries were made to is gone, so they may be repeated."""
        for tag in tags:
            self._messages[self._by_tag[tag]].may_return = True

    def killed(self, now: float, stalled_at: float | None = None) -> None:
        """The broker lived until now at least; what comes next is from its next life.

        Since `stalled_at` it had not committed what a publisher waited for.
        """
        self._life += 1
        self._committed_until = now if stalled_at is None else stalled_at

    def stopped(self) -> None:
        """The broker has shut down by itself, so there is nothing that it may forget."""
        self.killed(math.inf)

    def drained(self, topics: Collection[str]) -> None:
        """Subscribers of these topics have taken all there was in this life of the broker."""
        for body, message in self._messages.items():
            if message.source.topic not in topics or message.delivered_in == self._life:
                continue
            if message.owed:
                what = "confirmed" if message.confirmed else "delivered before"
                self._violation(f"{_name(body)} is lost, although it was {what}")
                message.acceptance_sent = True  # said once
        for source, messages in self._sources.items():
            if source.topic in topics:
                self._gaps(source, messages)

    def _gaps(self, source: Source, messages: list[Message]) -> None:
        """What a kill takes of a connection's messages are the last ones, of QoS 1 at least."""
        last = max((m.place for m in messages if m.tag is not None), default=0)
        missing = [m.place for m in messages[:last] if m.qos and m.tag is None]
        if missing:
            self._violation(f"{source.name}: {missing} are lost, and later ones are not")
            del self._sources[source][:]  # said once

    def _violation(self, text: str) -> None:
        self.violations.append(f"life {self._life}: {text}")

    @property
    def messages(self) -> int:
        return len(self._messages)

    @property
    def confirmations(self) -> int:
        return sum(message.confirmed for message in self._messages.values())

    @property
    def acceptances(self) -> int:
        return sum(message.accepted_at is not None for message in self._messages.values())


def _name(body: bytes) -> str:
    return body[:40].split(b" ")[0].decode(errors="replace")
