"""Version 2: a broker that ends."""

from __future__ import annotations

from tests.broker.attached import Member
from tests.broker.world import World


def test_while_draining_nothing_new_is_pushed_and_publishes_are_refused() -> None:
    world = World.create()
    member, publisher = Member(world), Member(world)
    id_ = member.attach(b"t", prefetch=1)
    publisher.publish(b"t", b"a", b"b")
    (pushed,) = member.take_pushed()

    world.broker.draining = True
    member.client.session.tell_info()
    member.settle(id_, pushed.tag)
    (call,) = publisher.publish(b"t", b"c")

    assert member.take() == []
    assert member.info[-1]["draining"] is True
    assert publisher.refused == [(call, 503, "draining")]
