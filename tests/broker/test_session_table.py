"""Every row of the table of version 1, in its order."""

from __future__ import annotations

import pytest

from blipmq.broker.session import State
from blipmq.protocol import encoder
from blipmq.protocol.frames import (
    ACK,
    AUTH,
    HELLO,
    LENGTH_MAX_PUBLISH,
    NACK,
    POLL,
    PUBLISH,
    SUBSCRIBE,
    TYPES,
    U16,
    U64,
)
from tests.broker.world import Client, World

ID = 0x0123_4567_89AB_CDEF
HELLO_FRAME = encoder.hello(1, 1)
AUTH_FRAME = encoder.auth(2, b"key")
BEFORE = {
    State.CONNECTED: b"",
    State.GREETED: HELLO_FRAME,
    State.READY: HELLO_FRAME + AUTH_FRAME,
}
CONNECTED, GREETED, READY = State.CONNECTED, State.GREETED, State.READY


def in_state(state: State) -> Client:
    client = Client(World.create())
    client.send(BEFORE[state])
    assert client.session.state is state
    return client


def text(value: bytes, length: int | None = None) -> bytes:
    return U16.pack(len(value) if length is None else length) + value


NOT_UTF_8 = b"\xff"
TABLE: list[tuple[str, State, int, bytes, int, str]] = [
    ("HELLO of version 3", CONNECTED, HELLO, b"\0\3", 426, "unsupported protocol version"),
    ("HELLO of version 0", CONNECTED, HELLO, b"\0\0", 426, "unsupported protocol version"),
    ("second HELLO", GREETED, HELLO, b"\0\1", 400, "HELLO already performed"),
    ("HELLO after AUTH", READY, HELLO, b"\0\1", 400, "HELLO already performed"),
    ("second HELLO of another version", GREETED, HELLO, b"\0\2", 400, "HELLO already performed"),
    ("short HELLO", CONNECTED, HELLO, b"\1", 400, "invalid HELLO payload"),
    ("long HELLO", CONNECTED, HELLO, b"\0\1\0", 400, "invalid HELLO payload"),
    ("empty HELLO", CONNECTED, HELLO, b"", 400, "invalid HELLO payload"),
    ("AUTH before HELLO", CONNECTED, AUTH, text(b"key"), 400, "HELLO not performed"),
    ("second AUTH", READY, AUTH, text(b"key"), 400, "already authenticated"),
    ("empty AUTH", GREETED, AUTH, b"", 400, "invalid AUTH payload"),
    ("short AUTH", GREETED, AUTH, text(b"key", 4), 400, "invalid AUTH payload"),
    ("long AUTH", GREETED, AUTH, text(b"key", 2), 400, "invalid AUTH payload"),
    ("AUTH that is not UTF-8", GREETED, AUTH, text(NOT_UTF_8), 400, "invalid AUTH payload"),
    ("unknown key", GREETED, AUTH, text(b"no key"), 401, "invalid API key"),
    ("empty key", GREETED, AUTH, text(b""), 401, "invalid API key"),
    ("empty PUBLISH", READY, PUBLISH, b"", 400, "invalid PUBLISH payload"),
    ("short PUBLISH", READY, PUBLISH, b"\0\0", 400, "invalid PUBLISH payload"),
    ("short topic", READY, PUBLISH, b"\0" + text(b"t", 2), 400, "invalid PUBLISH payload"),
    ("topic not UTF-8", READY, PUBLISH, b"\0" + text(NOT_UTF_8), 400, "invalid PUBLISH payload"),
    ("malformed, bad QoS", READY, PUBLISH, b"\2" + text(b"t", 2), 400, "invalid PUBLISH payload"),
    ("empty topic", READY, PUBLISH, b"\1" + text(b"") + b"body", 400, "empty topic"),
    ("empty topic, bad QoS", READY, PUBLISH, b"\2" + text(b""), 400, "empty topic"),
    ("QoS 2", READY, PUBLISH, b"\2" + text(b"t") + b"body", 400, "invalid QoS value"),
    ("QoS 255", READY, PUBLISH, b"\xff" + text(b"t"), 400, "invalid QoS value"),
    ("empty SUBSCRIBE", READY, SUBSCRIBE, b"", 400, "invalid SUBSCRIBE payload"),
    ("SUBSCRIBE without QoS", READY, SUBSCRIBE, text(b"t"), 400, "invalid SUBSCRIBE payload"),
    ("short SUBSCRIBE", READY, SUBSCRIBE, text(b"t", 9), 400, "invalid SUBSCRIBE payload"),
    (
        "SUBSCRIBE, topic not UTF-8",
        READY,
        SUBSCRIBE,
        text(NOT_UTF_8) + b"\1",
        400,
        "invalid SUBSCRIBE payload",
    ),
    ("SUBSCRIBE, empty topic", READY, SUBSCRIBE, text(b"") + b"\1", 400, "empty topic"),
    ("SUBSCRIBE, empty topic, bad QoS", READY, SUBSCRIBE, text(b"") + b"\2", 400, "empty topic"),
    ("SUBSCRIBE, bad QoS", READY, SUBSCRIBE, text(b"t") + b"\2", 400, "invalid QoS value"),
    ("empty POLL", READY, POLL, b"", 400, "invalid POLL payload"),
    ("short POLL", READY, POLL, U64.pack(1)[1:], 400, "invalid POLL payload"),
    ("long POLL", READY, POLL, U64.pack(1) + b"\0", 400, "invalid POLL payload"),
    ("POLL of 0", READY, POLL, U64.pack(0), 400, "subscription_id must be non-zero"),
    ("empty ACK", READY, ACK, b"", 400, "invalid ACK payload"),
    ("long ACK", READY, ACK, U64.pack(1) + b"\0", 400, "invalid ACK payload"),
    ("ACK of 0", READY, ACK, U64.pack(0), 400, "subscription_id must be non-zero"),
    (
        "ACK, unknown subscription",
        READY,
        ACK,
        U64.pack(99),
        404,
        "unknown subscription or delivery tag",
    ),
]


@pytest.mark.parametrize(
    ("state", "type_", "payload", "code", "message"),
    [row[1:] for row in TABLE],
    ids=[row[0] for row in TABLE],
)
def test_a_refused_request_is_answered_by_this_nack(
    state: State, type_: int, payload: bytes, code: int, message: str
) -> None:
    client = in_state(state)

    replies = client.send(encoder.frame(type_, ID, payload))

    assert replies == [encoder.nack(ID, code, message)]
    assert client.session.close_reason is None
    assert client.world.broker.stats.nacks[code] == 1


@pytest.mark.parametrize("state", [CONNECTED, GREETED])
@pytest.mark.parametrize("type_", sorted(set(TYPES) - {HELLO, AUTH}))
@pytest.mark.parametrize(
    "payload",
    [b"", b"\1" + text(b"t") + b"body", text(b"t") + b"\1", U64.pack(1)],
    ids=["empty", "a message", "a topic", "an id"],
)
def test_before_authentication_all_but_hello_and_auth_is_refused(
    state: State, type_: int, payload: bytes
) -> None:
    client = in_state(state)

    replies = client.send(encoder.frame(type_, ID, payload))

    assert replies == [encoder.nack(ID, 401, "unauthenticated")]
    assert client.session.state is state


def test_an_accepted_hello_is_answered_by_ack_0() -> None:
    assert in_state(CONNECTED).send(encoder.hello(ID, 1)) == [encoder.ack(ID, 0)]


def test_after_an_unsupported_version_another_may_be_tried() -> None:
    client = in_state(CONNECTED)
    client.send(encoder.hello(1, 3))

    assert client.send(encoder.hello(ID, 1)) == [encoder.ack(ID)]


def test_a_known_key_is_answered_by_ack_0() -> None:
    assert in_state(GREETED).send(encoder.auth(ID, b"key")) == [encoder.ack(ID, 0)]


def test_after_an_unknown_key_another_may_be_tried() -> None:
    client = in_state(GREETED)
    client.send(encoder.auth(1, b"no key"))

    assert client.send(encoder.auth(ID, b"key")) == [encoder.ack(ID)]


@pytest.mark.parametrize("qos", [0, 1])
def test_an_accepted_publish_is_not_answered(qos: int) -> None:
    assert in_state(READY).send(encoder.publish(ID, qos, b"t", b"body")) == []


def test_a_message_too_large_is_refused_and_the_next_one_is_not() -> None:
    client = in_state(READY)
    topic_and_header = 9 + 3 + 1
    body = bytes(LENGTH_MAX_PUBLISH - topic_and_header)

    replies = client.send(
        encoder.publish(ID, 1, b"t", body + b"x"), encoder.publish(ID + 1, 1, b"t", body)
    )

    assert replies == [encoder.nack(ID, 413, "message too large")]
    assert client.world.broker.stats.published == [0, 1]


def test_a_malformed_message_that_is_too_large_is_malformed() -> None:
    payload = bytes((2,)) + text(b"t") + bytes(LENGTH_MAX_PUBLISH)

    replies = in_state(READY).send(encoder.frame(PUBLISH, ID, payload))

    assert replies == [encoder.nack(ID, 400, "invalid QoS value")]


@pytest.mark.parametrize("qos", [0, 1])
def test_an_accepted_subscribe_is_answered_by_ack_with_an_id_of_its_own(qos: int) -> None:
    client = in_state(READY)

    first, second = client.subscribe(b"t", qos), client.subscribe(b"t", qos)

    assert len({0, first, second}) == 3


def test_bytes_after_the_qos_of_a_subscribe_are_ignored() -> None:
    (reply,) = in_state(READY).send(
        encoder.frame(SUBSCRIBE, ID, text(b"t") + b"\1" + b"whatever follows")
    )

    assert reply[4] == ACK


def test_a_poll_is_not_answered_when_the_subscription_is_unknown() -> None:
    assert in_state(READY).send(encoder.poll(ID, 99)) == []


def test_a_poll_is_not_answered_when_there_is_nothing_to_deliver() -> None:
    client = in_state(READY)

    assert client.poll(client.subscribe(b"t")) is None


@pytest.mark.parametrize("qos", [0, 1])
def test_a_poll_is_answered_by_one_publish_when_messages_wait(qos: int) -> None:
    client = in_state(READY)
    subscription = client.subscribe(b"t", qos)
    client.publish(b"t", b"one", b"two")

    (reply,) = client.send(encoder.poll(ID, subscription))

    assert reply[4] == PUBLISH
    assert reply.endswith(b"one")


def test_an_ack_of_an_unknown_tag_is_refused() -> None:
    client = in_state(READY)
    subscription = client.subscribe(b"t")

    assert client.send(encoder.ack(ID, subscription)) == [
        encoder.nack(ID, 404, "unknown subscription or delivery tag")
    ]


def test_an_ack_of_a_message_that_waits_for_its_first_delivery_is_refused() -> None:
    client = in_state(READY)
    subscription = client.subscribe(b"t")
    client.publish(b"t", b"one", b"two")
    received = client.poll(subscription)
    assert received is not None

    replies = client.ack(subscription, received.tag + 1)

    assert replies == [encoder.nack(received.tag + 1, 404, "unknown subscription or delivery tag")]


def test_an_accepted_ack_is_not_answered_and_a_second_one_is_refused() -> None:
    client = in_state(READY)
    subscription = client.subscribe(b"t")
    client.publish(b"t", b"body")
    received = client.poll(subscription)
    assert received is not None

    assert client.ack(subscription, received.tag) == []
    assert client.ack(subscription, received.tag) == [
        encoder.nack(received.tag, 404, "unknown subscription or delivery tag")
    ]


@pytest.mark.parametrize("payload", [b"", b"anything"])
def test_a_ping_is_answered_by_an_empty_pong(payload: bytes) -> None:
    assert in_state(READY).send(encoder.frame(7, ID, payload)) == [encoder.pong(ID)]


@pytest.mark.parametrize("frame", [encoder.pong(ID), encoder.nack(ID, 400, "no")])
def test_a_pong_and_a_nack_from_a_client_are_ignored(frame: bytes) -> None:
    client = in_state(READY)

    assert client.send(frame, encoder.ping(1)) == [encoder.pong(1)]


def test_every_type_has_a_row() -> None:
    assert {row[2] for row in TABLE} == {HELLO, AUTH, PUBLISH, SUBSCRIBE, POLL, ACK}
    assert set(TYPES) - {row[2] for row in TABLE} == {7, 8, NACK}
