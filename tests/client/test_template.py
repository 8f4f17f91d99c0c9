from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from blipmq.client.push.link import TEMPLATES_MAX, Link
from blipmq.client.push.template import QOS0_ID, Template, alike
from blipmq.protocol import encoder
from blipmq.protocol.frames import U64
from blipmq.protocol.properties import MessageProperties, encode_message_properties
from blipmq.testing import open_broker

PREFIX = b"the pref"


def numbered(number: int, body: bytes) -> bytes:
    properties = MessageProperties(message_id=PREFIX + U64.pack(number))
    return encoder.message(number, 1, b"demo", encode_message_properties(properties), body)


@given(st.integers(1, 1 << 62), st.integers(0, 30), st.integers(1, 50))
def test_frames_of_one_size_are_those_of_each(first: int, size: int, count: int) -> None:
    bodies = [bytes((n,)) * size for n in range(count)]
    template = Template(b"demo", PREFIX)
    each = [numbered(number, body) for number, body in enumerate(bodies, first)]
    assert [template.frame(n, body) for n, body in enumerate(bodies, first)] == each
    assert template.frames(first, bodies) == b"".join(each)
    assert template.size == len(each[0]) - size


@given(st.integers(0, 30), st.integers(1, 50))
def test_at_qos_0_too(size: int, count: int) -> None:
    bodies = [bytes((n,)) * size for n in range(count)]
    template = Template(b"demo", None)
    each = [encoder.publish(QOS0_ID, 0, b"demo", body) for body in bodies]
    assert template.qos0_frames(bodies) == b"".join(each)
    assert template.qos0_head(size) + bodies[0] == each[0]
    assert template.size == len(each[0]) - size


def test_a_head_is_that_of_the_size_asked_for() -> None:
    template = Template(b"demo", None)
    for body in (b"a", b"longer", b"a"):
        assert template.qos0_head(len(body)) + body == encoder.publish(QOS0_ID, 0, b"demo", body)


@pytest.mark.parametrize(
    ("bodies", "expected"),
    [
        ([b"a", b"b"], True),
        ([b"", b""], True),
        ([b"a", b"bc"], False),
        ([b"a", bytearray(b"b")], False),
        ([b"a", "b"], False),
        ([b"a", 1], False),
        ([], False),
    ],
)
def test_bytes_of_one_size_are_alike(bodies: list[object], expected: bool) -> None:
    assert alike(bodies) is expected


@pytest.mark.parametrize("qos", [0, 1])
async def test_of_many_topics_the_last_few_are_remembered(
    qos: int, autojump_clock: MockClock
) -> None:
    topics = [f"demo.{number % 100}" for number in range(250)]
    async with (
        open_broker() as broker,
        broker.client() as client,
        client.subscribe("demo.*", qos=qos, prefetch=1000) as messages,
    ):
        for number, topic in enumerate(topics):
            await client.publish(topic, b"%d" % number, qos=qos)
        received = [await messages.receive() for _ in topics]  # of each topic in order
        found = {int(message.body): message.topic for message in received}
        assert found == dict(enumerate(topics))
        engine = client._engine
        assert isinstance(engine, Link)
        assert [len(each) for each in engine._templates] == [
            0 if qos else TEMPLATES_MAX,
            TEMPLATES_MAX if qos else 0,
        ]
