"""Publishers and consumers on connections that break all the time."""

from __future__ import annotations

import random
from functools import partial

import pytest
import trio
from trio.testing import MockClock

from blipmq import Client, open_client
from blipmq.testing import FaultyStream, InProcessBroker, open_broker

pytestmark = pytest.mark.usefixtures("carrier")

MESSAGES = 60


async def publish(client: Client, first: int) -> None:
    async with client.open_publisher("demo", window=16) as publisher:
        for number in range(first, first + MESSAGES):
            await publisher.send(b"%d" % number)
            if number % 7 == 0:
                await trio.sleep(0.2)


async def consume(
    client: Client, received: list[int], chance: random.Random, done: trio.Event
) -> None:
    async with client.subscribe("demo", name="work", prefetch=8, max_attempts=0) as messages:
        async for message in messages:
            try:
                async with message:
                    if chance.random() < 0.1:
                        await trio.sleep(0.5)
                    if chance.random() < 0.05:
                        raise KeyError
                    received.append(int(message.body))
            except KeyError:
                continue
            if len(set(received)) == 2 * MESSAGES:
                done.set()


async def break_connections(broker: InProcessBroker, chance: random.Random) -> None:
    while True:
        await trio.sleep(chance.uniform(0.1, 3))
        await broker.hang_up()


@pytest.mark.parametrize("seed", range(12))
async def test_every_message_is_published_once_and_received(
    autojump_clock: MockClock, seed: int
) -> None:
    chance = random.Random(seed)  # noqa: S311
    received: list[int] = []
    done = trio.Event()

    def wrap(stream: trio.abc.Stream) -> trio.abc.Stream:
        return FaultyStream(
            stream,
            part_bytes=chance.choice([None, 11, 100]),
            delay=chance.choice([0.0, 0.01]),
            cut_sent=chance.choice([None, chance.randrange(200, 3000)]),
            cut_received=chance.choice([None, chance.randrange(300, 3000)]),
        )

    async with open_broker() as broker, trio.open_nursery() as nursery:
        opening = partial(
            open_client,
            "blipmq://broker",
            api_key=broker.api_key,
            connect=broker.connect,
            entropy=chance.randbytes,
            reconnect_timeout=3600,
            full_window_timeout=3600,
        )
        async with opening() as one, opening() as other, opening() as third:
            broker.wrap = wrap
            nursery.start_soon(break_connections, broker, chance)
            nursery.start_soon(consume, one, received, chance, done)
            nursery.start_soon(consume, other, received, chance, done)
            async with trio.open_nursery() as publishers:
                publishers.start_soon(publish, third, 0)
                publishers.start_soon(publish, third, MESSAGES)
            await done.wait()
            nursery.cancel_scope.cancel()
            broker.wrap = lambda stream: stream
            with trio.CancelScope(shield=True):  # leave in peace, so that nothing is in doubt
                await broker.hang_up()
                await trio.sleep(30)
        assert broker.stats.published[1] == 2 * MESSAGES
