"""nats-py: core NATS, and JetStream with explicit acknowledgements."""

from __future__ import annotations

import asyncio
from typing import Final

import attrs
import nats
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext

from tools.bench.load.driver import Consuming, Publishing, RoundTrips
from tools.bench.load.server import Address
from tools.bench.load.wire import Refused
from tools.bench.load.work import Work
from tools.bench.peers.asyncio_driver import AsyncioDriver, Callbacks
from tools.bench.peers.jetstream import JetStream, consumer_name, stream_name
from tools.bench.peers.nats import NatsCore
from tools.bench.peers.pipelining import publish_all, send_all

_SETTLE_TRIES: Final = 500
_SETTLE_PAUSE_SECONDS: Final = 0.01


async def _connect(address: Address) -> Client:
    client: Client = await nats.connect(f"nats://{address[0]}:{address[1]}")
    return client


@attrs.frozen
class NatsCoreDriver(AsyncioDriver):
    """A callback for each message."""

    name: str = "nats-py core"

    def prepare(self, address: Address, work: Work) -> None:
        NatsCore().prepare(address, work)

    def conclude(self, address: Address, work: Work) -> None:
        """Nothing is left."""

    async def _publish(self, address: Address, publishing: Publishing) -> None:
        client = await _connect(address)
        publishing.go()
        await send_all(publishing, client.publish)
        await client.flush()
        await client.close()

    async def _consume(self, address: Address, consuming: Consuming) -> None:
        client = await _connect(address)
        callbacks = Callbacks()

        async def handle(message: Msg) -> None:
            try:
                if consuming.take(message.data):
                    callbacks.end()
            except Exception as error:  # noqa: BLE001, the library would swallow any
                callbacks.fail(error)

        for topic in consuming.topics:
            await client.subscribe(topic, cb=handle)
        await client.flush()
        consuming.go()
        await callbacks.ended()
        # Whatever was sent before the answer is here now; more would be too much.
        await client.flush()
        callbacks.check()
        await client.close()

    async def _round_trips(self, address: Address, trips: RoundTrips) -> None:
        client = await _connect(address)
        messages = await client.subscribe(trips.topic)
        await client.flush()
        trips.go()
        while not trips.done:
            await client.publish(trips.topic, trips.body())
            trips.took((await messages.next_msg(timeout=None)).data)
        await client.close()


@attrs.frozen
class JetStreamDriver(AsyncioDriver):
    """A push consumer whose callback acknowledges each message."""

    streams: JetStream

    @property
    def name(self) -> str:
        return f"nats-py {self.streams.name}"

    def prepare(self, address: Address, work: Work) -> None:
        self.streams.prepare(address, work)

    def conclude(self, address: Address, work: Work) -> None:
        self.streams.conclude(address, work)

    async def _publish(self, address: Address, publishing: Publishing) -> None:
        client = await _connect(address)
        context = client.jetstream(publish_async_max_pending=publishing.work.window)
        publishing.go()
        await publish_all(publishing, context.publish_async)
        await client.close()

    async def _consume(self, address: Address, consuming: Consuming) -> None:
        client = await _connect(address)
        context = client.jetstream()
        callbacks = Callbacks()

        async def handle(message: Msg) -> None:
            try:
                last = consuming.take(message.data)
                await message.ack()
                if last:
                    callbacks.end()
            except Exception as error:  # noqa: BLE001, the library would swallow any
                callbacks.fail(error)

        [topic] = consuming.work.subscriber_topics(consuming.place)
        stream, consumer = stream_name(topic), consumer_name(consuming.place)
        info = await context.consumer_info(stream, consumer)
        await context.subscribe_bind(stream, info.config, consumer, cb=handle, manual_ack=True)
        await client.flush()
        consuming.go()
        await callbacks.ended()
        callbacks.check()
        await _settled(context, stream, consumer)
        await client.close()

    async def _round_trips(self, address: Address, trips: RoundTrips) -> None:
        client = await _connect(address)
        context = client.jetstream()
        stream, consumer = stream_name(0), consumer_name(0)
        info = await context.consumer_info(stream, consumer)
        messages = await context.subscribe_bind(stream, info.config, consumer)
        await client.flush()
        trips.go()
        while not trips.done:
            await context.publish(trips.topic, trips.body())
            message = await messages.next_msg(timeout=None)
            trips.took(message.data)
            await message.ack()
        await client.close()


async def _settled(context: JetStreamContext, stream: str, consumer: str) -> None:
    """Return when the server has dealt with every acknowledgement. Raises Refused."""
    for _ in range(_SETTLE_TRIES):
        info = await context.consumer_info(stream, consumer)
        if not (info.num_pending or info.num_ack_pending):
            return
        await asyncio.sleep(_SETTLE_PAUSE_SECONDS)
    raise Refused("the server is still waiting for acknowledgements")
