from __future__ import annotations

from collections.abc import Callable

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from blipmq import Client, ConnectionLost
from blipmq.errors import FramingError
from blipmq.protocol import encoder
from blipmq.protocol.frames import AUTH, HELLO, PING, POLL, SUBSCRIBE, Frame
from tests.client.fake_broker import FakeBroker, connected
from tests.client.streams import Breaking, Cut

NO_ID = 2**64 - 1
Answer = Callable[[int], bytes]


def answering(type_: int, answer: Answer) -> Callable[[Frame], bytes | None]:
    """Answers frames of one type, given their correlation id, and leaves the others."""
    return lambda frame: answer(frame.correlation_id) if frame.type == type_ else None


async def talk(broker: FakeBroker, client: Client) -> None:
    """A bit of everything, ending with an acceptance."""
    await client.publish("demo", b"kept by nobody", qos=0)
    async with client.subscribe("demo", qos=1) as messages:
        await client.publish("demo", b"one", qos=1)
        broker.put(b"demo", b"two", b"three")
        await client.publish("demo", b"four", qos=0)
        for _ in range(4):
            message = await messages.receive()
            await message.accept()
    await client.ping()
    async with client.subscribe("demo", qos=1) as messages:
        await client.publish("demo", b"five", qos=1)
        message = await messages.receive()
        await message.accept()


@pytest.mark.parametrize("size", range(1, 40))
async def test_frames_may_be_cut_anywhere(
    nursery: trio.Nursery, autojump_clock: MockClock, size: int
) -> None:
    broker = FakeBroker()
    async with connected(broker, nursery, lambda stream: Cut(stream, size)) as client:
        await talk(broker, client)
    assert broker.accepted() == [2, 3, 4, 6]


@pytest.mark.parametrize("way", ["received", "sent"])
async def test_a_connection_that_ends_at_any_byte_raises_unless_all_was_done(
    nursery: trio.Nursery, autojump_clock: MockClock, way: str
) -> None:
    at = whole_in_a_row = 0
    while whole_in_a_row < 50:  # no two sessions are equally long
        broken = Breaking(**{f"{way}_bytes": at})
        broker = FakeBroker()
        try:
            with trio.fail_after(5):
                async with connected(broker, nursery, broken.around) as client:
                    await talk(broker, client)
        except ConnectionLost:
            assert broken.broke
            whole_in_a_row = 0
        else:
            assert broker.accepted() == [2, 3, 4, 6]
            whole_in_a_row += 1
        at += 1
    assert at > 200


@pytest.mark.parametrize(
    ("unasked", "text"),
    [
        (bytes(4), "a frame of length 0"),
        (encoder.frame(0x0A, 1), "a frame of unknown type 0x0a"),
        (encoder.frame(0x11, 1), "a frame of unknown type 0x11"),
        (encoder.hello(1, 1), "a HELLO"),
        (encoder.poll(1, 1), "a POLL"),
        (encoder.pong(NO_ID), "PONG to a request that does not wait for one"),
        (encoder.ack(1, 1), "ACK to a request that does not wait for one"),
        (encoder.frame(0x05, 1, b"1234"), "a malformed ACK"),
        (encoder.frame(0x06, 1, b"123"), "a malformed NACK"),
        (encoder.frame(0x06, 1, b"\x01\x90\x00\x05text"), "a malformed NACK"),
        (encoder.publish(1, 1, b"demo", b""), "a message that nothing asked for"),
    ],
)
async def test_a_broker_that_breaks_the_protocol_is_left(
    nursery: trio.Nursery, autojump_clock: MockClock, unasked: bytes, text: str
) -> None:
    broker = FakeBroker()
    async with connected(broker, nursery) as client:
        await broker.say(unasked)
        await wait_all_tasks_blocked()
        with pytest.raises(ConnectionLost) as caught:
            await client.ping()
    assert str(caught.value) == f"fake does not keep to the protocol: it sent {text}"
    assert isinstance(caught.value.__cause__, FramingError)


@pytest.mark.parametrize(
    ("asked", "answer", "text"),
    [
        (PING, encoder.ack, "ACK where PONG was due"),
        (SUBSCRIBE, encoder.pong, "PONG where ACK was due"),
        (POLL, lambda _: encoder.publish(1, 1, b"t", b"") * 2, "more messages than POLLs"),
        (POLL, lambda _: encoder.publish(7, 0, b"t", b""), "a QoS 0 message for a POLL that is"),
        (POLL, lambda _: encoder.frame(0x03, 1, b"\x01\x00"), "a PUBLISH without a topic"),
        (POLL, lambda _: encoder.frame(0x03, 1, b"\x01\x00\x02t"), "a malformed PUBLISH"),
        (POLL, lambda _: encoder.frame(0x03, 1, b"\x02\x00\x01t"), "a malformed PUBLISH"),
    ],
)
async def test_an_answer_that_does_not_fit_ends_the_connection(
    nursery: trio.Nursery, autojump_clock: MockClock, asked: int, answer: Answer, text: str
) -> None:
    broker = FakeBroker()

    async def use(client: Client) -> None:
        async with client.subscribe("t") as messages:
            if asked == PING:
                await client.ping()
            await messages.receive()

    async with connected(broker, nursery) as client:
        broker.answer = answering(asked, answer)
        with pytest.raises(ConnectionLost, match=text):
            await use(client)


async def test_answers_to_a_publish_or_a_barrier_that_do_not_fit_end_the_connection(
    nursery: trio.Nursery,
    autojump_clock: MockClock,
) -> None:
    answers: list[tuple[Answer, str]] = [
        (encoder.ack, "ACK to a PING"),
        (lambda id_: encoder.nack(id_, 400, "no"), "a NACK to a barrier: no"),
        (lambda id_: encoder.ack(id_ - 1), "ACK to a PUBLISH"),
    ]
    for answer, text in answers:
        broker = FakeBroker()
        broker.answer = answering(PING, answer)
        async with connected(broker, nursery) as client:
            with pytest.raises(ConnectionLost, match=text):
                await client.publish("t", b"")


async def test_a_broker_that_breaks_the_protocol_is_hung_up_on_at_once(
    nursery: trio.Nursery,
    autojump_clock: MockClock,
) -> None:
    broker = FakeBroker()
    async with connected(broker, nursery):
        assert broker.serving == 1
        await broker.say(bytes(4))
        await wait_all_tasks_blocked()
        assert broker.serving == 0


async def test_each_call_on_a_lost_connection_raises_an_error_of_its_own(
    nursery: trio.Nursery,
    autojump_clock: MockClock,
) -> None:
    broker = FakeBroker()
    async with connected(broker, nursery) as client:
        await broker.hang_up()
        await wait_all_tasks_blocked()
        with pytest.raises(ConnectionLost) as first:
            await client.ping()
        with pytest.raises(ConnectionLost) as second:
            await client.ping()
        assert first.value is not second.value
        assert str(first.value) == str(second.value)


async def test_a_broker_that_hangs_up_during_the_handshake_is_lost(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    for asked in (HELLO, AUTH):
        broker = FakeBroker()
        broker.answer = answering(asked, lambda _: bytes(4))
        with pytest.raises(ConnectionLost, match="a frame of length 0"):
            async with connected(broker, nursery):
                pytest.fail("connected")
