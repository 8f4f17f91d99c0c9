"""Version 2: a message id that was published before."""

from __future__ import annotations

import pytest

from blipmq.broker.limits import Retention
from blipmq.protocol import encoder
from blipmq.protocol.properties import MessageProperties, encode_message_properties
from tests.broker.attached import Member
from tests.broker.logged import LoggedWorld
from tests.broker.world import World

ID = MessageProperties(message_id=b"1")


def test_duplicates_wait_for_the_first_one() -> None:
    world = World.create(durable=True)
    one, other = Member(world), Member(world)
    one.message(b"t", b"a", ID)
    second = other.message(b"t", b"b", ID)
    before = list(other.confirmed)

    world.commit()
    other.receive()

    assert (before, other.confirmed) == ([], [second])


def test_a_duplicate_of_what_is_committed_is_confirmed_at_once() -> None:
    world = World.create(durable=True)
    one, other = Member(world), Member(world)
    one.message(b"t", b"a", ID)
    world.commit()

    second = other.message(b"t", b"b", ID)

    assert other.confirmed == [second]


def test_an_id_is_of_its_topic() -> None:
    world = World.create()
    publisher = Member(world)
    publisher.message(b"t", b"a", ID)
    publisher.message(b"u", b"b", ID)

    assert world.broker.stats.duplicates == 0


def test_an_id_is_forgotten_after_its_time() -> None:
    world = World.create(retention=Retention(dedup_window_ms=1_000))
    member, publisher = Member(world), Member(world)
    member.attach(b"t")
    publisher.message(b"t", b"a", ID)
    world.pass_time(0.9)
    publisher.message(b"t", b"b", ID)
    world.pass_time(0.1)
    publisher.message(b"t", b"c", ID)

    assert member.take() == [b"a", b"c"]


def test_the_oldest_id_is_forgotten_when_there_are_too_many() -> None:
    world = World.create(retention=Retention(dedup_messages=2))
    publisher = Member(world)
    for id_ in (b"1", b"2", b"3", b"2", b"1"):
        publisher.message(b"t", b"x", MessageProperties(message_id=id_))

    assert world.broker.stats.duplicates == 1


@pytest.mark.parametrize("checkpoint", [False, True])
def test_an_id_is_known_after_a_restart(checkpoint: bool) -> None:
    world = LoggedWorld.logged()
    Member(world).message(b"t", b"a", ID)
    world.commit()
    if checkpoint:
        world.checkpoint()
    world.now += 1
    world.crash()
    publisher = Member(world)

    call = publisher.message(b"t", b"b", ID)

    assert (publisher.confirmed, world.broker.stats.duplicates) == ([call], 1)


def test_a_duplicate_leaves_no_topic_behind() -> None:
    world = World.create()
    member, publisher = Member(world), Member(world)
    id_ = member.attach(b"t")
    publisher.message(b"t", b"a", ID)
    member.take()
    member.accept_all(id_)
    member.disconnect()

    publisher.message(b"t", b"b", ID)

    assert world.broker.stats.topics == 0


@pytest.mark.parametrize("qos", [0, 1])
@pytest.mark.parametrize("ids", [(None, b"1"), (b"1", None), (None, b"1", None)])
def test_of_messages_that_come_together_some_may_have_no_id(
    qos: int, ids: tuple[bytes | None, ...]
) -> None:
    world = World.create()
    member, publisher = Member(world), Member(world)
    member.attach(b"a", qos=0)

    def message(body: bytes, id_: bytes | None) -> bytes:
        properties = encode_message_properties(MessageProperties(message_id=id_))
        return encoder.message(1, qos, b"a", properties, body)

    publisher.send(message(b"first", b"1"))
    publisher.send(*[message(b"%d" % place, id_) for place, id_ in enumerate(ids)])

    others = [b"%d" % place for place, id_ in enumerate(ids) if id_ is None]
    assert member.take() == [b"first", *others]
