"""The history checker: each promise that is broken is said, and what is kept is not."""

from __future__ import annotations

import attrs
import pytest

from tools.history.history import History, Letter
from tools.history.message import Message, Source
from tools.history.subscription import Holder, Subscription


@attrs.define(eq=False)
class Watched:
    """A history whose clock is moved by hand, of a publisher and a subscription with a member."""

    time: float = 0.0
    stored: set[bytes] = attrs.Factory(set)
    history: History = attrs.field(init=False)
    subscription: Subscription = attrs.field(init=False)
    member: Holder = attrs.field(init=False)
    source: Source = Source("p")

    def __attrs_post_init__(self) -> None:
        self.history = History(lambda: self.time, stored=self.stored.__contains__)
        self.subscription = Subscription("s", "t".__eq__, ack_wait=1.0)
        self.history.subscribing(self.subscription)
        self.history.subscribed(self.subscription)
        self.member = Holder("m")
        self.time = 1.0

    def publish(self, body: bytes, *, confirmed: bool = True, qos: int = 1) -> Message:
        message = self.history.asking(body, "t", qos, self.source)
        self.stored.add(body)
        if confirmed:
            self.history.confirmed(message)
        return message

    def send(
        self, body: bytes, tag: int, *, holder: Holder | None = None, attempt: int = 1
    ) -> None:
        qos = self.history.messages[body].qos
        where = self.subscription, holder or self.member
        self.history.sent(*where, tag, body, "t", qos, attempt)

    def accept(self, body: bytes, tag: int) -> None:
        copy = self.subscription.copies[body, tag]
        self.history.accepting(self.subscription, copy, self.member)
        self.history.accepted(copy, self.member)

    def said(self) -> list[str]:
        self.history.finish()
        return self.history.violations


@pytest.fixture
def watched() -> Watched:
    return Watched()


def test_what_is_delivered_and_accepted_is_as_promised(watched: Watched) -> None:
    for number, body in enumerate((b"a", b"b", b"c"), 1):
        watched.publish(body)
        watched.send(body, number)
        watched.accept(body, number)
    assert watched.said() == []


def test_a_confirmed_message_that_does_not_come_is_lost(watched: Watched) -> None:
    watched.publish(b"a")
    assert watched.said() == ["a to s is lost: never delivered"]


def test_one_that_is_not_confirmed_may_be_lost(watched: Watched) -> None:
    watched.publish(b"a", confirmed=False)
    assert watched.said() == []


def test_one_that_is_delivered_and_not_accepted_has_to_come_again(watched: Watched) -> None:
    watched.publish(b"a")
    watched.send(b"a", 1)
    assert watched.said() == ["a to s is lost: delivered 1 times"]


def test_a_dead_letter_is_as_good_as_an_acceptance(watched: Watched) -> None:
    watched.publish(b"a")
    watched.send(b"a", 1)
    copy = watched.subscription.copies[b"a", 1]
    watched.history.giving_back(copy, rejected=True)
    watched.history.buried(Letter(b"a", "t", 1, "s", "rejected"))
    assert watched.said() == []


def test_a_dead_letter_for_no_reason_is_said(watched: Watched) -> None:
    watched.publish(b"a")
    watched.send(b"a", 1)
    watched.history.buried(Letter(b"a", "t", 1, "s", "rejected"))
    watched.history.buried(Letter(b"a", "t", 1, "s", "expired"))
    assert watched.said() == [
        "a to s was given up as rejected, and was not",
        "a to s was given up as expired, and has no TTL",
    ]


def test_what_was_accepted_may_not_come_back(watched: Watched) -> None:
    watched.publish(b"a")
    watched.send(b"a", 1)
    watched.accept(b"a", 1)
    watched.history.crashed(watched.time + 1)
    watched.send(b"a", 1)
    watched.accept(b"a", 1)
    assert watched.said() == ["a to s was accepted at 1.000 (life 1), and came back"]


def test_what_was_accepted_just_before_a_crash_may(watched: Watched) -> None:
    watched.publish(b"a")
    watched.send(b"a", 1)
    watched.accept(b"a", 1)
    watched.time += 0.05
    watched.history.crashed()
    watched.send(b"a", 1)
    watched.accept(b"a", 1)
    assert watched.said() == []


def test_a_message_that_its_member_has_may_not_come_twice(watched: Watched) -> None:
    watched.publish(b"a")
    watched.send(b"a", 1)
    watched.time += 0.5
    watched.send(b"a", 1, attempt=2)
    watched.accept(b"a", 1)
    assert watched.said() == ["a to s came twice for no reason"]


@pytest.mark.parametrize("reason", ["late", "gone", "left", "given back"])
def test_there_are_reasons_to_come_twice(watched: Watched, reason: str) -> None:
    ended = 1.5 if reason == "gone" else 100.0
    first = Holder("other", lambda: ended)
    watched.publish(b"a")
    watched.send(b"a", 1, holder=first)
    first.left = reason == "left"
    if reason == "given back":
        watched.history.giving_back(watched.subscription.copies[b"a", 1])
    watched.time += 1.0 if reason == "late" else 0.5
    watched.send(b"a", 1, attempt=2)
    watched.accept(b"a", 1)
    assert watched.said() == []


def test_first_deliveries_come_in_order(watched: Watched) -> None:
    for body in (b"a", b"b"):
        watched.publish(body)
    watched.send(b"b", 2)
    watched.send(b"a", 1)
    watched.accept(b"a", 1)
    watched.accept(b"b", 2)
    assert watched.said() == [
        "a to s came first after b, which is later",
        "a to s came first after b of the same publisher",
    ]


def test_qos_0_comes_at_most_once(watched: Watched) -> None:
    watched.publish(b"a", confirmed=False, qos=0)
    watched.send(b"a", 1)
    watched.send(b"a", 1)
    assert watched.said() == ["a to s came twice at QoS 0"]


def test_a_message_has_one_number(watched: Watched) -> None:
    watched.publish(b"a")
    for tag in (1, 2):
        watched.send(b"a", tag)
        watched.accept(b"a", tag)
    assert watched.said() == ["a to s was published twice, as [1, 2]"]


def test_after_the_dedup_window_it_may_have_two(watched: Watched) -> None:
    watched.history.dedup_window = 10.0
    watched.publish(b"a")
    watched.send(b"a", 1)
    watched.accept(b"a", 1)
    watched.time += 10.0
    watched.send(b"a", 2)
    watched.accept(b"a", 2)
    assert watched.said() == []


def test_what_is_not_stored_may_be_neither_confirmed_nor_shown(watched: Watched) -> None:
    message = watched.history.asking(b"a", "t", 1, watched.source)
    watched.history.confirmed(message)
    watched.send(b"a", 1)
    watched.accept(b"a", 1)
    assert watched.said() == [
        "a was confirmed before it was committed",
        "a to s was shown before it was committed",
    ]


def test_attempts_are_counted(watched: Watched) -> None:
    watched.subscription.max_attempts = 2
    watched.publish(b"a")
    for attempt in (1, 1, 3):
        watched.send(b"a", 1, attempt=attempt)
        watched.time += 1.0
    watched.history.accepting(
        watched.subscription, watched.subscription.copies[b"a", 1], watched.member
    )
    assert watched.said() == [
        "a to s came for the 2th time, 2 of them in this life and 0 of them released, as attempt 1",
        "a to s came in attempt 3 of 2",
    ]


def test_what_a_power_cut_has_taken_is_excused(watched: Watched) -> None:
    watched.publish(b"a")
    watched.publish(b"b")
    watched.history.crashed(survives=b"b".__eq__)
    watched.send(b"b", 2)
    watched.accept(b"b", 2)
    assert watched.said() == []


def test_what_was_published_before_anybody_subscribed_is_kept_for_the_first(
    watched: Watched,
) -> None:
    watched.history.ended(watched.subscription)
    watched.publish(b"a")
    watched.time += 1.0
    later = Subscription("later", "t".__eq__)
    watched.history.subscribing(later)
    watched.history.subscribed(later)
    assert watched.said() == ["a to later is lost: never delivered"]
