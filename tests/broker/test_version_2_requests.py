"""Version 2: what each malformed or strange frame is answered."""

from __future__ import annotations

import pytest

from blipmq.broker.limits import Limits
from blipmq.errors import FramingError
from blipmq.protocol import encoder
from blipmq.protocol.attach_properties import AttachProperties, encode_attach_properties
from blipmq.protocol.frames import (
    ATTACH,
    CONFIRM,
    DELIVER,
    DETACH,
    INFO,
    MESSAGE,
    SETTLE,
    U16,
    Outcome,
)
from blipmq.protocol.properties import MessageProperties, encode_message_properties
from tests.broker.attached import LAST, Member
from tests.broker.world import World
from tests.protocol.reference import property_bytes


def delayed(ms: int) -> bytes:
    return encode_message_properties(MessageProperties(delay_ms=ms))


@pytest.mark.parametrize(
    ("frame", "code", "text"),
    [
        (encoder.frame(MESSAGE, 7, b""), 400, "invalid MESSAGE payload"),
        (encoder.frame(MESSAGE, 7, b"\1" + U16.pack(9) + b"t"), 400, "invalid MESSAGE payload"),
        (encoder.frame(MESSAGE, 7, b"\1" + U16.pack(1) + b"t"), 400, "invalid MESSAGE payload"),
        (
            encoder.frame(MESSAGE, 7, b"\1" + U16.pack(1) + b"t" + U16.pack(9)),
            400,
            "invalid MESSAGE payload",
        ),
        (encoder.message(7, 1, b"\xff", b"", b""), 400, "invalid MESSAGE payload"),
        (encoder.message(7, 1, b"", b"", b""), 400, "empty topic"),
        (encoder.message(7, 2, b"t", b"", b""), 400, "invalid QoS value"),
        (encoder.message(7, 1, b"t", b"\1\0\1x", b""), 400, "invalid MESSAGE payload"),
        (encoder.message(7, 1, b"t", b"\1", b""), 400, "invalid MESSAGE payload"),
        (
            encoder.message(7, 1, b"t", property_bytes(3, bytes(129)), b""),
            400,
            "invalid MESSAGE payload",
        ),
        (
            encoder.message(7, 1, b"t", property_bytes(4, bytes(1025)), b""),
            400,
            "invalid MESSAGE payload",
        ),
        (encoder.message(7, 1, b"t", property_bytes(10, b""), b""), 400, "unknown property"),
        (encoder.message(7, 1, b"t", property_bytes(16, b"\0\2"), b""), 400, "unknown property"),
        (encoder.message(7, 0, b"t", delayed(5), b""), 400, "invalid MESSAGE payload"),
        (
            encoder.message(7, 1, b"t", property_bytes(64, bytes(200)), b""),
            413,
            "properties too large",
        ),
    ],
)
def test_a_message_that_cannot_be_published_is_refused(frame: bytes, code: int, text: str) -> None:
    world = World.create(Limits(max_properties_bytes=150))
    member = Member(world)

    member.send(frame)

    published = world.broker.stats.published
    assert (member.refused, published) == ([(7, code, text)], [0, 0])


def test_a_message_is_refused_and_those_around_it_are_published() -> None:
    world = World.create()
    member, publisher = Member(world), Member(world)
    member.attach(b"t")

    publisher.send(
        encoder.message(1, 1, b"t", b"", b"a"),
        encoder.message(2, 1, b"t", property_bytes(10, b""), b"b"),
        encoder.message(3, 1, b"t", b"", b"c"),
    )

    assert (member.take(), publisher.refused, publisher.confirmed) == (
        [b"a", b"c"],
        [(2, 400, "unknown property")],
        [3],
    )


@pytest.mark.parametrize("type_", [INFO, DELIVER, CONFIRM])
def test_what_only_the_broker_says_is_ignored(type_: int) -> None:
    member = Member(World.create())

    member.send(encoder.frame(type_, 7, b"x"), encoder.ping(8))

    assert (member.pongs, member.refused) == ([8], [])


@pytest.mark.parametrize("type_", [INFO, DELIVER, CONFIRM, MESSAGE, ATTACH, DETACH, SETTLE])
def test_version_1_knows_no_types_of_version_2(type_: int) -> None:
    client = World.create().connect()

    with pytest.raises(FramingError):
        client.send(encoder.frame(type_, 7, b""))


@pytest.mark.parametrize("type_", [MESSAGE, ATTACH, DETACH, SETTLE])
def test_before_authentication_nothing_is_done(type_: int) -> None:
    client = World.create().connect_unauthenticated()

    replies = client.send(encoder.hello(1, 2), encoder.frame(type_, 7, b""))

    assert replies == [encoder.ack(1), encoder.nack(7, 401, "unauthenticated")]


def test_an_older_version_may_follow_one_that_is_not_spoken() -> None:
    client = World.create().connect_unauthenticated()

    replies = client.send(encoder.hello(1, 3), encoder.hello(2, 2))

    assert replies == [encoder.nack(1, 426, "unsupported protocol version"), encoder.ack(2)]


def test_frames_of_version_1_keep_their_meaning() -> None:
    world = World.create()
    member = Member(world)
    member.send(encoder.subscribe(7, b"t", 1))
    subscription = member.answers[7]
    member.publish(b"t", b"a")

    member.send(encoder.poll(8, subscription))
    (pushed,) = member.take_pushed()
    member.send(encoder.ack(pushed.tag, subscription), encoder.poll(9, subscription))

    assert (pushed.body, member.take(), member.refused) == (b"a", [], [])


def test_a_settle_of_very_many_rows_lets_others_run_in_between() -> None:
    world = World.create()
    member = Member(world)
    id_ = member.attach(b"t", ack_wait_ms=1_000)
    Member(world).publish(b"t", b"a")
    (pushed,) = member.take_pushed()
    row = (Outcome.EXTEND, 1, pushed.tag, 0)
    member.client.feed(encoder.settle(id_, [row] * 30_000 + [(Outcome.ACCEPT, 1, pushed.tag, 0)]))

    session, turns = member.client.session, 0
    while not session.advance(world.now):
        turns += 1

    assert turns >= 2
    assert world.broker.stats.inflight == 0


def test_patterns_over_very_many_topics_let_others_run_in_between() -> None:
    world = World.create()
    old = world.connect()
    for place in range(1_000):
        old.subscribe(b"t.%d" % place)
    member = Member(world)
    pattern = encode_attach_properties(AttachProperties(pattern=True))
    member.client.feed(
        b"".join(encoder.attach(place, b"*.x%d" % place, 0, pattern) for place in range(100, 150))
    )

    session, turns = member.client.session, 0
    while not session.advance(world.now):
        turns += 1
    member.receive()

    assert turns >= 2
    assert set(range(100, 150)) <= set(member.answers)


def test_a_subscription_that_is_deleted_between_two_turns_of_a_settle_ends_it() -> None:
    world = World.create()
    member, other = Member(world), Member(world)
    id_ = member.attach(b"t", name=b"n", ack_wait_ms=1_000)
    Member(world).publish(b"t", b"a", b"b")
    first, last = member.take_pushed()
    world.pass_time(1)  # they fall due, and wait for another delivery
    rows = [(Outcome.EXTEND, LAST, LAST, 0)] * 30_000 + [(Outcome.ACCEPT, first.tag, last.tag, 0)]
    member.client.feed(encoder.settle(id_, rows))

    other.detach(other.attach(b"t", name=b"n", prefetch=0), delete=True)
    member.receive()
    while not member.client.session.advance(world.now):
        pass
    member.receive()

    assert member.ended == [(id_, "deleted")]
    assert (world.broker.stats.inflight, world.broker.stats.subscriptions) == (0, 0)
