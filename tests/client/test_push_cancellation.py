"""On version 2, too, every call cancelled at each of its stops loses no message."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from functools import partial

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from blipmq import Client, Message, Subscription
from blipmq.testing import FaultyStream, InProcessBroker, open_broker
from tests.client.cancelling import cancelled_at

BODIES = [b"%d" % number for number in range(8)]
STEPS_MAX = 400

pytestmark = pytest.mark.parametrize("going_on", [False, True])


def in_parts(stream: trio.abc.Stream) -> trio.abc.Stream:
    return FaultyStream(stream, part_bytes=7)


async def received(client: Client, count: int) -> list[bytes]:
    """So many messages of the subscription that all of these tests use, accepted."""
    async with client.subscribe("demo", name="work") as messages:
        found = []
        for _ in range(count):
            async with await messages.receive() as message:
                found.append(message.body)
        return found


async def nothing_left(broker: InProcessBroker, client: Client) -> None:
    """Nothing is unsettled, and nothing comes any more."""
    await client.ping()
    assert broker.stats.inflight == 0
    async with client.subscribe("demo", name="work") as messages:
        with trio.move_on_after(100) as scope:
            await messages.receive()
    assert scope.cancelled_caught


class Sweep:
    """Steps from 0 on, until a call was not reached by its cancellation any more."""

    def __init__(self, going_on: bool) -> None:
        self.going_on = going_on
        self.step = 0
        self.over = False

    def __iter__(self) -> Iterator[int]:
        while not self.over:
            assert self.step < STEPS_MAX, "never done"
            yield self.step
            self.step += 1

    async def cancel(self, call: Callable[[], Awaitable[None]]) -> None:
        self.over = not await cancelled_at(self.step, call, going_on=self.going_on)


@pytest.mark.parametrize("qos", [0, 1])
async def test_publish(autojump_clock: MockClock, going_on: bool, qos: int) -> None:
    sweep = Sweep(going_on)
    for _ in sweep:
        async with open_broker() as broker, broker.client() as consumer:
            broker.wrap = in_parts
            async with consumer.subscribe("demo", name="work") as messages:
                async with broker.client() as client:
                    await client.publish("demo", b"before")
                    await sweep.cancel(partial(client.publish, "demo", b"cancelled", qos=qos))
                    await client.publish("demo", b"after")
                found: list[bytes] = []
                while b"after" not in found:
                    async with await messages.receive() as message:
                        found.append(message.body)
            assert found in ([b"before", b"after"], [b"before", b"cancelled", b"after"])
    assert sweep.step > 1


async def test_a_publisher(autojump_clock: MockClock, going_on: bool) -> None:
    sweep = Sweep(going_on)
    for _ in sweep:
        sent: list[bytes] = []

        async def publish(client: Client, sent: list[bytes] = sent) -> None:
            async with client.open_publisher("demo", window=3) as publisher:
                for body in BODIES:
                    await publisher.send(body)
                    sent.append(body)

        async with open_broker() as broker:
            async with broker.client() as client:
                await sweep.cancel(partial(publish, client))
                await client.publish("demo", b"after")
            async with broker.client() as consumer:
                found = await received(consumer, len(sent) + 1)
                await nothing_left(broker, consumer)
            assert found == [*sent, b"after"]
    assert sweep.step > 1


async def test_flush(autojump_clock: MockClock, going_on: bool) -> None:
    sweep = Sweep(going_on)
    for _ in sweep:
        async with open_broker() as broker:
            async with broker.client() as client, client.open_publisher("demo") as publisher:
                for body in BODIES:
                    await publisher.send(body)
                await sweep.cancel(publisher.flush)
            async with broker.client() as consumer:
                assert await received(consumer, len(BODIES)) == BODIES
    assert sweep.step > 0


async def test_subscribe(autojump_clock: MockClock, going_on: bool) -> None:
    sweep = Sweep(going_on)
    for _ in sweep:

        async def subscribe(client: Client) -> None:
            async with client.subscribe("demo", name="work"):
                pass

        async with open_broker() as broker:
            broker.wrap = in_parts
            async with broker.client() as client:
                await sweep.cancel(partial(subscribe, client))
                await client.publish("demo", b"hello")
                assert await received(client, 1) == [b"hello"]
                await nothing_left(broker, client)
    assert sweep.step > 1


async def test_a_consumer(autojump_clock: MockClock, going_on: bool) -> None:
    sweep = Sweep(going_on)
    for _ in sweep:
        done: list[bytes] = []

        async def consume(client: Client, done: list[bytes] = done) -> None:
            async with client.subscribe("demo", name="work", prefetch=3) as messages:
                async for message in messages:
                    async with message:
                        await trio.lowlevel.checkpoint()
                        done.append(message.body)
                    if len(done) == len(BODIES):
                        return

        async with open_broker() as broker, broker.client() as client:
            await received(client, 0)
            for body in BODIES:
                await client.publish("demo", body)
            await sweep.cancel(partial(consume, client))
            rest = await received(client, len(BODIES) - len(done))
            assert sorted(done + rest) == BODIES
            await nothing_left(broker, client)
    assert sweep.step > len(BODIES)


@pytest.mark.parametrize("call", ["accept", "retry", "reject", "release", "extend", "block"])
async def test_settling(autojump_clock: MockClock, going_on: bool, call: str) -> None:
    sweep = Sweep(going_on)
    for _ in sweep:
        completed: list[bool] = []

        async def settle(message: Message, completed: list[bool] = completed) -> None:
            if call == "block":
                async with message:
                    completed.append(True)
            else:
                await getattr(message, call)()
                completed.append(True)

        async with open_broker() as broker, broker.client() as client:
            async with client.subscribe("demo", name="work") as messages:
                await client.publish("demo", b"hello")
                await sweep.cancel(partial(settle, await messages.receive()))
            gone = bool(completed) and call in ("accept", "reject", "block")
            assert await received(client, 0 if gone else 1) == [b"hello"][gone:]
            await nothing_left(broker, client)


async def test_receive_of_a_message_that_waits(autojump_clock: MockClock, going_on: bool) -> None:
    sweep = Sweep(going_on)
    for _ in sweep:
        found: list[bytes] = []

        async def receive(messages: Subscription, found: list[bytes] = found) -> None:
            found.append((await messages.receive()).body)

        async with open_broker() as broker, broker.client() as client:
            async with client.subscribe("demo") as messages:
                for body in BODIES:
                    await client.publish("demo", body)
                await receive(messages)
                await sweep.cancel(partial(receive, messages))
                while len(found) < len(BODIES):
                    await receive(messages)
            assert found == BODIES


async def test_receive_of_one_that_is_to_come(autojump_clock: MockClock, going_on: bool) -> None:
    sweep = Sweep(going_on)
    for _ in sweep:
        found: list[bytes] = []

        async def receive(messages: Subscription, found: list[bytes] = found) -> None:
            found.append((await messages.receive()).body)

        async def publish_later(client: Client) -> None:
            await trio.sleep(1)
            await client.publish("demo", b"hello")

        async with open_broker() as broker, broker.client() as client:
            async with client.subscribe("demo") as messages, trio.open_nursery() as nursery:
                nursery.start_soon(publish_later, client)
                await sweep.cancel(partial(receive, messages))
                if not found:
                    await receive(messages)
            assert found == [b"hello"]
    assert sweep.step > 1


async def test_a_batch(autojump_clock: MockClock, going_on: bool) -> None:
    sweep = Sweep(going_on)
    for _ in sweep:
        done: list[bytes] = []

        async def work(messages: Subscription, done: list[bytes] = done) -> None:
            async with await messages.batch(5, within=1) as batch:
                await trio.lowlevel.checkpoint()
                done.extend(message.body for message in batch)

        async with open_broker() as broker, broker.client() as client:
            async with client.subscribe("demo", name="work") as messages:
                for body in BODIES:
                    await client.publish("demo", body)
                await sweep.cancel(partial(work, messages))
            rest = await received(client, len(BODIES) - len(done))
            assert sorted(done + rest) == BODIES
            await nothing_left(broker, client)
    assert sweep.step > 1


async def test_request(autojump_clock: MockClock, going_on: bool) -> None:
    sweep = Sweep(going_on)
    for _ in sweep:

        async def respond(
            client: Client, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
        ) -> None:
            async with client.subscribe("questions") as messages:
                task_status.started()
                async for message in messages:
                    async with message:
                        await message.reply(message.body)

        async def request(client: Client, body: bytes) -> None:
            assert (await client.request("questions", body, timeout=1)).body == body

        async with (
            open_broker() as broker,
            broker.client() as client,
            broker.client() as other,
            trio.open_nursery() as nursery,
        ):
            await nursery.start(respond, other)
            await sweep.cancel(partial(request, client, b"cancelled"))
            await request(client, b"after")
            nursery.cancel_scope.cancel()
    assert sweep.step > 1


async def test_delete_subscription_and_ping(autojump_clock: MockClock, going_on: bool) -> None:
    for name in ("delete", "ping"):
        sweep = Sweep(going_on)
        for _ in sweep:
            async with open_broker() as broker, broker.client() as client:
                await received(client, 0)
                if name == "ping":
                    await sweep.cancel(client.ping)
                else:
                    await sweep.cancel(partial(client.delete_subscription, "demo", "work"))
                await client.publish("demo", b"hello")
                assert await received(client, 1) == [b"hello"]
        assert sweep.step > 0


async def test_the_block_itself(autojump_clock: MockClock, going_on: bool) -> None:
    sweep = Sweep(going_on)
    finished: list[bool] = []
    for _ in sweep:
        finished = []

        async def session(broker: InProcessBroker, finished: list[bool] = finished) -> None:
            async with broker.client() as client:
                await client.publish("demo", b"hello", qos=0)
                finished.append(True)

        async with (
            open_broker() as broker,
            broker.client() as consumer,
            consumer.subscribe("demo", qos=0) as messages,
        ):
            broker.wrap = in_parts
            await sweep.cancel(partial(session, broker))
            for _ in finished:
                assert (await messages.receive()).body == b"hello"
    assert finished


async def test_every_call_while_the_connection_is_down(
    autojump_clock: MockClock, going_on: bool
) -> None:
    sweep = Sweep(going_on)
    for _ in sweep:

        async def use(client: Client) -> None:
            await client.ping()
            async with client.subscribe("other"):
                await client.publish("demo", b"while it was down")

        async def come_back(broker: InProcessBroker) -> None:
            await trio.sleep(1)
            broker.reachable = True

        async with (
            open_broker() as broker,
            trio.open_nursery() as nursery,
            broker.client() as client,
        ):
            await received(client, 0)
            broker.reachable = False
            await broker.hang_up()
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(come_back, broker)
            await sweep.cancel(partial(use, client))
            broker.reachable = True
            await client.publish("demo", b"after")
            found = await received(client, 1)
            if found == [b"while it was down"]:
                found = await received(client, 1)
            assert found == [b"after"]
    assert sweep.step > 1
