"""The client library under load: lists are published, a handler is called for each message."""

from __future__ import annotations

import time
from contextlib import AsyncExitStack
from itertools import groupby
from operator import itemgetter

import attrs
import trio

import blipmq
from tools.bench.blipmq.push import PushProtocol
from tools.bench.load.driver import Consuming, Publishing, RoundTrips
from tools.bench.load.server import Address
from tools.bench.load.work import Miscounted, Work


@attrs.frozen
class LibraryDriver:
    """Named subscriptions at QoS 1, one for each subscriber and topic."""

    api_key: str
    prefetch: int | None = None
    """None: as the library has it."""
    name: str = "blipmq library"

    def prepare(self, address: Address, work: Work) -> None:
        PushProtocol(self.api_key).prepare(address, work)

    def conclude(self, address: Address, work: Work) -> None:
        PushProtocol(self.api_key).conclude(address, work)

    def publish(self, address: Address, publishing: Publishing) -> None:
        trio.run(self._publish, address, publishing)

    def consume(self, address: Address, consuming: Consuming) -> None:
        trio.run(self._consume, address, consuming)

    def round_trips(self, address: Address, trips: RoundTrips) -> None:
        trio.run(self._round_trips, address, trips)

    async def _publish(self, address: Address, publishing: Publishing) -> None:
        work = publishing.work
        async with blipmq.open_client(_url(address), api_key=self.api_key) as client:
            publishing.go()
            if work.guarantee and work.window == 1:
                await _publish_one_by_one(client, publishing)
                return
            # Publishers bound what is not confirmed themselves.
            publishing.keep_no_window()
            window = max(1, work.window // len(publishing.topics))
            async with AsyncExitStack() as stack:
                publishers: dict[str, blipmq.Publisher] = {}
                for topic in publishing.topics:
                    publisher = client.open_publisher(topic, qos=int(work.guarantee), window=window)
                    publishers[topic] = await stack.enter_async_context(publisher)
                while not publishing.done:
                    messages = publishing.next()
                    for topic, together in groupby(messages, itemgetter(0)):
                        await publishers[topic].send_many([body for _, body in together])
                    if not messages:
                        await trio.sleep(publishing.pause_seconds())
                for publisher in publishers.values():
                    await publisher.flush()
            publishing.confirm(publishing.sent)

    async def _consume(self, address: Address, consuming: Consuming) -> None:
        work = consuming.work
        finished = trio.Event()
        async with (
            blipmq.open_client(_url(address), api_key=self.api_key) as client,
            AsyncExitStack() as stack,
        ):
            subscriptions = [
                await stack.enter_async_context(
                    client.subscribe(
                        topic,
                        qos=int(work.guarantee),
                        name=consuming.name if work.guarantee else None,
                        prefetch=self.prefetch,
                    )
                )
                for topic in consuming.topics
            ]
            consuming.go()
            handle = _handle_acknowledging if work.guarantee else _handle
            async with trio.open_nursery() as nursery:
                for subscription in subscriptions:
                    nursery.start_soon(handle, subscription, consuming, finished)
                if not consuming.done:
                    await finished.wait()
                # Whatever was sent before the answer is here now; more would be too much.
                await client.ping()
                nursery.cancel_scope.cancel()

    async def _round_trips(self, address: Address, trips: RoundTrips) -> None:
        qos = int(trips.work.guarantee)
        async with (
            blipmq.open_client(_url(address), api_key=self.api_key) as client,
            client.subscribe(trips.topic, qos=qos, name="bench-0" if qos else None) as messages,
        ):
            trips.go()
            while not trips.done:
                await client.publish(trips.topic, trips.body(), qos=qos)
                message = await messages.receive()
                trips.took(message.body)
                if qos:
                    await message.accept()


async def _publish_one_by_one(client: blipmq.Client, publishing: Publishing) -> None:
    """Wait for each confirm before the next message."""
    while not publishing.done:
        messages = publishing.next()
        for topic, body in messages:
            sent_ns = time.monotonic_ns()
            await client.publish(topic, body, qos=1)
            publishing.confirm(1, sent_ns)
        if not messages:
            await trio.sleep(publishing.pause_seconds())


async def _handle(
    subscription: blipmq.Subscription, consuming: Consuming, finished: trio.Event
) -> None:
    take = consuming.take
    async for message in subscription:
        if take(message.body):
            finished.set()
    raise Miscounted("a subscription has ended")


async def _handle_acknowledging(
    subscription: blipmq.Subscription, consuming: Consuming, finished: trio.Event
) -> None:
    take = consuming.take
    async for message in subscription:
        async with message:
            last = take(message.body)
        if last:
            finished.set()
    raise Miscounted("a subscription has ended")


def _url(address: Address) -> str:
    return f"blipmq://{address[0]}:{address[1]}"
