"""Kill a daemon again and again while it is busy, and check that it keeps its promises.

Every round starts a daemon on the same log, takes all that it holds, puts it under load from
publishers and consumers, and ends it with `kill -9` at a random moment; some rounds kill it while
it is still recovering. The rounds take the fsync policies in turn; segments are of many sizes, so
that they fill and are dropped all the while. Publishers mix QoS 0 and QoS 1 on several topics.
Checked are, of protocol version 1:

- a message that was confirmed, or delivered once, and not accepted is there after the restart;
- a message that was accepted does not come back, unless that was within 100 ms of the kill, or of
  the moment since when the log had committed nothing, because the disk kept it waiting;
- a message is delivered again only after a kill, and one of QoS 0 never is;
- first deliveries of a topic come in order, and so do those of every publisher, QoS 0 and QoS 1
  together; what is lost of the unconfirmed messages of a connection are its last ones;
- a delivery tag stays with its message and is never given to another;
- a subscription that was parked is taken over under its id.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator
from contextlib import AsyncExitStack, suppress
from itertools import count, cycle, islice
from pathlib import Path
from typing import Final

import attrs
import click
import trio

from tools.chaos.connection import Connection, Lost
from tools.chaos.daemon import Daemon
from tools.chaos.ledger import Ledger, Source
from tools.chaos.verdict import conclude

TOPICS: Final = ("alpha", "beta", "gamma")
KEPT_TOPIC: Final = "kept"
"""Nobody subscribes to it before the end."""
PUBLISHERS_PER_TOPIC: Final = 2
POLICIES: Final = ("always", "every_n:64", "interval_ms:50", "none")
SEGMENT_BYTES: Final = (16_384, 65_536, 262_144, 67_108_864)
QOS_0: Final = 0.25
"""The share of messages that are published at QoS 0."""
POLLS: Final = 200
QUIET_ROUNDS: Final = 0.4
"""The share of rounds in which nothing is published for a while before the kill."""
PAUSES_SECONDS: Final = ((0, 0.01, 0.05), (0.1, 0.2))
"""Between the bursts of a publisher; the second ones are for what is kept to the end."""
SETTINGS: Final[dict[str, object]] = {
    "max_retries": 60_000,
    "retry_backoff_ms": 600_000,
    "limits__queue_capacity": 1_000_000,
    "limits__queue_bytes": 1_000_000_000,
    "retention__kept_messages": 1_000_000,
}


@attrs.define(eq=False)
class Drill:
    """The state that outlives the daemon's lives."""

    wal_path: Path
    random: random.Random
    ledger: Ledger
    subscriptions: dict[str, int] = attrs.Factory(dict)
    early_kills: int = 0
    segments: int = 0
    """How many there were at the kills, all in all."""
    newest_segment: int = 0
    _policies: Iterator[str] = attrs.Factory(lambda: cycle(POLICIES))
    _sources: int = 0
    _unanswered: dict[Source, float] = attrs.Factory(dict)
    """Since when publishers wait for their barrier."""

    async def run(self, rounds: int) -> None:
        for _ in range(rounds):
            async with trio.open_nursery() as nursery:
                if self.random.random() < 0.25:
                    await self._kill_early(nursery)
                await self._live_and_die(nursery)
                nursery.cancel_scope.cancel()
        await self._end_in_peace()

    async def _launch(self, nursery: trio.Nursery) -> Daemon:
        return await Daemon.launch(
            nursery,
            self.wal_path,
            fsync_policy=next(self._policies),
            wal__segment_bytes=self.random.choice(SEGMENT_BYTES),
            **SETTINGS,
        )

    async def _kill_early(self, nursery: trio.Nursery) -> None:
        """In a start, so that recovery is interrupted."""
        daemon = await self._launch(nursery)
        with trio.move_on_after(self.random.uniform(0.1, 0.6)):
            await daemon.ready()
        await daemon.kill()
        self.early_kills += 1

    async def _live_and_die(self, nursery: trio.Nursery) -> None:
        daemon = await self._launch(nursery)
        address = await daemon.ready()
        async with AsyncExitStack() as connections:
            consumers = [
                await self._drained(connections, address, topic, accepting=0.8) for topic in TOPICS
            ]
            self.ledger.drained(TOPICS)
            quiet = trio.Event()
            async with trio.open_nursery() as load:
                for consumer in consumers:
                    load.start_soon(self._consume, consumer)
                for topic in (*TOPICS * PUBLISHERS_PER_TOPIC, KEPT_TOPIC):
                    connection = await Connection.open(address)
                    await connections.enter_async_context(connection)
                    load.start_soon(self._publish, topic, connection, quiet)
                longest = self.random.choice((0.02, 0.2, 1.0))
                await trio.sleep(longest * self.random.uniform(0.5, 1.5))
                if self.random.random() < QUIET_ROUNDS:
                    quiet.set()
                    await trio.sleep(self.random.uniform(0.1, 0.5))
                killed_at = trio.current_time()
                stalled_at = min(self._unanswered.values(), default=killed_at)
                await daemon.kill()
            self.ledger.killed(killed_at, stalled_at)
            self._unanswered.clear()
            names = sorted(path.stem for path in self.wal_path.glob("*.wal"))
            self.segments += len(names)
            self.newest_segment = int(names[-1])

    async def _drained(
        self, connections: AsyncExitStack, address: tuple[str, int], topic: str, accepting: float
    ) -> Consumer:
        """A consumer that has taken all there was, and accepted this share of it."""
        connection = await connections.enter_async_context(await Connection.open(address))
        consumer = Consumer(topic, connection, self.ledger, self.random)
        await consumer.subscribe(self.subscriptions)
        while await consumer.take(POLLS, accepting):
            pass
        return consumer

    async def _consume(self, consumer: Consumer) -> None:
        """Take and accept until the broker is gone."""
        with suppress(Lost):
            while True:
                taken = await consumer.take(self.random.randint(1, POLLS), self.random.random())
                if not taken:
                    await trio.sleep(0.005)

    async def _publish(self, topic: str, connection: Connection, quiet: trio.Event) -> None:
        """Publish bursts, each followed by a barrier, until the broker is gone or all is quiet."""
        self._sources += 1
        source = Source(topic, f"{topic}/{self._sources}")
        places = count(1)
        with suppress(Lost):
            while not quiet.is_set():
                burst: list[tuple[int, bytes]] = []
                for place in islice(places, self.random.choice((1, 10, 100))):
                    size = self.random.choice((0, 20, 200, 2_000, 20_000))
                    body = b"%s/%d %s" % (source.name.encode(), place, b"x" * size)
                    qos = int(self.random.random() >= QOS_0)
                    burst.append((qos, body))
                    self.ledger.sent(source, body, qos)
                self._unanswered[source] = trio.current_time()
                await connection.publish_each(topic.encode(), burst)
                del self._unanswered[source]
                self.ledger.confirmed(body for _, body in burst)
                await trio.sleep(self.random.choice(PAUSES_SECONDS[topic == KEPT_TOPIC]))

    async def _end_in_peace(self) -> None:
        """Take and accept everything, shut down, and see that nothing of it comes back."""
        topics = (*TOPICS, KEPT_TOPIC)
        for _ in range(2):
            async with trio.open_nursery() as nursery, AsyncExitStack() as connections:
                daemon = await self._launch(nursery)
                address = await daemon.ready()
                for topic in topics:
                    await self._drained(connections, address, topic, accepting=1.0)
                self.ledger.drained(topics)
                status = await daemon.terminate()
                if status:
                    self.ledger.violations.append(f"a shutdown ended with status {status}")
                self.ledger.stopped()


@attrs.define(eq=False)
class Consumer:
    """Takes messages of one topic over one connection."""

    topic: str
    connection: Connection
    ledger: Ledger
    random: random.Random
    subscription: int = 0

    async def subscribe(self, known: dict[str, int]) -> None:
        """The subscription that `known` has is to be taken over."""
        self.subscription = await self.connection.subscribe(self.topic.encode())
        before = known.setdefault(self.topic, self.subscription)
        if self.subscription != before:
            text = f"subscription {before} of {self.topic} was not taken over"
            self.ledger.violations.append(text)
            known[self.topic] = self.subscription

    async def take(self, polls: int, accepting: float) -> int:
        """Take up to `polls` messages and accept this share of them; how many there were."""
        deliveries = await self.connection.poll(self.subscription, polls)
        for delivery in deliveries:
            self.ledger.delivered(self.topic, delivery.tag, delivery.body)
        chosen = [d for d in deliveries if d.qos and self.random.random() < accepting]
        if chosen:
            bodies = [delivery.body for delivery in chosen]
            self.ledger.accepting(bodies)
            await self.connection.accept(self.subscription, [d.tag for d in chosen])
            self.ledger.accepted(bodies, trio.current_time())
        return len(deliveries)


async def drill(wal_path: Path, rounds: int, seed: int, grace_ms: int) -> Drill:
    """Run it to its end. Raises what the daemon or the connections did that they must not do."""
    chance = random.Random(seed)  # noqa: S311, no secret
    result = Drill(wal_path, chance, Ledger(grace_ms / 1000))
    await result.run(rounds)
    return result


async def _reported(wal_path: Path, rounds: int, seed: int, grace_ms: int) -> list[str]:
    result = await drill(wal_path, rounds, seed, grace_ms)
    ledger = result.ledger
    print(f"  kills: {rounds} under load, {result.early_kills} while starting")
    print(f"  messages: {ledger.messages} sent, {ledger.confirmations} confirmed,")
    print(f"    {ledger.acceptances} accepted, {ledger.redeliveries} delivered again")
    print(f"  segments: {result.newest_segment} begun, {result.segments / rounds:.0f} at a kill")
    print(f"  acceptances forgotten within {grace_ms} ms: {ledger.forgotten_acceptances}")
    return ledger.violations


@click.command()
@click.option("--rounds", default=50, show_default=True, help="How often it is killed.")
@click.option("--seed", type=int, help="Repeats the choices of a run, if not its timing.")
@click.option("--grace-ms", default=100, show_default=True, help="How old a lost ACK may be.")
def main(rounds: int, seed: int | None, grace_ms: int) -> None:
    """Kill a busy daemon again and again, and check that it keeps its promises."""
    seed = random.SystemRandom().randrange(2**32) if seed is None else seed
    print(f"crash: {rounds} rounds, seed {seed}")
    with tempfile.TemporaryDirectory(prefix="blipmq-crash-") as directory:
        conclude("crash", _reported, Path(directory) / "log", rounds, seed, grace_ms)


if __name__ == "__main__":
    main()
