from __future__ import annotations

from typing import cast

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blipmq import Message
from blipmq.client.push import chunk
from blipmq.client.push.attachment import Attachment
from blipmq.client.push.connection import PushConnection
from blipmq.client.push.lease import Lease
from blipmq.client.push.link import Link
from blipmq.client.source import wanted
from blipmq.client.topic import encoded
from blipmq.errors import FramingError
from blipmq.protocol import encoder
from blipmq.protocol.properties import NO_PROPERTIES, MessageProperties, encode_message_properties

Sent = tuple[str, int, int, MessageProperties | None, bytes]
"""Topic, QoS, tag, properties (None: a PUBLISH) and body."""


@attrs.define
class FailedConnection:
    """A connection that only hears of failures."""

    errors: list[FramingError] = attrs.field(factory=list)

    def fail(self, error: FramingError) -> None:
        self.errors.append(error)


def attached(topic: str) -> tuple[Attachment, Lease, FailedConnection]:
    link = Link("a broker", bytes(8), None, 60)
    asked = wanted(
        topic,
        qos=1,
        name=None,
        pattern=None,
        prefetch=None,
        start=None,
        ack_wait=None,
        max_attempts=None,
    )
    attachment, connection = Attachment(link, asked, 512), FailedConnection()
    return attachment, Lease(attachment, cast(PushConnection, connection), 1, 1), connection


def encode(sent: Sent) -> bytes:
    topic, qos, tag, properties, body = sent
    if properties is None:
        return encoder.publish(tag, qos, encoded(topic), body)
    return encoder.message(tag, qos, encoded(topic), encode_message_properties(properties), body)


def said(message: Message) -> Sent:
    """As what it must have been sent; without properties as a PUBLISH."""
    properties = None if message.properties == NO_PROPERTIES else message.properties
    return message.topic, message.qos, message.tag or 0, properties, message.body


PROPERTIES = st.one_of(
    st.none(),
    st.builds(
        MessageProperties,
        message_id=st.none() | st.binary(min_size=1, max_size=3),
        key=st.none() | st.binary(max_size=2),
        attempt=st.integers(1, 3),
    ),
)
STRETCHES = st.lists(
    st.tuples(
        st.sampled_from(["a.b", "a.c", "a.longer"]),
        st.integers(0, 1),
        PROPERTIES,
        st.integers(0, 20),
        st.integers(1, 40),
    ),
    min_size=1,
    max_size=6,
)


@given(STRETCHES)
def test_messages_come_out_as_they_went_in(
    stretches: list[tuple[str, int, MessageProperties | None, int, int]],
) -> None:
    sent: list[Sent] = []
    for topic, qos, properties, size, count in stretches:
        for _ in range(count):
            tag = len(sent) + 1
            body = bytes((tag % 251,)) * size
            sent.append((topic, qos, tag, properties, body))
    attachment, lease, connection = attached("a.>")
    data = b"".join(map(encode, sent))
    found = list(chunk.messages(data, attachment, lease))
    expected = [
        (topic, qos, tag if qos else 0, None if p == NO_PROPERTIES else p, body)
        for topic, qos, tag, p, body in sent
    ]
    assert [said(message) for message in found] == expected
    assert not connection.errors
    assert attachment.taken == len(sent) == chunk.count(data)
    assert chunk.tags(data) == [tag for _, _, tag, _, _ in sent]
    assert lease.unsettled == sum(qos for _, qos, _, _, _ in sent)


def test_properties_of_one_size_are_each_message_s_own() -> None:
    attachment, lease, _ = attached("demo")
    data = b"".join(
        encode(("demo", 1, tag, MessageProperties(message_id=b"%03d" % tag), b"body %03d" % tag))
        for tag in range(1, 101)
    )
    attachment.lease = lease
    attachment.deliver(data)
    found = list(iter(attachment.take, None))
    assert [each.message_id for each in found] == [b"%03d" % tag for tag in range(1, 101)]
    assert [each.body for each in found] == [b"body %03d" % tag for tag in range(1, 101)]
    assert attachment.seen_tag == 100


def test_a_message_is_counted_when_it_comes_out() -> None:
    attachment, lease, _ = attached("demo")
    data = b"".join(encode(("demo", 1, tag, None, b"hello")) for tag in range(1, 101))
    found = chunk.messages(data, attachment, lease)
    assert (attachment.taken, lease.unsettled) == (0, 0)
    next(found)
    next(found)
    assert (attachment.taken, lease.unsettled) == (2, 2)


WHOLE = encode(("demo", 1, 1, None, b"hello"))


@pytest.mark.parametrize(
    "broken",
    [
        WHOLE[:10],
        WHOLE[:-1],
        WHOLE[:4] + b"\x05" + WHOLE[5:],
        WHOLE[:14] + b"\xff\xff" + WHOLE[16:],
        encoder.message(1, 1, b"demo", b"abc", b"")[:-5] + b"\xff\xffabc",
        encoder.frame(0x13, 1, b"\x01\x00\x04demo\x00"),
        encoder.frame(0x03, 1, b"\x01\x00"),
    ],
    ids=["cut head", "cut body", "type", "topic", "properties", "no properties", "no topic"],
)
@pytest.mark.parametrize("before", [0, 1, 50])
def test_bytes_that_are_no_messages_fail_the_connection(broken: bytes, before: int) -> None:
    attachment, lease, connection = attached("demo")
    found = list(chunk.messages(WHOLE * before + broken, attachment, lease))
    assert [message.body for message in found] == [b"hello"] * before
    assert len(connection.errors) == 1
