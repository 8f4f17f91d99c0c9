"""aio-pika: queues of RabbitMQ with publisher confirms, a callback that acknowledges."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine

import aio_pika
import attrs
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractIncomingMessage

from tools.bench.load.driver import Consuming, Publishing, RoundTrips
from tools.bench.load.server import Address
from tools.bench.load.work import Work
from tools.bench.peers.amqp_wire import EXCHANGE
from tools.bench.peers.asyncio_driver import AsyncioDriver, Callbacks
from tools.bench.peers.pipelining import publish_all
from tools.bench.peers.rabbitmq import PREFETCH, RabbitQueues, queue_name


async def _connect(address: Address) -> tuple[AbstractConnection, AbstractChannel]:
    connection = await aio_pika.connect(f"amqp://guest:guest@{address[0]}:{address[1]}/")
    channel = await connection.channel(publisher_confirms=True)
    await channel.set_qos(prefetch_count=PREFETCH)
    return connection, channel


@attrs.frozen
class AioPikaDriver(AsyncioDriver):
    """As many publishes at once as the window has room for, each awaited by a task."""

    queues: RabbitQueues

    @property
    def name(self) -> str:
        return f"aio-pika {self.queues.kind}"

    def prepare(self, address: Address, work: Work) -> None:
        self.queues.prepare(address, work)

    def conclude(self, address: Address, work: Work) -> None:
        self.queues.conclude(address, work)

    def _message(self, body: bytes) -> aio_pika.Message:
        persistent = aio_pika.DeliveryMode.PERSISTENT
        transient = aio_pika.DeliveryMode.NOT_PERSISTENT
        mode = persistent if self.queues.persistent else transient
        return aio_pika.Message(body, delivery_mode=mode)

    async def _publish(self, address: Address, publishing: Publishing) -> None:
        connection, channel = await _connect(address)
        exchange = await channel.get_exchange(EXCHANGE.decode())

        async def send(topic: str, body: bytes) -> asyncio.Future[object]:
            publish: Coroutine[object, object, object]
            publish = exchange.publish(self._message(body), topic)
            return asyncio.create_task(publish)

        publishing.go()
        await publish_all(publishing, send)
        await connection.close()

    async def _consume(self, address: Address, consuming: Consuming) -> None:
        connection, channel = await _connect(address)
        callbacks = Callbacks()

        async def handle(message: AbstractIncomingMessage) -> None:
            try:
                last = consuming.take(message.body)
                await message.ack()
                if last:
                    callbacks.end()
            except Exception as error:  # noqa: BLE001, the library would swallow any
                callbacks.fail(error)

        queue = await channel.get_queue(queue_name(consuming.place).decode())
        await queue.consume(handle)
        consuming.go()
        await callbacks.ended()
        callbacks.check()
        # The server answers when it has dealt with the acknowledgements before.
        await channel.set_qos(prefetch_count=PREFETCH)
        await connection.close()

    async def _round_trips(self, address: Address, trips: RoundTrips) -> None:
        connection, channel = await _connect(address)
        exchange = await channel.get_exchange(EXCHANGE.decode())
        queue = await channel.get_queue(queue_name(0).decode())
        async with queue.iterator() as messages:
            trips.go()
            while not trips.done:
                await exchange.publish(self._message(trips.body()), trips.topic)
                message = await anext(messages)
                trips.took(message.body)
                await message.ack()
        await connection.close()
