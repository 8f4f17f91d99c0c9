from __future__ import annotations

import pytest

from blipmq.broker.limits import Limits
from blipmq.broker.session import State
from blipmq.broker.stats import CloseReason
from blipmq.errors import FramingError
from blipmq.protocol import encoder
from blipmq.protocol.frames import U32
from tests.broker.world import (
    AUTH,
    HELLO,
    Client,
    Received,
    World,
    message_bytes,
    parse,
    refusals,
    taken,
)


def types(replies: list[bytes]) -> list[tuple[int, int]]:
    """Type and correlation id of each reply."""
    return [(frame.type, frame.correlation_id) for frame in map(parse, replies)]


# Order and waiting


def test_replies_come_in_the_order_of_their_requests() -> None:
    client = Client(World.create())

    replies = client.send(
        encoder.ping(10),
        encoder.hello(11, 1),
        encoder.auth(12, b"no key"),
        encoder.auth(13, b"key"),
        encoder.ping(14),
        encoder.publish(15, 1, b"", b""),
        encoder.ack(16, 0),
        encoder.ping(17),
    )

    assert [frame.correlation_id for frame in map(parse, replies)] == list(range(10, 18))


def test_publish_and_poll_in_one_write_deliver_the_message_once_it_is_committed() -> None:
    world = World.create(durable=True)
    client = world.connect()
    subscription = client.subscribe(b"t")

    assert client.send(encoder.publish(5, 1, b"t", b"x"), encoder.poll(6, subscription)) == []
    world.commit()
    (reply,) = client.replies()

    assert Received.of(parse(reply)).body == b"x"


def test_a_poll_and_every_reply_behind_it_wait_for_what_the_connection_published() -> None:
    world = World.create(durable=True)
    client = world.connect()
    subscription = client.subscribe(b"t")
    client.send(encoder.publish(5, 1, b"other", b""))
    first = world.broker.handoff()
    client.send(encoder.publish(6, 1, b"t", b""), encoder.poll(7, subscription), encoder.ping(8))
    second = world.broker.handoff()
    assert first is not None
    assert second is not None

    world.broker.committed(first, world.now)
    assert client.replies() == []
    world.broker.committed(second, world.now)

    assert [type_ for type_, _ in types(client.replies())] == [3, 8]


def test_a_poll_does_not_wait_for_what_another_connection_published() -> None:
    world = World.create(durable=True)
    client = world.connect()
    subscription = client.subscribe(b"t")
    client.publish(b"t", b"committed")
    world.commit()
    world.connect().publish(b"t", b"not committed")

    assert client.poll_all(subscription) == [b"committed"]


def test_a_poll_does_not_wait_for_what_was_published_at_qos_0() -> None:
    world = World.create(durable=True)
    client = world.connect()
    subscription = client.subscribe(b"t", 0)

    (reply,) = client.send(encoder.publish(5, 0, b"t", b"x"), encoder.poll(6, subscription))

    assert parse(reply).correlation_id == 6


def test_the_session_says_when_a_commit_lets_it_go_on() -> None:
    world = World.create(durable=True)
    client = world.connect()
    client.publish(b"t", b"x")
    assert client.progress == 0

    world.commit()

    assert client.progress == 1


def test_a_failed_commit_is_answered_before_the_replies_behind_it() -> None:
    world = World.create(durable=True)
    client = world.connect()
    subscription = client.subscribe(b"t")
    world.commit()
    client.send(
        *(encoder.publish(id_, 1, b"t", b"") for id_ in (5, 6)),
        encoder.publish(7, 1, b"u", b""),
        encoder.poll(8, subscription),
        encoder.ping(9),
    )

    world.fail("no space left")
    *nacks, pong = client.replies()

    assert refusals(nacks) == [
        (id_, 500, "durable publish failed: no space left") for id_ in (5, 6, 7)
    ]
    assert pong == encoder.pong(9)


def test_a_run_that_was_refused_does_not_make_a_poll_wait() -> None:
    world = World.create(durable=True)
    world.broker.draining = True
    client = world.connect()

    replies = client.send(encoder.publish(5, 1, b"t", b""), encoder.poll(6, 99), encoder.ping(7))

    assert types(replies) == [(6, 5), (8, 7)]


def test_while_nothing_may_be_logged_a_qos_1_publish_and_all_behind_it_wait() -> None:
    world = World.create(durable=True)
    session = world.connect().session
    session.decoder.feed(encoder.publish(5, 1, b"t", b"") + encoder.ping(6))

    assert not session.advance(world.now, may_log=False)
    assert session.wants_to_log
    assert not session.output

    assert session.advance(world.now)
    assert taken(session) == [encoder.pong(6)]
    assert world.broker.stats.published == [0, 1]


def test_while_nothing_may_be_logged_all_else_goes_on() -> None:
    world = World.create(durable=True)
    client = world.connect()
    subscription = client.subscribe(b"t")
    session = client.session
    session.decoder.feed(encoder.publish(5, 0, b"t", b"x") + encoder.poll(6, subscription))

    assert session.advance(world.now, may_log=False)
    assert not session.wants_to_log
    assert taken(session) == [encoder.publish(6, 0, b"t", b"x")]


def test_every_message_of_a_refused_run_is_answered_under_its_own_correlation_id() -> None:
    client = Client(World.create())

    replies = client.send(*(encoder.publish(id_, 1, b"t", b"xyz") for id_ in range(900, 1000)))

    assert refusals(replies) == [(id_, 401, "unauthenticated") for id_ in range(900, 1000)]


def test_a_run_published_before_authentication_is_not_published() -> None:
    world = World.create()
    Client(world).send(encoder.publish(5, 1, b"t", b""), HELLO, AUTH)

    assert world.broker.stats.published == [0, 0]


# Bounds


def test_requests_wait_while_too_many_replies_do() -> None:
    world = World.create(Limits(output_buffer_bytes=100))
    client = world.connect()
    session = client.session
    session.decoder.feed(b"".join(map(encoder.ping, range(1_000))))

    assert not session.advance(world.now)
    waiting = b"".join(taken(session))

    assert 100 <= len(waiting) < 100 + len(encoder.pong(0))
    assert [id_ for _, id_ in types(client.replies())] == list(range(len(waiting) // 13, 1_000))


def test_one_failed_auth_more_than_allowed_closes_the_connection() -> None:
    world = World.create(Limits(max_auth_failures=2))
    client = Client(world)

    replies = client.send(
        HELLO, *(encoder.auth(id_, b"no key") for id_ in (5, 6, 7)), AUTH, encoder.ping(8)
    )

    assert refusals(replies[1:]) == [(id_, 401, "invalid API key") for id_ in (5, 6, 7)]
    assert client.session.close_reason is CloseReason.AUTH_FAILURES
    assert client.session.state is State.GREETED
    assert world.broker.stats.auth_failures == 3
    assert world.broker.stats.connections_refused[CloseReason.AUTH_FAILURES] == 1


def test_as_many_failed_auths_as_allowed_leave_the_connection_open() -> None:
    client = Client(World.create(Limits(max_auth_failures=2)))

    client.send(HELLO, *(encoder.auth(id_, b"no key") for id_ in (5, 6)))

    assert client.send(AUTH) == [encoder.ack(2)]


def test_a_malformed_auth_counts_as_a_failed_one() -> None:
    client = Client(World.create(Limits(max_auth_failures=0)))

    client.send(HELLO, encoder.frame(2, 5, b"malformed"))

    assert client.session.close_reason is CloseReason.AUTH_FAILURES


def test_a_connection_may_make_so_many_subscriptions_and_no_more() -> None:
    client = World.create(Limits(max_subscriptions_per_connection=2)).connect()
    client.subscribe(b"t")
    client.subscribe(b"t", 0)

    replies = client.send(encoder.subscribe(5, b"t", 1))

    assert refusals(replies) == [(5, 429, "too many subscriptions")]


def test_an_unfinished_frame_that_does_not_fit_into_memory_closes_the_connection() -> None:
    world = World.create(Limits(max_memory_bytes=50_000))
    client = world.connect()

    client.send(encoder.publish(5, 0, b"t", bytes(100_000))[:60_000])

    assert client.session.close_reason is CloseReason.MEMORY
    assert world.broker.stats.connections_refused[CloseReason.MEMORY] == 1


def test_a_receive_buffer_is_counted_as_memory_until_the_connection_ends() -> None:
    world = World.create()
    client = world.connect()
    assert world.broker.stats.memory_bytes == 0
    client.send(encoder.publish(6, 1, b"t", bytes(20_000))[:-1])
    assert world.broker.stats.memory_bytes > 20_000

    client.disconnect()

    assert world.broker.stats.memory_bytes == 0


# Framing


def test_replies_to_the_frames_before_a_bad_one_are_still_there() -> None:
    world = World.create()
    client = world.connect()

    with pytest.raises(FramingError):
        client.send(encoder.ping(5), U32.pack(0), encoder.ping(6))

    assert taken(client.session) == [encoder.pong(5)]
    assert world.broker.stats.framing_errors == 1


def test_a_frame_longer_than_the_largest_auth_is_no_frame_before_authentication() -> None:
    client = Client(World.create())

    with pytest.raises(FramingError):
        client.send(HELLO, U32.pack(65_547))


def test_a_long_frame_may_come_in_the_same_write_as_the_auth() -> None:
    client = Client(World.create())

    replies = client.send(HELLO, AUTH, encoder.publish(5, 1, b"t", bytes(100_000)))

    assert types(replies) == [(5, 1), (5, 2)]
    assert client.session.broker.stats.published == [0, 1]


# Whose subscription it is


def test_to_another_key_a_subscription_is_unknown() -> None:
    world = World.create()
    client, stranger = world.connect(), world.connect(b"other key")
    subscription = client.subscribe(b"t")
    client.publish(b"t", b"x")

    assert stranger.poll(subscription) is None
    received = client.poll(subscription)
    assert received is not None
    assert refusals(stranger.ack(subscription, received.tag)) == [
        (received.tag, 404, "unknown subscription or delivery tag")
    ]
    assert client.ack(subscription, received.tag) == []


def test_any_connection_with_the_same_key_may_poll_and_ack() -> None:
    world = World.create()
    client, colleague = world.connect(), world.connect()
    subscription = client.subscribe(b"t")
    client.publish(b"t", b"x")

    received = colleague.poll(subscription)
    assert received is not None

    assert client.ack(subscription, received.tag) == []


def test_a_parked_subscription_may_be_polled_and_acked() -> None:
    world = World.create()
    client, colleague = world.connect(), world.connect()
    subscription = client.subscribe(b"t")
    client.publish(b"t", b"x")
    client.disconnect()

    received = colleague.poll(subscription)
    assert received is not None

    assert colleague.ack(subscription, received.tag) == []


def test_what_a_connection_took_from_another_ones_subscription_comes_back_with_its_end() -> None:
    world = World.create()
    client, colleague = world.connect(), world.connect()
    subscription = client.subscribe(b"t")
    client.publish(b"t", b"x")
    assert colleague.poll(subscription) is not None
    assert client.poll(subscription) is None

    colleague.disconnect()

    assert client.poll_all(subscription) == [b"x"]


# Memory


def full_of_messages() -> World:
    """A broker whose memory for messages is full of what waits for a parked subscription."""
    world = World.create(Limits(max_memory_bytes=400_000))
    client = world.connect()
    client.subscribe(b"t")
    while not client.publish(b"t", bytes(10_000)):
        pass
    client.disconnect()
    return world


def test_when_memory_is_full_a_consumer_can_connect_and_empty_it() -> None:
    world = full_of_messages()
    client = world.connect()
    subscription = client.subscribe(b"t")
    while (received := client.poll(subscription)) is not None:
        client.ack(subscription, received.tag)

    assert client.session.close_reason is None
    assert client.publish(b"t", b"again") == []


def test_replies_that_are_not_sent_yet_are_counted_as_memory() -> None:
    world = World.create()
    client = world.connect()
    session = client.session
    session.decoder.feed(encoder.ping(1) * 1_000)
    session.advance(world.now)
    size = 1_000 * len(encoder.pong(1))
    assert world.broker.stats.memory_bytes == size

    session.output.take()
    assert world.broker.stats.memory_bytes == size
    session.output.sent()
    assert world.broker.stats.memory_bytes == 0


def test_a_long_message_that_waits_to_be_sent_is_not_copied_and_held_until_it_is() -> None:
    world = World.create()
    client = world.connect()
    subscription = client.subscribe(b"t", 0)
    held = message_bytes(world.broker)
    publisher = world.connect()
    publisher.publish(b"t", bytes(100_000), qos=0)
    publisher.disconnect()
    session = client.session
    session.decoder.feed(encoder.poll(5, subscription))
    session.advance(world.now)
    before = message_bytes(world.broker)
    assert 100_000 < before < 110_000

    frames = session.output.take()
    assert message_bytes(world.broker) == before
    session.output.sent()
    frames.clear()
    assert message_bytes(world.broker) == held


def test_while_memory_is_full_one_reply_at_a_time_is_prepared() -> None:
    world = full_of_messages()
    client = world.connect()
    session = client.session
    world.broker.stats.memory_bytes += 400_000
    session.decoder.feed(encoder.ping(1) * 3)

    assert not session.advance(world.now)
    assert taken(session) == [encoder.pong(1)]
    assert not session.advance(world.now)
    assert taken(session) == [encoder.pong(1)]


def test_a_session_that_ends_counts_nothing_any_more() -> None:
    world = World.create()
    client = world.connect()
    client.session.decoder.feed(encoder.ping(1) * 10)
    client.session.advance(world.now)
    client.session.output.take()
    client.session.decoder.feed(encoder.ping(1) * 10)
    client.session.advance(world.now)

    client.disconnect()

    assert world.broker.stats.memory_bytes == 0
