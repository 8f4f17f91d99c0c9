"""Version 2: attachments, and what is pushed to them."""

from __future__ import annotations

import pytest

from blipmq.broker.limits import Limits, Retention, Retries
from blipmq.protocol import encoder
from blipmq.protocol.attach_properties import Start, StartKind
from blipmq.protocol.frames import Outcome
from blipmq.protocol.properties import MessageProperties
from tests.broker.attached import Member, tags
from tests.broker.world import World


@pytest.mark.parametrize("qos", [0, 1])
@pytest.mark.parametrize("published", [0, 1])
def test_what_is_published_is_pushed_with_the_lower_qos(qos: int, published: int) -> None:
    world = World.create()
    member, publisher = Member(world), Member(world)
    id_ = member.attach(b"t", qos=qos)

    publisher.publish(b"t", b"a", b"b", qos=published)

    pushed = member.take_pushed()
    assert [(p.subscription, p.topic, p.qos, p.body) for p in pushed] == [
        (id_, b"t", min(qos, published), b"a"),
        (id_, b"t", min(qos, published), b"b"),
    ]


def test_no_more_than_prefetch_is_pushed_before_it_is_settled() -> None:
    world = World.create()
    member = Member(world)
    id_ = member.attach(b"t", prefetch=2)
    Member(world).publish(b"t", b"a", b"b", b"c", b"d", b"e")

    first = member.take_pushed()
    member.settle(id_, first[0].tag)

    assert [p.body for p in first] == [b"a", b"b"]
    assert member.take() == [b"c"]


def test_info_follows_the_answer_to_auth() -> None:
    member = Member(World.create())

    assert member.info == [
        {
            "server": "blipmq",
            "version": "",
            "max_frame_bytes": 16 * 1024 * 1024,
            "max_body_bytes": 16 * 1024 * 1024 - 256 * 1024,
            "heartbeat_ms": 30_000,
            "ack_wait_ms": 30_000,
            "draining": False,
        }
    ]


def test_a_commit_is_confirmed_as_a_whole() -> None:
    world = World.create(durable=True)
    publisher = Member(world)
    calls = publisher.publish(b"t", b"a", b"b")
    calls += publisher.publish(b"u", b"c")
    assert publisher.confirmed == []

    world.commit()
    publisher.receive()

    assert publisher.confirmed == [calls[-1]]


def test_members_of_a_name_share_and_others_get_everything() -> None:
    world = World.create()
    one, other, alone, publisher = (Member(world) for _ in range(4))
    one.attach(b"t", name=b"n", prefetch=1)
    other.attach(b"t", name=b"n", prefetch=1)
    alone.attach(b"t")

    publisher.publish(b"t", b"a", b"b")

    assert sorted(one.take() + other.take()) == [b"a", b"b"]
    assert alone.take() == [b"a", b"b"]


def test_what_a_lost_connection_held_comes_to_another_member_with_its_attempt() -> None:
    world = World.create()
    one, other = Member(world), Member(world)
    one.attach(b"t", name=b"n")
    Member(world).publish(b"t", b"a")
    assert one.take() == [b"a"]
    other.attach(b"t", name=b"n")

    one.disconnect()

    assert [(p.body, p.attempt) for p in other.take_pushed()] == [(b"a", 2)]


@pytest.mark.parametrize(
    ("outcome", "attempt"), [(Outcome.RELEASE, 1), (Outcome.RETRY, 2)], ids=["release", "retry"]
)
def test_what_is_given_back_comes_again(outcome: Outcome, attempt: int) -> None:
    world = World.create(retries=Retries(retry_backoff_ms=100))
    member = Member(world)
    id_ = member.attach(b"t")
    Member(world).publish(b"t", b"a")
    (pushed,) = member.take_pushed()

    member.settle(id_, pushed.tag, outcome=outcome)
    world.pass_time(0.1)

    assert [(p.tag, p.attempt) for p in member.take_pushed()] == [(pushed.tag, attempt)]


def test_a_message_that_is_not_settled_in_time_comes_again() -> None:
    world = World.create()
    member = Member(world)
    member.attach(b"t", ack_wait_ms=1_000)
    Member(world).publish(b"t", b"a")
    assert member.take() == [b"a"]

    world.pass_time(0.999)
    early = member.take()
    world.pass_time(0.001)

    assert (early, member.take()) == ([], [b"a"])


def test_a_message_that_is_extended_has_its_time_anew() -> None:
    world = World.create()
    member = Member(world)
    id_ = member.attach(b"t", ack_wait_ms=1_000)
    Member(world).publish(b"t", b"a")
    (pushed,) = member.take_pushed()
    world.pass_time(0.9)
    member.settle(id_, pushed.tag, outcome=Outcome.EXTEND)

    world.pass_time(0.9)
    early = member.take()
    world.pass_time(0.1)

    assert (early, member.take()) == ([], [b"a"])


def test_a_range_is_settled_with_one_row() -> None:
    world = World.create()
    member = Member(world)
    id_ = member.attach(b"t", prefetch=10)
    publisher = Member(world)
    publisher.publish(b"t", *[b"x"] * 10)
    pushed = tags(member.take_pushed())

    member.settle(id_, pushed[2], pushed[7])
    publisher.publish(b"t", *[b"y"] * 10)

    assert member.take() == [b"y"] * 6
    assert world.broker.stats.inflight == 10


@pytest.mark.parametrize("ending", ["rejected", "max attempts", "expired"])
def test_a_message_that_is_given_up_becomes_a_dead_letter(ending: str) -> None:
    world = World.create()
    member, dead = Member(world), Member(world)
    dead.attach(b"$dead.t")
    id_ = member.attach(b"t", name=b"n", ack_wait_ms=1_000, max_attempts=1)
    ttl = MessageProperties(ttl_ms=500, headers=(("h", b"v"),))
    Member(world).message(b"t", b"a", ttl if ending == "expired" else MessageProperties())
    (pushed,) = member.take_pushed()

    if ending == "rejected":
        member.settle(id_, pushed.tag, outcome=Outcome.REJECT)
    world.pass_time(1)

    (letter,) = dead.take_pushed()
    assert (letter.topic, letter.body, letter.properties.ttl_ms) == (b"$dead.t", b"a", None)
    origin = letter.properties.dead_letter
    assert origin is not None
    assert (origin.topic, origin.tag, origin.subscription) == (b"t", pushed.tag, b"n")
    assert origin.reason == ending
    assert member.take() == []


def test_a_pattern_is_in_topics_that_come_later() -> None:
    world = World.create()
    member, publisher = Member(world), Member(world)
    member.attach(b"orders.>", pattern=True)

    publisher.publish(b"orders.eu", b"a")
    publisher.publish(b"orders", b"b")
    publisher.publish(b"orders.us.ca", b"c")

    assert member.take() == [b"a", b"c"]


def test_a_delayed_message_is_published_when_it_is_due() -> None:
    world = World.create()
    member = Member(world)
    member.attach(b"t")
    publisher = Member(world)
    call = publisher.message(b"t", b"late", MessageProperties(delay_ms=1_000))
    publisher.publish(b"t", b"early")

    assert call in publisher.confirmed
    assert member.take() == [b"early"]
    world.pass_time(1)
    assert [(p.body, p.properties.delay_ms) for p in member.take_pushed()] == [(b"late", 0)]


def test_a_second_publish_of_a_message_id_is_confirmed_and_dropped() -> None:
    world = World.create()
    member = Member(world)
    member.attach(b"t")
    publisher = Member(world)
    first = publisher.message(b"t", b"a", MessageProperties(message_id=b"1"))
    second = publisher.message(b"t", b"b", MessageProperties(message_id=b"1"))
    publisher.message(b"t", b"c", MessageProperties(message_id=b"2"))

    assert {first, second} <= set(publisher.confirmed)
    assert member.take() == [b"a", b"c"]


def test_a_duplicate_fails_when_the_first_one_does() -> None:
    world = World.create(durable=True)
    publisher = Member(world)
    calls = [publisher.message(b"t", b"a", MessageProperties(message_id=b"1")) for _ in range(2)]

    world.fail()
    publisher.receive()

    assert [(call, code) for call, code, _ in publisher.refused] == [(c, 500) for c in calls]
    again = publisher.message(b"t", b"a", MessageProperties(message_id=b"1"))
    world.commit()
    publisher.receive()
    assert publisher.confirmed[-1] == again


def test_a_version_1_subscriber_gets_plain_publishes() -> None:
    world = World.create()
    old = world.connect()
    subscription = old.subscribe(b"t")
    Member(world).message(b"t", b"a", MessageProperties(headers=(("h", b"v"),)))

    received = old.poll(subscription)

    assert received is not None
    assert received.body == b"a"


def test_messages_of_one_key_go_to_one_member_while_some_are_unsettled() -> None:
    world = World.create()
    members = [Member(world) for _ in range(3)]
    for member in members:
        member.attach(b"t", name=b"n")
    publisher = Member(world)

    for i in range(12):
        publisher.message(b"t", b"%d" % i, MessageProperties(key=b"k%d" % (i % 3)))

    got = [[int(body) for body in member.take()] for member in members]
    assert sorted(got) == [[0, 3, 6, 9], [1, 4, 7, 10], [2, 5, 8, 11]]


def test_a_full_member_holds_back_only_its_own_keys() -> None:
    world = World.create()
    one, other, publisher = (Member(world) for _ in range(3))
    id_ = one.attach(b"t", name=b"n", prefetch=1)
    other.attach(b"t", name=b"n", prefetch=100)
    for body, key in ((b"a", b"1"), (b"b", b"2"), (b"c", b"1"), (b"d", b"2"), (b"e", b"1")):
        publisher.message(b"t", body, MessageProperties(key=key))

    (held,) = one.take_pushed()
    first = other.take()
    one.accept_all(id_)

    assert (held.body, first, one.take()) == (b"a", [b"b", b"d"], [b"c"])


def test_the_keys_of_a_member_that_leaves_go_to_others() -> None:
    world = World.create()
    one, other, publisher = (Member(world) for _ in range(3))
    one.attach(b"t", name=b"n", prefetch=1)
    other.attach(b"t", name=b"n", prefetch=100)
    for body, key in ((b"a", b"1"), (b"b", b"2"), (b"c", b"1")):
        publisher.message(b"t", body, MessageProperties(key=key))
    before = (one.take(), other.take())

    one.disconnect()

    assert (before, other.take()) == (([b"a"], [b"b"]), [b"a", b"c"])


def test_a_full_subscription_refuses_publishes() -> None:
    world = World.create(Limits(max_backlog_bytes=1000))
    Member(world).attach(b"t", name=b"n", prefetch=0)
    publisher = Member(world)
    calls = [call for _ in range(20) for call in publisher.publish(b"t", bytes(100))]

    assert 0 < len(publisher.refused) < 20
    assert {(code, text) for _, code, text in publisher.refused} == {(503, "backlog full")}
    assert publisher.refused[-1][0] == calls[-1]


def test_a_polled_attachment_is_asked_and_acknowledged_as_on_version_1() -> None:
    world = World.create()
    member = Member(world)
    id_ = member.attach(b"t", prefetch=0)
    Member(world).publish(b"t", b"a", b"b")
    assert member.take() == []

    member.send(encoder.poll(7, id_))
    (pushed,) = member.take_pushed()
    member.send(encoder.ack(pushed.tag, id_), encoder.ack(pushed.tag, id_))

    assert pushed.body == b"a"
    assert member.refused == [(pushed.tag, 404, "unknown subscription or delivery tag")]


def test_without_a_log_the_earliest_is_what_others_have_not_settled() -> None:
    world = World.create(retention=Retention())
    Member(world).attach(b"t", name=b"n", prefetch=0)
    Member(world).publish(b"t", b"a", b"b")
    late = Member(world)

    late.attach(b"t", start=Start(StartKind.EARLIEST))

    assert late.take() == [b"a", b"b"]
