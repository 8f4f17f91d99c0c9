"""Every call, cancelled at each of its stops, leaves the client usable and loses no message."""

from __future__ import annotations

from functools import partial

import pytest
import trio
from trio.testing import MockClock

from blipmq import Client, Message, Subscription
from blipmq.protocol.frames import SUBSCRIBE
from tests.client.cancelling import cancelled_at
from tests.client.fake_broker import FakeBroker, connected
from tests.client.streams import Cut

BODIES = [b"%d" % number for number in range(8)]
STEPS_MAX = 1000

pytestmark = pytest.mark.parametrize("going_on", [False, True])


@pytest.mark.parametrize("qos", [0, 1])
async def test_publish(
    nursery: trio.Nursery, autojump_clock: MockClock, going_on: bool, qos: int
) -> None:
    for step in range(STEPS_MAX):
        broker = FakeBroker()
        async with connected(broker, nursery, lambda stream: Cut(stream, 5)) as client:
            before, cancelled, after = b"before", b"cancelled" * 3, b"after"
            await client.publish("demo", before)
            publish = partial(client.publish, "demo", cancelled, qos=qos)
            reached = await cancelled_at(step, publish, going_on=going_on)
            await client.publish("demo", after)
            assert broker.bodies() in ([before, after], [before, cancelled, after])
        if not reached:
            assert broker.bodies() == [before, cancelled, after]
            assert step > 1
            return
    pytest.fail("never done")


async def test_subscribe(nursery: trio.Nursery, autojump_clock: MockClock, going_on: bool) -> None:
    for step in range(STEPS_MAX):
        broker = FakeBroker()
        async with connected(broker, nursery, lambda stream: Cut(stream, 5)) as client:

            async def subscribe(client: Client = client) -> None:
                async with client.subscribe("demo"):
                    pass

            reached = await cancelled_at(step, subscribe, going_on=going_on)
            await client.ping()
            subscribed = broker.count(SUBSCRIBE)
            async with client.subscribe("demo") as messages:
                assert broker.count(SUBSCRIBE) == max(subscribed, 1)
                await client.publish("demo", b"hello")
                assert (await messages.receive()).body == b"hello"
        if not reached:
            assert step > 1
            return
    pytest.fail("never done")


async def test_a_consumer(nursery: trio.Nursery, autojump_clock: MockClock, going_on: bool) -> None:
    for step in range(STEPS_MAX):
        broker = FakeBroker()
        got: list[Message] = []

        async def consume(client: Client, got: list[Message] = got) -> None:
            async with client.subscribe("demo") as messages:
                while len(got) < len(BODIES):
                    got.append(await messages.receive())
                    await got[-1].accept()

        async with connected(broker, nursery) as client:
            async with client.subscribe("demo"):
                broker.put(b"demo", *BODIES)
            reached = await cancelled_at(step, partial(consume, client), going_on=going_on)
            for message in got:
                await message.accept()
            await consume(client)
            assert [message.body for message in got] == BODIES
        assert broker.accepted() == list(range(1, len(BODIES) + 1))
        assert client.refusals.accepts == 0
        if not reached:
            assert step > len(BODIES)
            return
    pytest.fail("never done")


async def test_a_consumer_that_has_to_wait(
    nursery: trio.Nursery, autojump_clock: MockClock, going_on: bool
) -> None:
    for step in range(20):
        broker = FakeBroker()
        got: list[Message] = []

        async def receive(client: Client, got: list[Message] = got) -> None:
            async with client.subscribe("demo") as messages:
                got.append(await messages.receive())

        async def put(broker: FakeBroker = broker) -> None:
            await trio.sleep(1)
            broker.put(b"demo", b"hello")

        async with connected(broker, nursery) as client:
            async with client.subscribe("demo"):
                pass
            nursery.start_soon(put)
            reached = await cancelled_at(step, partial(receive, client), going_on=going_on)
            if not got:
                await receive(client)
            assert [message.body for message in got] == [b"hello"]
        if not reached:
            assert step > 1
            return
    pytest.fail("never done")


async def test_ping_and_the_block_itself(
    nursery: trio.Nursery, autojump_clock: MockClock, going_on: bool
) -> None:
    for step in range(STEPS_MAX):
        broker = FakeBroker()
        finished: list[bool] = []

        async def session(broker: FakeBroker = broker, finished: list[bool] = finished) -> None:
            async with connected(broker, nursery, lambda stream: Cut(stream, 5)) as client:
                await client.ping()
                await client.publish("demo", b"hello", qos=0)
                finished.append(True)

        reached = await cancelled_at(step, session, going_on=going_on)
        assert broker.bodies() == [b"hello"] * len(finished)
        if not reached:
            assert finished
            return
    pytest.fail("never done")


async def test_accept(nursery: trio.Nursery, autojump_clock: MockClock, going_on: bool) -> None:
    for step in range(STEPS_MAX):
        broker = FakeBroker()
        completed: list[bool] = []

        async def accept(message: Message, completed: list[bool] = completed) -> None:
            await message.accept()
            completed.append(True)

        async with connected(broker, nursery) as client, client.subscribe("demo") as messages:
            broker.put(b"demo", b"hello")
            message = await messages.receive()
            reached = await cancelled_at(step, partial(accept, message), going_on=going_on)
            await client.ping()
            assert step or not completed
            assert len(broker.accepted()) == len(completed)
            await message.accept()
        assert broker.accepted() == [1]
        if not reached:
            return
    pytest.fail("never done")


async def test_receive_of_a_message_that_waits(
    nursery: trio.Nursery, autojump_clock: MockClock, going_on: bool
) -> None:
    for step in range(STEPS_MAX):
        broker = FakeBroker()
        got: list[bytes] = []

        async def receive(messages: Subscription, got: list[bytes] = got) -> None:
            got.append((await messages.receive()).body)

        async with connected(broker, nursery) as client, client.subscribe("demo") as messages:
            broker.put(b"demo", *BODIES)
            for _ in range(4):
                await receive(messages)
            reached = await cancelled_at(step, partial(receive, messages), going_on=going_on)
            assert step or len(got) == 4
            while len(got) < len(BODIES):
                await receive(messages)
            assert got == BODIES
        if not reached:
            return
    pytest.fail("never done")
