"""Cut connections in the middle of everything, and see that messages and resources survive it.

Publishers and consumers are cut off again and again: between requests, within a frame, with replies
under way, with deliveries unsettled, by a reset or an orderly end. What a publisher was told is
confirmed is delivered; what a lost consumer held comes to the next one, at once and in its old
place; nothing is delivered twice but for that. In the end the daemon holds nothing for those who
are gone.
"""

from __future__ import annotations

import random
import socket
import struct
import tempfile
from itertools import count
from pathlib import Path
from typing import Final

import attrs
import click
import trio

from blipmq.protocol import encoder
from tools.chaos.connection import Connection
from tools.chaos.daemon import Daemon
from tools.chaos.ledger import Ledger, Source
from tools.chaos.verdict import Report, conclude

TOPICS: Final = ("alpha", "beta")
PUBLISHERS: Final = 6
POLLS: Final = 50
QOS_0: Final = 0.2
RESET: Final = struct.pack("ii", 1, 0)
"""SO_LINGER: closing sends a reset, and throws away what was not sent."""
FORGOTTEN_SECONDS: Final = 30.0


@attrs.define(eq=False)
class Cutting:
    """The load, and the ledger of it."""

    daemon: Daemon
    address: tuple[str, int]
    random: random.Random
    ledger: Ledger = attrs.Factory(lambda: Ledger(grace_seconds=0))
    cuts: int = 0
    _reconnecting: trio.Lock = attrs.Factory(trio.Lock)
    _sources: count[int] = attrs.Factory(lambda: count(1))

    async def publisher(self, topic: str, lives: int) -> None:
        """Publish, and be cut off, so many times."""
        for _ in range(lives):
            source = Source(topic, f"{topic}/{next(self._sources)}")
            connection = await Connection.open(self.address)
            places = count(1)
            for _ in range(self.random.randint(0, 5)):
                burst = self._burst(source, places)
                await connection.publish_each(topic.encode(), burst)
                self.ledger.confirmed(body for _, body in burst)
            await self._cut_while_publishing(connection, source, places)

    def _burst(self, source: Source, places: count[int]) -> list[tuple[int, bytes]]:
        burst = []
        for _ in range(self.random.choice((1, 5, 40))):
            size = self.random.choice((0, 50, 5_000))
            body = b"%s/%d %s" % (source.name.encode(), next(places), b"x" * size)
            qos = int(self.random.random() >= QOS_0)
            self.ledger.sent(source, body, qos)
            burst.append((qos, body))
        return burst

    async def _cut_while_publishing(
        self, connection: Connection, source: Source, places: count[int]
    ) -> None:
        """Send some more, maybe not to its end, and go without waiting for an answer."""
        burst = self._burst(source, places)
        topic = source.topic.encode()
        data = b"".join(encoder.publish(i, q, topic, b) for i, (q, b) in enumerate(burst))
        if self.random.random() < 0.7:
            data = data[: self.random.randrange(len(data) + 1)]
        await connection.send(data)
        await self._cut(connection)

    async def consumer(
        self, topic: str, connection: Connection, subscription: int, published: trio.Event
    ) -> None:
        """Take and accept, and be cut off, until all is published; then take what is left."""
        while not published.is_set():
            held: set[int] = set()
            for _ in range(self.random.randint(0, 4)):
                await self._take(connection, topic, subscription, held, self.random.random())
                await trio.sleep(0.002)
            self.ledger.released(held)
            await connection.send(self._unfinished(subscription))
            connection, subscription = await self._reconnected(connection, topic)
        async with connection:
            while await self._take(connection, topic, subscription, set(), 1.0):
                pass

    async def _reconnected(self, connection: Connection, topic: str) -> tuple[Connection, int]:
        """Cut a consumer off, and come back when the broker knows; one consumer at a time.

        Who comes back before that finds the subscription taken, and gets another one.
        """
        async with self._reconnecting:
            await self._cut(connection)
            await self.daemon.metric_is("blipmq_subscriptions_parked", lambda parked: parked > 0)
            return await self.subscribed(topic)

    async def subscribed(self, topic: str) -> tuple[Connection, int]:
        """A consumer, and its subscription."""
        connection = await Connection.open(self.address)
        return connection, await connection.subscribe(topic.encode())

    async def _take(
        self,
        connection: Connection,
        topic: str,
        subscription: int,
        held: set[int],
        accepting: float,
    ) -> int:
        deliveries = await connection.poll(subscription, POLLS)
        for delivery in deliveries:
            self.ledger.delivered(topic, delivery.tag, delivery.body)
        at_qos_1 = [delivery for delivery in deliveries if delivery.qos]
        held |= {delivery.tag for delivery in at_qos_1}
        chosen = [delivery for delivery in at_qos_1 if self.random.random() < accepting]
        bodies = [delivery.body for delivery in chosen]
        self.ledger.accepting(bodies)
        await connection.accept(subscription, [delivery.tag for delivery in chosen])
        self.ledger.accepted(bodies, trio.current_time())
        held -= {delivery.tag for delivery in chosen}
        return len(deliveries)

    def _unfinished(self, subscription: int) -> bytes:
        """What the broker is in the middle of when the consumer goes; it takes nothing away."""
        return self.random.choice(
            (
                b"",
                encoder.ping(1),
                encoder.poll(1, subscription)[:-1],
                encoder.ack(2**63, subscription),
                encoder.ack(2**63, subscription)[:7],
            )
        )

    async def _cut(self, connection: Connection) -> None:
        self.cuts += 1
        if self.random.random() < 0.5:
            connection.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        await connection.aclose()


async def drill(directory: Path, lives: int, chance: random.Random) -> list[str]:
    """Each publisher lives so many times; what was not as it must be."""
    report = Report()
    async with trio.open_nursery() as nursery:
        daemon = await Daemon.launch(
            nursery,
            directory / "log",
            retry_backoff_ms=600_000,
            max_retries=60_000,
            limits__queue_capacity=1_000_000,
            retention__kept_messages=1_000_000,
        )
        cutting = Cutting(daemon, await daemon.ready(), chance)
        ledger = cutting.ledger
        report.did(
            f"{PUBLISHERS} publishers, each cut off {lives} times, and {len(TOPICS)} consumers"
        )
        await _cut_everybody(cutting, lives)
        ledger.drained(TOPICS)
        report.did(
            f"{cutting.cuts} connections were cut; {ledger.messages} messages sent, "
            f"{ledger.confirmations} confirmed, {ledger.redeliveries} delivered again"
        )
        report.check(not ledger.violations, "every promise was kept")
        await _is_tidy(report, daemon)
        report.check_equal(await daemon.terminate(), 0, "it shuts down with status 0")
    return [*report.violations, *ledger.violations]


async def _cut_everybody(cutting: Cutting, lives: int) -> None:
    published = trio.Event()
    subscribed = [(topic, *await cutting.subscribed(topic)) for topic in TOPICS]
    async with trio.open_nursery() as consumers:
        for topic, connection, subscription in subscribed:
            consumers.start_soon(cutting.consumer, topic, connection, subscription, published)
        async with trio.open_nursery() as publishers:
            for number in range(PUBLISHERS):
                publishers.start_soon(cutting.publisher, TOPICS[number % len(TOPICS)], lives)
        published.set()


async def _is_tidy(report: Report, daemon: Daemon) -> None:
    with trio.move_on_after(FORGOTTEN_SECONDS):
        await daemon.metric_is("blipmq_connections", lambda connections: connections == 0)
    for metric, expected in (
        ("blipmq_connections", 0),
        ("blipmq_messages_inflight", 0),
        ("blipmq_subscriptions", len(TOPICS)),
        ("blipmq_subscriptions_parked", len(TOPICS)),
        ("blipmq_subscription_backlog", 0),
    ):
        report.check_equal(await daemon.metric(metric), expected, f"{metric} is {expected}")


@click.command()
@click.option("--lives", default=60, show_default=True, help="How often each publisher is cut off.")
@click.option("--seed", type=int, help="Repeats the choices of a run, if not its timing.")
def main(lives: int, seed: int | None) -> None:
    """Cut connections in the middle of everything, and see that messages survive it."""
    seed = random.SystemRandom().randrange(2**32) if seed is None else seed
    print(f"disconnects: connections are lost; seed {seed}")
    with tempfile.TemporaryDirectory(prefix="blipmq-disconnects-") as directory:
        chance = random.Random(seed)  # noqa: S311, no secret
        conclude("disconnects", drill, Path(directory), lives, chance)


if __name__ == "__main__":
    main()
