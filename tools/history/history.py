"""Everything that happened between a broker and its clients, and what of it was not as promised.

Whoever watches says what it saw, at the broker's end of a connection where it can: what was `sent`
there is sent, whether it arrived or not. What a client was told counts when it was told.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import attrs

from tools.history.message import Message, Source
from tools.history.subscription import Copy, Holder, Subscription

DEAD: Final = "$dead."
_INEXACT: Final = 0.002
"""A log keeps milliseconds, and sums of seconds are not exact."""


@attrs.frozen
class Letter:
    """What a dead letter says of itself."""

    body: bytes
    topic: str
    tag: int
    """Which it had there."""
    subscription: str
    reason: str


def _everywhere(body: bytes) -> bool:
    return True


@attrs.define(eq=False)
class History:
    """`now` is any one clock; `violations` says what was not as promised.

    `grace` is how long, in seconds, before a crash an acceptance may be forgotten, and `linger` how
    long before the end of a connection is seen its messages may have come back. `stored` says
    whether a message is where the broker has to have put it before it shows it to anyone, or
    confirms it; who cannot know leaves it out.
    """

    now: Callable[[], float]
    grace: float = 0.1
    linger: float = 0.0
    dedup_window: float = math.inf
    dead_letters: bool = True
    stored: Callable[[bytes], bool] = _everywhere
    violations: list[str] = attrs.Factory(list)
    messages: dict[bytes, Message] = attrs.Factory(dict)
    subscriptions: list[Subscription] = attrs.Factory(list)
    life: int = 1
    sent_count: int = 0
    redeliveries: int = 0
    letters: int = 0
    forgotten_acceptances: int = 0
    clock_jumped: bool = False
    """Of the time of day, so that what a restart makes of TTLs and delays is not known."""
    bodies: dict[int, bytes] = attrs.Factory(dict)
    """By tag."""
    _suspects: list[tuple[Holder, float, str]] = attrs.Factory(list)
    """Whose message came again, when, and what to say unless its connection ended then."""

    def violation(self, text: str) -> None:
        self.violations.append(text)

    # Publishing

    def asking(
        self,
        body: bytes,
        topic: str,
        qos: int,
        source: Source,
        *,
        connections: int = 0,
        key: bytes | None = None,
        ttl: float | None = None,
        delay: float = 0.0,
        may_be_doubled: bool = False,
    ) -> Message:
        """A publisher is about to send this, for the first time or once more."""
        now = self.now()
        message = self.messages.get(body)
        if message is None:
            message = self.messages[body] = Message(
                body,
                topic,
                qos,
                source,
                len(self.messages),
                now,
                connections,
                key,
                ttl or math.inf,
                delay,
                may_be_doubled=may_be_doubled,
            )
        message.of_several |= message.source != source
        return message

    def asked(self, message: Message) -> None:
        """The publisher waits no more for this, which is confirmed, refused or in doubt."""
        now = self.now()
        if now - message.asked_at >= self.dedup_window:
            message.may_be_doubled = True

    def confirmed(self, message: Message) -> None:
        """The broker has said that it is committed."""
        self.asked(message)
        if message.confirmed_at is None:
            message.confirmed_at = self.now()
        if not self.stored(message.body) and not self._over(message):
            self.violation(f"{_name(message)} was confirmed before it was committed")

    def refused(self, message: Message) -> None:
        """The broker has said that it has not taken it."""
        self.asked(message)
        message.refused = True

    def _over(self, message: Message) -> bool:
        """Whether the broker need not have it any more."""
        copies = [copy for s in self.subscriptions for copy in s.copies_of(message)]
        expired = message.asked_at + message.ttl < self.now()
        return expired or message.excused or any(copy.done for copy in copies)

    # Subscribing

    def subscribing(self, subscription: Subscription) -> None:
        """A member is about to subscribe."""
        if subscription not in self.subscriptions:
            self.subscriptions.append(subscription)
        subscription.made_after = min(subscription.made_after, self.now())

    def subscribed(self, subscription: Subscription) -> None:
        """The broker has said that the subscription is there."""
        if subscription.since is None:
            subscription.since = self.now()

    def ended(self, subscription: Subscription) -> None:
        """It is gone, with all that it held."""
        self.subscriptions.remove(subscription)

    # Delivering

    def sent(
        self,
        subscription: Subscription,
        holder: Holder,
        tag: int,
        body: bytes,
        topic: str,
        qos: int,
        attempt: int = 1,
    ) -> None:
        """The broker has sent a message to a member; at QoS 0 the tag means nothing."""
        self.sent_count += 1
        message = self.messages.get(body)
        where = f"{body.decode(errors='replace')} to {subscription.name}"
        if message is None:
            self.violation(f"{where} was never published")
            return
        dead = topic.startswith(DEAD)
        if topic.removeprefix(DEAD) != message.topic or not subscription.matches(topic):
            self.violation(f"{where} came on topic {topic}")
        if qos != (1 if dead else min(message.qos, subscription.qos)):
            self.violation(f"{where} came at QoS {qos}")
        copy = subscription.copy(message, tag if qos else None)
        if message.qos:
            self._shown(message, where)
        if not qos:
            if copy.sends and not self._may_be_doubled(message):
                self.violation(f"{where} came twice at QoS 0")
        else:
            self._numbered(message, tag, topic, where)
        if copy.sends == 0 and not dead and message.tags.get(topic, [tag])[0] == tag:
            self._first(subscription, message, tag if qos else None, where)
        if copy.sends and qos:
            self._again(copy, where)
        self._note(subscription, copy, holder)
        if qos and subscription.counts_attempts:
            self._attempts(subscription, copy, attempt, where)

    def _shown(self, message: Message, where: str) -> None:
        if not self.stored(message.body):
            self.violation(f"{where} was shown before it was committed")
        if message.delay and not self.clock_jumped:
            early = message.asked_at + message.delay - self.now()
            if early > _INEXACT:
                self.violation(f"{where} came {early:.3f} s before its delay was over")

    def _numbered(self, message: Message, tag: int, topic: str, where: str) -> None:
        if self.bodies.setdefault(tag, message.body) != message.body:
            self.violation(f"{where} has tag {tag}, which was that of another message")
        tags = message.tags.setdefault(topic, [])
        if tag not in tags:
            tags.append(tag)
            dead = topic.startswith(DEAD)
            if len(tags) > 1 and not dead and not self._may_be_doubled(message):
                self.violation(f"{where} was published twice, as {tags}")

    def _may_be_doubled(self, message: Message) -> bool:
        if self.clock_jumped and self.life > 1:
            return True  # the window is measured by the time of day across a restart
        return message.may_be_doubled or self.now() - message.asked_at >= self.dedup_window

    def _first(
        self, subscription: Subscription, message: Message, tag: int | None, where: str
    ) -> None:
        now = self.now()
        confirmed = message.confirmed_at
        certain = not (message.delay or self.clock_jumped or self._may_be_doubled(message))
        if confirmed is not None and certain:
            late = now - (confirmed + message.ttl)
            if late > _INEXACT:
                self.violation(f"{where} came first {late:.3f} s after it had expired")
        if (
            subscription.start_new
            and not message.delay
            and confirmed is not None
            and confirmed < subscription.made_after
            and not self._may_be_doubled(message)
        ):
            self.violation(f"{where} came, which was published before there was the subscription")
        if message.delay:
            return
        self._in_order(subscription, message, tag, where)

    def _in_order(
        self, subscription: Subscription, message: Message, tag: int | None, where: str
    ) -> None:
        """First deliveries: by tags, and by what one source has sent."""
        if tag is not None:
            place = message.topic, message.key
            highest, other = subscription.highest.get(place, (0, b""))
            if tag < highest:
                self.violation(f"{where} came first after {other.decode()}, which is later")
            else:
                subscription.highest[place] = tag, message.body
        line = message.source, message.topic, message.key
        latest = subscription.latest.get(line)
        if latest is not None and latest.place > message.place and self._ordered(latest, message):
            self.violation(f"{where} came first after {latest.body.decode()} of the same publisher")
        if latest is None or latest.place < message.place:
            subscription.latest[line] = message

    def _ordered(self, one: Message, other: Message) -> bool:
        """Whether both must come in order. Who sent on several connections has lost that at
        QoS 0, and so has who sent one of them again."""
        for message in (one, other):
            if message.refused or message.of_several or self._may_be_doubled(message):
                return False
        return bool(one.qos and other.qos) or one.connections == other.connections

    def _again(self, copy: Copy, where: str) -> None:
        self.redeliveries += 1
        if copy.holder is not None and copy.holder.left:
            copy.releases += 1  # leaving releases what is held
        if copy.accepted_at is not None:
            self.violation(
                f"{where} was accepted at {copy.accepted_at:.3f} (life {copy.accepted_in}), "
                "and came back"
            )
        elif copy.buried_at < math.inf:
            self.violation(f"{where} was given up, and came back")
        elif copy.life == self.life and not self._may_come_back(copy):
            assert copy.holder is not None
            self._suspects.append((copy.holder, self.now(), where))
        if copy.accepted_by is not None and copy.life != self.life:
            self.forgotten_acceptances += 1

    def _may_come_back(self, copy: Copy) -> bool:
        holder = copy.holder
        assert holder is not None
        now = self.now()
        return holder.left or copy.given_back or now >= copy.until - _INEXACT

    def _judge(self) -> None:
        """Whose connection has ended gives back what it held, a little before that is seen."""
        suspects, self._suspects = self._suspects, []
        for holder, at, where in suspects:
            if holder.ended_at() > at + self.linger + _INEXACT:
                self.violation(f"{where} came twice for no reason")

    def _note(self, subscription: Subscription, copy: Copy, holder: Holder) -> None:
        now = self.now()
        same_life = copy.life == self.life
        if not same_life:
            copy.life, copy.sends_in_life, copy.releases = self.life, 0, 0
        if not same_life or not (subscription.anybody_accepts or copy.accepted_by is holder):
            copy.accepted_by = None
        if not same_life or copy.holder is not holder:
            # What it says late settles this delivery as well, if it is to the same one.
            copy.given_back = False
        copy.sends += 1
        copy.sends_in_life += 1
        copy.holder, copy.sent_at, copy.until = holder, now, now + subscription.ack_wait

    def _attempts(self, subscription: Subscription, copy: Copy, attempt: int, where: str) -> None:
        most = subscription.max_attempts
        if most and attempt > most:
            self.violation(f"{where} came in attempt {attempt} of {most}")
        if not copy.sends_in_life - copy.releases <= attempt <= copy.sends:
            self.violation(
                f"{where} came for the {copy.sends}th time, {copy.sends_in_life} of them in this "
                f"life and {copy.releases} of them released, as attempt {attempt}"
            )

    # Settling

    def accepting(self, subscription: Subscription, copy: Copy, holder: Holder) -> None:
        """A member is about to accept it."""
        if subscription.anybody_accepts or copy.holder is holder:
            copy.accepted_by = holder

    def accepted(self, copy: Copy, holder: Holder) -> None:
        """The broker has looked at the acceptance by now, and the connection was not lost."""
        if copy.life != self.life or copy.holder is not holder or copy.accepted_by is not holder:
            return
        if self.now() < copy.until:
            copy.accepted_at, copy.accepted_in = self.now(), self.life

    def giving_back(self, copy: Copy, *, released: bool = False, rejected: bool = False) -> None:
        """A member is about to have it retried, to release or to reject it."""
        copy.given_back = True
        copy.releases += released
        copy.rejected |= rejected

    def buried(self, letter: Letter) -> None:
        """A dead letter has come."""
        self.letters += 1
        message = self.messages.get(letter.body)
        name = letter.body.decode(errors="replace")
        if message is None:
            self.violation(f"{name} is a dead letter, and was never published")
            return
        found = [
            s
            for s in self.subscriptions
            if s.durable and s.name == letter.subscription and s.matches(letter.topic)
        ]
        for subscription in found:
            where = f"{name} to {subscription.name}"
            sure = len(found) == 1 and subscription.name != ""
            self._buried_of(subscription, message, letter, sure, where)

    def _buried_of(
        self, subscription: Subscription, message: Message, letter: Letter, sure: bool, where: str
    ) -> None:
        """`sure`: of this one, and no other that is called the same."""
        message.tags.setdefault(message.topic, [])
        if letter.tag not in message.tags[message.topic]:
            message.tags[message.topic].append(letter.tag)
        copy = subscription.copy(message, letter.tag)
        copy.buried += 1
        if not sure:
            return
        copy.buried_at = self.now()
        if letter.reason == "expired" and message.ttl == math.inf:
            self.violation(f"{where} was given up as expired, and has no TTL")
        if letter.reason == "rejected" and not copy.rejected:
            self.violation(f"{where} was given up as rejected, and was not")
        most = subscription.max_attempts
        if letter.reason == "max attempts" and not (most and copy.sends):
            self.violation(f"{where} was given up after {copy.sends} of {most} attempts")

    # The broker's lives

    def crashed(
        self,
        committed_until: float | None = None,
        survives: Callable[[bytes], bool] | None = None,
    ) -> None:
        """The broker's process has ended; what comes next is its next life.

        Until `committed_until`, which is now unless given, it has written what it had to, but for
        the grace. Messages that do not survive need not be there any more, confirmed or not; unless
        all do, those that were delayed may be published once more.
        """
        until = self.now() if committed_until is None else committed_until
        self.life += 1
        for subscription in self.subscriptions:
            if subscription.since is not None and subscription.since > until - self.grace:
                subscription.since = None
            for copy in subscription.copies.values():
                if copy.accepted_at is not None and copy.accepted_at > until - self.grace:
                    copy.accepted_at = None
                if copy.buried_at > until:
                    copy.buried_at = math.inf
        for message in self.messages.values():
            if survives is None:
                continue
            message.may_be_doubled |= message.delay > 0
            if not survives(message.body):
                message.excused = message.may_be_doubled = True

    def stopped(self) -> None:
        """The broker has shut down by itself: there is nothing that it may forget."""
        self.crashed(math.inf)

    # The end

    def owed(self, message: Message) -> list[Subscription]:
        """The durable subscriptions that must have had the message, by what is certain."""
        if not message.qos or message.confirmed_at is None or message.excused:
            return []
        return [s for s in self.subscriptions if s.qos and s.durable and self._owes(s, message)]

    def _owes(self, subscription: Subscription, message: Message) -> bool:
        if not subscription.matches(message.topic) or subscription.since is None:
            return False
        if subscription.since < message.asked_at:
            return True
        # Nobody subscribed yet: it is kept for the first one.
        confirmed = message.confirmed_at
        assert confirmed is not None
        others = [s for s in self.subscriptions if s.qos and s.matches(message.topic)]
        first = all(s is subscription or s.made_after > subscription.since for s in others)
        return (
            first
            and not subscription.start_new
            and not message.delay
            and message.ttl == math.inf
            and confirmed + self.grace < subscription.made_after
        )

    def missing(self) -> list[tuple[Message, Subscription]]:
        """What is owed and was neither accepted nor given up yet."""
        return [
            (message, subscription)
            for message in self.messages.values()
            for subscription in self.owed(message)
            if not self._settled(message, subscription)
        ]

    def _settled(self, message: Message, subscription: Subscription) -> bool:
        copies = subscription.copies_of(message)
        if any(copy.done for copy in copies):
            return True
        return not self.dead_letters and (bool(copies) or message.ttl < math.inf)

    def finish(self) -> None:
        """All faults are over, and everybody has taken all there was."""
        self._judge()
        for message, subscription in self.missing():
            sends = sum(copy.sends for copy in subscription.copies_of(message))
            seen = f"delivered {sends} times" if sends else "never delivered"
            self.violation(f"{_name(message)} to {subscription.name} is lost: {seen}")


def _name(message: Message) -> str:
    return message.body.decode(errors="replace")
