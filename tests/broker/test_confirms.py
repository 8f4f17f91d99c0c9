"""Version 2: which publishes a CONFIRM answers, and when."""

from __future__ import annotations

import pytest

from tests.broker.attached import Member
from tests.broker.world import World


def test_a_refusal_comes_before_the_confirm_that_passes_it() -> None:
    world = World.create(durable=True)
    publisher = Member(world)
    first = publisher.publish(b"t", b"a")
    refused = publisher.publish(b"$t", b"b")
    last = publisher.publish(b"t", b"c")
    assert [call for call, _, _ in publisher.refused] == refused

    world.commit()
    publisher.receive()

    assert publisher.confirmed == last
    assert first < refused < last


def test_a_confirm_waits_for_everything_before_it() -> None:
    world = World.create(durable=True)
    publisher = Member(world)
    (first,) = publisher.publish(b"t", b"a")
    one = world.broker.handoff()
    (second,) = publisher.publish(b"t", b"b")
    other = world.broker.handoff()
    assert one is not None
    assert other is not None

    world.broker.committed(other, world.now)
    publisher.receive()
    before = list(publisher.confirmed)
    world.broker.committed(one, world.now)
    publisher.receive()

    assert (before, publisher.confirmed) == ([], [second])
    assert first < second


@pytest.mark.parametrize("version", [1, 2])
def test_a_refusal_that_nobody_is_there_for_takes_no_memory(version: int) -> None:
    world = World.create(durable=True)
    publisher = world.connect() if version == 1 else Member(world)
    publisher.publish(b"t", b"a")
    publisher.disconnect()

    world.fail()

    memory_bytes = world.broker.stats.memory_bytes
    assert memory_bytes == 0
