"""Version 2: what is pushed, in which frames, and what is not."""

from __future__ import annotations

from blipmq.broker.limits import Limits
from blipmq.broker.stats import DropReason
from blipmq.protocol import encoder
from blipmq.protocol.properties import MessageProperties
from tests.broker.attached import Member
from tests.broker.world import World


def test_a_slow_qos_0_reader_loses_its_oldest_counted() -> None:
    world = World.create(Limits(qos0_window_bytes=1_000, queue_bytes=8))
    member, publisher = Member(world), Member(world)
    member.attach(b"t", qos=0)

    for i in range(20):
        publisher.client.session.paused_until = None
        publisher.publish(b"t", b"%03d" % i + bytes(97), qos=0)

    got = [int(body[:3]) for body in member.take()]
    dropped = world.broker.stats.dropped[DropReason.QOS0_WINDOW]
    assert 0 < len(got) < 20
    assert got == list(range(20 - len(got), 20))
    assert dropped == 20 - len(got)


def test_an_attachment_without_prefetch_is_pushed_nothing() -> None:
    world = World.create()
    member = Member(world)
    polled = member.attach(b"t", qos=0, prefetch=0)
    Member(world).publish(b"t", b"a", qos=0)
    before = member.take()

    member.send(encoder.poll(7, polled))

    assert (before, [(p.body, p.qos, p.tag) for p in member.take_pushed()]) == (
        [],
        [(b"a", 0, 7)],
    )


def test_a_deliver_stays_under_256_kib_unless_one_message_is_longer() -> None:
    world = World.create()
    member, publisher = Member(world), Member(world)
    member.attach(b"t", prefetch=1_000)
    sizes = [100_000, 100_000, 100_000, 300_000, 10, *[1_000] * 400]

    publisher.publish(b"t", *map(bytes, sizes))

    assert [len(body) for body in member.take()] == sizes


def test_redeliveries_stay_under_256_kib_too() -> None:
    world = World.create()
    member, publisher = Member(world), Member(world)
    member.attach(b"t", prefetch=10_000, ack_wait_ms=1_000)
    publisher.publish(b"t", *[bytes(100)] * 3_000)
    member.take()

    world.pass_time(1)

    assert len(member.take()) == 3_000


def test_a_redelivery_is_a_message_with_its_properties_and_the_attempt() -> None:
    world = World.create()
    member = Member(world)
    member.attach(b"t", ack_wait_ms=1_000)
    Member(world).message(b"t", b"a", MessageProperties(reply_to=b"r", headers=(("h", b"v"),)))
    member.take()

    world.pass_time(1)

    (again,) = member.take_pushed()
    assert again.properties == MessageProperties(reply_to=b"r", headers=(("h", b"v"),), attempt=2)
