"""redis-py, its blocking clients: publish/subscribe, and streams with consumer groups."""

from __future__ import annotations

import time
from itertools import islice

import attrs
from redis import Redis

from tools.bench.load.driver import Consuming, Publishing, RoundTrips
from tools.bench.load.server import Address
from tools.bench.load.work import Work
from tools.bench.peers.redis_pubsub import RedisPubSub
from tools.bench.peers.redis_streams import COUNT, FIELD, RedisStreams, group_name

PIPELINE = 256
"""Requests that are sent at once."""
_CONSUMER = "consumer"


def _client(address: Address) -> Redis:
    return Redis(host=address[0], port=address[1])


@attrs.frozen
class RedisPubSubDriver:
    """Publishes in pipelines, and listens to each message."""

    name: str = "redis-py pub/sub"

    def prepare(self, address: Address, work: Work) -> None:
        RedisPubSub().prepare(address, work)

    def conclude(self, address: Address, work: Work) -> None:
        """Nothing is left."""

    def publish(self, address: Address, publishing: Publishing) -> None:
        with _client(address) as client:
            client.ping()
            publishing.go()
            while not publishing.done:
                messages = iter(publishing.next())
                empty = True
                while piece := list(islice(messages, PIPELINE)):
                    empty = False
                    with client.pipeline(transaction=False) as pipeline:
                        for topic, body in piece:
                            pipeline.publish(topic, body)
                        pipeline.execute()
                if empty:
                    time.sleep(publishing.pause_seconds())

    def consume(self, address: Address, consuming: Consuming) -> None:
        with _client(address) as client, client.pubsub() as messages:
            messages.subscribe(*consuming.topics)
            for _ in consuming.topics:
                messages.get_message(timeout=None)
            consuming.go()
            for message in messages.listen():
                if consuming.take(message["data"]):
                    return

    def round_trips(self, address: Address, trips: RoundTrips) -> None:
        with _client(address) as client, client.pubsub() as messages:
            messages.subscribe(trips.topic)
            messages.get_message(timeout=None)
            trips.go()
            while not trips.done:
                client.publish(trips.topic, trips.body())
                trips.took(messages.get_message(timeout=None)["data"])


@attrs.frozen
class RedisStreamsDriver:
    """Adds in pipelines as long as the window, and acknowledges what one read brought at once."""

    name: str = "redis-py Streams"

    def prepare(self, address: Address, work: Work) -> None:
        RedisStreams().prepare(address, work)

    def conclude(self, address: Address, work: Work) -> None:
        RedisStreams().conclude(address, work)

    def publish(self, address: Address, publishing: Publishing) -> None:
        with _client(address) as client:
            client.ping()
            publishing.go()
            while not publishing.done:
                messages = publishing.next()
                if not messages:
                    time.sleep(publishing.pause_seconds())
                    continue
                sent_ns = time.monotonic_ns()
                if len(messages) == 1:
                    client.xadd(messages[0][0], {FIELD: messages[0][1]})
                else:
                    with client.pipeline(transaction=False) as pipeline:
                        for topic, body in messages:
                            pipeline.xadd(topic, {FIELD: body})
                        pipeline.execute()
                publishing.confirm(len(messages), sent_ns)

    def consume(self, address: Address, consuming: Consuming) -> None:
        group = group_name(consuming.place)
        with _client(address) as client:
            client.ping()
            consuming.go()
            last = False
            wanted = dict.fromkeys(consuming.topics, ">")
            while not last:
                for topic, entries in _read(client, group, wanted):
                    for _, fields in entries:
                        last = consuming.take(fields[FIELD])
                    client.xack(topic, group, *(entry_id for entry_id, _ in entries))

    def round_trips(self, address: Address, trips: RoundTrips) -> None:
        group = group_name(0)
        with _client(address) as client:
            client.ping()
            trips.go()
            while not trips.done:
                client.xadd(trips.topic, {FIELD: trips.body()})
                [[topic, [(entry_id, fields)]]] = _read(client, group, {trips.topic: ">"})
                trips.took(fields[FIELD])
                client.xack(topic, group, entry_id)


def _read(
    client: Redis, group: bytes, wanted: dict[str, str]
) -> list[tuple[bytes, list[tuple[bytes, dict[bytes, bytes]]]]]:
    """Entries by stream; waits for the first."""
    found = client.xreadgroup(group, _CONSUMER, wanted, count=COUNT, block=0)
    # By RESP version 3 it is a table of lists of lists, by version 2 a list.
    if isinstance(found, dict):
        found = [
            (topic, [each for part in parts for each in part]) for topic, parts in found.items()
        ]
    return list(found)
