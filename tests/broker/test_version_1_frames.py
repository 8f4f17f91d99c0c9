"""Whatever version 2 clients publish, a version 1 client sees version 1 frames, and all of them."""

from __future__ import annotations

import attrs
from hypothesis import given
from hypothesis import strategies as st

from blipmq.protocol import encoder
from blipmq.protocol.properties import MessageProperties
from tests.broker.attached import Member
from tests.broker.world import Received, World, parse

texts = st.none() | st.text(min_size=1, max_size=5)
short = st.none() | st.binary(min_size=1, max_size=5)
properties = st.builds(
    MessageProperties,
    ttl_ms=st.sampled_from([None, 0, 10_000]),
    delay_ms=st.sampled_from([0, 0, 500]),
    key=short,
    content_type=texts,
    headers=st.lists(st.tuples(st.text(max_size=5), st.binary(max_size=5)), max_size=2).map(tuple),
    timestamp_ms=st.none() | st.integers(0, 2**64 - 1),
)
publishes = st.lists(
    st.tuples(st.none() | properties, st.booleans(), st.binary(max_size=8), st.integers(0, 1))
)
"""Properties, whether there is a message id, the body, and the QoS."""

Published = list[tuple[MessageProperties | None, bool, bytes, int]]


def publish(world: World, published: Published) -> list[tuple[bytes, int]]:
    """Body and QoS of what was published."""
    publisher = Member(world)
    accepted: list[tuple[bytes, int]] = []
    for i, (found, with_id, body, qos) in enumerate(published):
        numbered = b"%d " % i + body
        if found is None:
            publisher.publish(b"t", numbered, qos=qos)
        else:
            message_id = b"%d" % i if with_id else None
            delay_ms = found.delay_ms if qos else 0
            sent = attrs.evolve(found, message_id=message_id, delay_ms=delay_ms)
            publisher.message(b"t", numbered, sent, qos)
        accepted.append((numbered, qos))
    assert publisher.refused == []
    return accepted


@given(publishes, st.integers(0, 1))
def test_a_version_1_client_sees_version_1_frames_alone(published: Published, qos: int) -> None:
    world = World.create()
    old = world.connect()
    subscription = old.subscribe(b"t", qos)
    accepted = publish(world, published)
    world.pass_time(0.5)

    got: list[Received] = []
    for call in range(1_000_000, 1_000_000 + len(accepted) + 1):
        for frame in map(parse, old.send(encoder.poll(call, subscription))):
            received = Received.of(frame)
            assert received.qos or received.tag == call
            got.append(received)

    assert {r.topic for r in got} <= {b"t"}
    assert sorted((r.body, r.qos) for r in got) == sorted((b, min(q, qos)) for b, q in accepted)


@given(publishes)
def test_nothing_is_pushed_to_a_version_1_client(published: Published) -> None:
    world = World.create()
    old = world.connect()
    old.subscribe(b"t")

    publish(world, published)
    world.pass_time(0.5)
    old.session.gather(world.now)

    assert old.replies() == []
