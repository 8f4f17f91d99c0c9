"""Version 2: messages with keys in a shared subscription."""

from __future__ import annotations

import pytest

from blipmq.broker.limits import Limits
from blipmq.protocol import encoder
from blipmq.protocol.frames import Outcome
from blipmq.protocol.properties import MessageProperties
from tests.broker.attached import Member
from tests.broker.world import World


def publish(publisher: Member, *rows: tuple[bytes, bytes]) -> None:
    for body, key in rows:
        publisher.message(b"t", body, MessageProperties(key=key))


def test_a_single_member_gets_all_keys_in_order() -> None:
    world = World.create()
    member = Member(world)
    member.attach(b"t", name=b"n")

    publish(Member(world), (b"a", b"1"), (b"b", b"2"), (b"c", b"1"))

    assert member.take() == [b"a", b"b", b"c"]


def test_a_new_key_goes_to_the_member_that_holds_the_fewest() -> None:
    world = World.create()
    one, other, publisher = (Member(world) for _ in range(3))
    id_ = one.attach(b"t", name=b"n")
    other.attach(b"t", name=b"n")
    publish(publisher, (b"a", b"1"), (b"b", b"2"))
    assert (one.take(), other.take()) == ([b"a"], [b"b"])
    one.accept_all(id_)

    publish(publisher, (b"c", b"3"))

    assert (other.take(), one.take()) == ([], [b"c"])


def test_messages_without_a_key_go_to_anyone() -> None:
    world = World.create()
    one, other, publisher = (Member(world) for _ in range(3))
    one.attach(b"t", name=b"n", prefetch=1)
    other.attach(b"t", name=b"n", prefetch=10)
    publish(publisher, (b"a", b"1"))
    assert one.take() == [b"a"]

    publisher.publish(b"t", b"b")
    publish(publisher, (b"c", b"1"))
    publisher.publish(b"t", b"d")

    assert other.take() == [b"b", b"d"]


def test_a_subscription_waits_when_it_has_put_aside_as_much_as_it_may() -> None:
    world = World.create(Limits(key_lookahead=2))
    one, other, publisher = (Member(world) for _ in range(3))
    id_ = one.attach(b"t", name=b"n", prefetch=1)
    other.attach(b"t", name=b"n")
    publish(publisher, *((b"a%d" % i, b"1") for i in range(5)), (b"b", b"2"))
    held = one.take()
    before = other.take()

    one.accept_all(id_)

    assert (held, before) == ([b"a0"], [])
    assert (one.take(), other.take()) == ([b"a1"], [])
    one.accept_all(id_)
    assert (one.take(), other.take()) == ([b"a2"], [b"b"])


def test_a_key_stays_with_its_member_when_a_second_one_joins() -> None:
    world = World.create()
    one, other, publisher = (Member(world) for _ in range(3))
    one.attach(b"t", name=b"n")
    publish(publisher, (b"a", b"1"))
    assert one.take() == [b"a"]
    other.attach(b"t", name=b"n")

    publish(publisher, (b"b", b"1"))

    assert (other.take(), one.take()) == ([], [b"b"])


def test_what_is_put_aside_keeps_its_key_when_one_leaves_and_another_joins() -> None:
    world = World.create()
    one, other, third, publisher = (Member(world) for _ in range(4))
    id_ = one.attach(b"t", name=b"n", prefetch=2)
    other.attach(b"t", name=b"n")
    publish(publisher, (b"a", b"1"), (b"x", b"2"), (b"y", b"3"))
    held, others = one.take_pushed(), other.take()
    publish(publisher, (b"b", b"1"))
    others += other.take()
    other.disconnect()
    third.attach(b"t", name=b"n")

    one.settle(id_, held[0].tag)
    third.take()
    publish(publisher, (b"c", b"1"))

    assert ([p.body for p in held], others) == ([b"a", b"y"], [b"x"])
    assert (one.take(), third.take()) == ([b"b"], [])


def test_a_redelivery_stays_with_the_holder_of_the_key() -> None:
    world = World.create()
    one, other, publisher = (Member(world) for _ in range(3))
    one.attach(b"t", name=b"n", ack_wait_ms=1_000)
    other.attach(b"t", name=b"n")
    publish(publisher, (b"a", b"1"))
    one.take()
    world.pass_time(1)

    assert other.take() == []
    assert [(p.body, p.attempt) for p in one.take_pushed()] == [(b"a", 2)]


@pytest.mark.parametrize(
    ("outcome", "again"),
    [
        (Outcome.ACCEPT, []),
        (Outcome.REJECT, []),
        (Outcome.EXTEND, []),
        (Outcome.RETRY, [2]),
        (Outcome.RELEASE, [2]),
    ],
)
def test_what_fell_due_and_is_put_aside_for_its_holder_may_still_be_settled(
    outcome: Outcome, again: list[int]
) -> None:
    world = World.create()
    one, other, publisher = (Member(world) for _ in range(3))
    id_ = one.attach(b"t", name=b"n", ack_wait_ms=1_000)
    other.attach(b"t", name=b"n")
    publish(publisher, (b"a", b"1"))
    (pushed,) = one.take_pushed()
    world.pass_time(1)
    assert other.take() == []

    one.client.feed(encoder.settle(id_, [(outcome, pushed.tag, pushed.tag, 100)]))
    world.pass_time(0.1)

    got = one.take_pushed() + other.take_pushed()
    assert [p.attempt for p in got] == again


def test_what_fell_due_and_is_put_aside_is_counted_once_when_it_comes_again() -> None:
    world = World.create()
    one, other, publisher = (Member(world) for _ in range(3))
    id_ = one.attach(b"t", name=b"n", ack_wait_ms=1_000, max_attempts=0)
    other.attach(b"t", name=b"n")
    publish(publisher, (b"a", b"1"))
    for _ in range(3):
        one.take()
        world.pass_time(1)
        other.take()
    assert one.take() == [b"a"]

    one.accept_all(id_)

    attachment = one.client.session._attachments[id_]
    assert (attachment.held, attachment.deliveries.messages) == (0, 0)


def test_what_is_put_aside_comes_when_its_member_lets_something_fall_due() -> None:
    world = World.create()
    one, other, publisher = (Member(world) for _ in range(3))
    one.attach(b"t", name=b"n", prefetch=1, ack_wait_ms=1_000, max_attempts=1)
    other.attach(b"t", name=b"n", prefetch=2)
    publish(publisher, (b"a", b"1"), (b"b", b"1"))
    assert (one.take(), other.take(), one.take()) == ([b"a"], [], [])

    world.pass_time(1)

    assert (other.take(), one.take()) == ([], [b"b"])


def test_a_key_that_was_released_may_go_to_another() -> None:
    world = World.create()
    one, other, publisher = (Member(world) for _ in range(3))
    id_ = one.attach(b"t", name=b"n", prefetch=1)
    other.attach(b"t", name=b"n", prefetch=1)
    publish(publisher, (b"a", b"1"))
    one.take()

    one.detach(id_)

    assert other.take() == [b"a"]


def test_a_rejected_message_frees_its_key() -> None:
    world = World.create()
    one, other, publisher = (Member(world) for _ in range(3))
    id_ = one.attach(b"t", name=b"n", prefetch=1)
    other.attach(b"t", name=b"n")
    publish(publisher, (b"a", b"1"), (b"b", b"2"))
    (pushed,) = one.take_pushed()
    other.take()
    one.client.feed(encoder.settle(id_, [(Outcome.REJECT, pushed.tag, pushed.tag, 0)]))

    publish(publisher, (b"c", b"1"))

    assert sorted(one.take() + other.take()) == [b"c"]


def test_a_polled_member_gets_a_key_only_when_it_asks() -> None:
    world = World.create()
    polled, pushed, publisher = (Member(world) for _ in range(3))
    id_ = polled.attach(b"t", name=b"n", prefetch=0)
    pushed.attach(b"t", name=b"n", prefetch=1)
    publish(publisher, (b"a", b"1"))
    first = pushed.take()
    publish(publisher, (b"b", b"2"))

    polled.send(encoder.poll(7, id_))

    assert (first, polled.take()) == ([b"a"], [b"b"])
