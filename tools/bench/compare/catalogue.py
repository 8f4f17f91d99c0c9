"""Every comparison there is, with its target where there is one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import attrs

from tools.bench.compare import candidates as who
from tools.bench.compare.comparison import Comparison, Group, Load, Metric, Target
from tools.bench.load.work import Guarantee
from tools.bench.modes import MIXED_SIZES, Shape

_LATENCIES: Final = (Metric.P50, Metric.P99)
_INTERVAL: Final = "interval_ms:20"
_TRIPS: Final = 5_000
_CONFIRMS: Final = 3_000
_POLLS: Final = 20_000
_LOW_RATE: Final = 1_000.0
_SAYS: Final = {
    "256": "1→1, 256 bytes",
    "16": "1→1, 16 bytes",
    "4096": "1→1, 4096 bytes",
    "fanout": "1→8, 256 bytes",
    "4x4": "4→4 on 4 topics, 256 bytes",
}


def catalogue(directory: Path) -> list[Comparison]:
    """All of them. `directory` is on the disk that durable brokers write to."""
    return [
        *_at_most_once(),
        *_in_memory(directory),
        *_durable(directory),
        *_version_1(),
        *_libraries(directory),
        *_latency(directory),
    ]


def _variants(guarantee: Guarantee) -> dict[str, Load]:
    return {
        "256": Load(guarantee=guarantee),
        "16": Load(guarantee=guarantee, sizes=(16,)),
        "4096": Load(guarantee=guarantee, sizes=(4096,)),
        "fanout": Load(guarantee=guarantee, subscribers=8),
        "4x4": Load(guarantee=guarantee, publishers=4, subscribers=4, topics=4),
    }


def _at_most_once() -> Iterator[Comparison]:
    targets = {
        "256": (Target("NATS core", 1.5),),
        "16": (Target("NATS core", 1.5),),
        "fanout": (Target("Redis pub/sub", 1.5),),
        "4x4": (Target("NATS core", 1.0),),
        "mixed": (Target("NATS core", 0.8),),
    }
    mixed = Load(guarantee=Guarantee.AT_MOST_ONCE, topics=100, sizes=MIXED_SIZES)
    for name, load in (_variants(Guarantee.AT_MOST_ONCE) | {"mixed": mixed}).items():
        yield Comparison(
            name=f"qos0-{name}",
            says=_SAYS.get(
                name, "1→1, 16 to 4096 bytes mixed, 100 topics interleaved, by a pattern"
            ),
            group=Group.AT_MOST_ONCE,
            load=load,
            ours=who.blipmq(None),
            others=(who.nats_core(), who.redis_pubsub(), who.mqtt()),
            targets=targets.get(name, ()),
        )


def _in_memory(directory: Path) -> Iterator[Comparison]:
    targets = {"256": (Target("Redis Streams", 2.0), Target("JetStream memory", 5.0))}
    for name, load in _variants(Guarantee.AT_LEAST_ONCE).items():
        yield Comparison(
            name=f"memory-{name}",
            says=f"QoS 1, no log, {_SAYS[name]}",
            group=Group.IN_MEMORY,
            load=load,
            ours=who.blipmq(None),
            others=(
                who.redis_streams("no", directory),
                who.jetstream("memory", directory),
                who.mqtt(),
                who.rabbit("transient", directory),
            ),
            targets=targets.get(name, ()),
        )
    yield Comparison(
        name="named-10",
        says="QoS 1, no log, 10 named subscriptions on one topic, beside one alone",
        group=Group.IN_MEMORY,
        load=Load(guarantee=Guarantee.AT_LEAST_ONCE, subscribers=10),
        ours=who.blipmq(None, name="BlipMQ, 10 subscriptions"),
        others=(
            who.blipmq(
                None, name="BlipMQ, 1 subscription", load=Load(guarantee=Guarantee.AT_LEAST_ONCE)
            ),
        ),
        targets=(Target("BlipMQ, 1 subscription", 0.5, Metric.RATE_EACH),),
        metrics=(Metric.RATE_EACH,),
    )


def _durable(directory: Path) -> Iterator[Comparison]:
    for name, load in _variants(Guarantee.AT_LEAST_ONCE).items():
        first = name == "256"
        yield Comparison(
            name=f"interval-{name}",
            says=f"QoS 1, log, {_INTERVAL}, {_SAYS[name]}",
            group=Group.DURABLE,
            load=load,
            ours=who.blipmq(_INTERVAL, directory),
            others=(who.redis_streams("everysec", directory), who.jetstream("file", directory)),
            targets=(Target("Redis Streams, AOF everysec", 2.0), Target("JetStream file", 3.0))
            if first
            else (),
        )
    for name, load in _variants(Guarantee.AT_LEAST_ONCE).items():
        first = name == "256"
        quorum = who.rabbit("quorum", directory)
        own = who.blipmq("none", directory, name="BlipMQ, none")
        yield Comparison(
            name=f"always-{name}",
            says=f"QoS 1, log, always, {_SAYS[name]}",
            group=Group.DURABLE,
            load=load,
            ours=who.blipmq("always", directory),
            others=(
                who.redis_streams("always", directory),
                who.rabbit("durable", directory),
                *((quorum, own) if first else ()),
            ),
            targets=(
                Target("Redis Streams, AOF always", 3.0),
                Target("RabbitMQ durable", 8.0),
                Target("BlipMQ, none", 0.5),
            )
            if first
            else (),
        )


def _version_1() -> Iterator[Comparison]:
    for connections in (1, 8):
        yield Comparison(
            name=f"poll-{connections}",
            says=f"POLL and ACK one at a time, QoS 1, no log, connections: {connections}",
            group=Group.VERSION_1,
            load=Load(
                guarantee=Guarantee.AT_LEAST_ONCE,
                shape=Shape.POLLS,
                subscribers=connections,
                topics=connections,
                messages=_POLLS,
            ),
            ours=who.blipmq_polled(),
            others=(who.trio_echo(),),
            targets=(Target("Trio echo", 0.5),),
        )


def _libraries(directory: Path) -> Iterator[Comparison]:
    yield Comparison(
        name="client-qos0",
        says="at most once, 1→1, 256 bytes, a handler for each message",
        group=Group.LIBRARIES,
        load=Load(guarantee=Guarantee.AT_MOST_ONCE),
        ours=who.blipmq_library(None),
        others=(who.nats_py(), who.redis_py_pubsub(), who.paho()),
        targets=(Target("nats-py core", 3.0),),
    )
    yield Comparison(
        name="client-durable",
        says=f"confirmed and acknowledged, log, {_INTERVAL}, 256 bytes, "
        f"{who.LIBRARY_WINDOW} outstanding",
        group=Group.LIBRARIES,
        load=Load(guarantee=Guarantee.AT_LEAST_ONCE, window=who.LIBRARY_WINDOW),
        ours=who.blipmq_library(_INTERVAL, directory),
        others=(
            who.nats_py_jetstream(directory),
            who.redis_py_streams("everysec", directory),
            who.aio_pika("durable", directory),
        ),
        targets=(
            Target("nats-py JetStream file", 8.0),
            Target("redis-py Streams, AOF everysec", 2.0),
        ),
    )


def _latency(directory: Path) -> Iterator[Comparison]:
    for comparison in (*_trips(), *_confirms(directory)):
        yield comparison
        # A wake-up across cores costs more than any of these brokers; on one core they differ.
        yield attrs.evolve(
            comparison,
            name=f"{comparison.name}-pinned",
            says=f"{comparison.says}, all on one core",
            load=attrs.evolve(comparison.load, pinned=True),
        )
    yield from _low_rate(directory)


def _trips() -> Iterator[Comparison]:
    trips = Load(guarantee=Guarantee.AT_MOST_ONCE, shape=Shape.TRIPS, messages=_TRIPS)
    yield Comparison(
        name="latency-wire",
        says="publish to receive, one at a time, wire clients, 256 bytes",
        group=Group.LATENCY,
        load=trips,
        ours=who.blipmq(None),
        others=(who.trio_echo(), who.nats_core(), who.redis_pubsub()),
        targets=(Target("Trio echo", 1.5, Metric.P50),),
        metrics=_LATENCIES,
    )
    yield Comparison(
        name="latency-client",
        says="publish to receive, one at a time, Python clients, 256 bytes",
        group=Group.LATENCY,
        load=trips,
        ours=who.blipmq_library(None),
        others=(who.nats_py(), who.redis_py_pubsub()),
        targets=tuple(Target("nats-py core", 1.0, metric) for metric in _LATENCIES),
        metrics=_LATENCIES,
    )


def _confirms(directory: Path) -> Iterator[Comparison]:
    load = Load(
        guarantee=Guarantee.AT_LEAST_ONCE,
        shape=Shape.CONFIRMS,
        subscribers=0,
        window=1,
        messages=_CONFIRMS,
    )
    peers = {
        "none": who.redis_py_streams("everysec", directory),
        "always": who.redis_py_streams("always", directory),
    }
    for policy, other in peers.items():
        yield Comparison(
            name=f"confirm-{policy}",
            says=f"publish to confirm, one at a time, Python clients, log, {policy}, 256 bytes",
            group=Group.LATENCY,
            load=load,
            ours=who.blipmq_library(policy, directory),
            others=(other,),
            targets=(Target(other.name, 1.0, Metric.P50),),
            metrics=_LATENCIES,
        )


def _low_rate(directory: Path) -> Iterator[Comparison]:
    at_most_once = Load(guarantee=Guarantee.AT_MOST_ONCE, rate=_LOW_RATE)
    at_least_once = Load(guarantee=Guarantee.AT_LEAST_ONCE, rate=_LOW_RATE)
    says = f"publish to receive at {_LOW_RATE:,.0f} a second, wire clients, 256 bytes"
    yield Comparison(
        name="rate-qos0",
        says=says,
        group=Group.LATENCY,
        load=at_most_once,
        ours=who.blipmq(None),
        others=(who.nats_core(), who.redis_pubsub(), who.mqtt()),
        metrics=_LATENCIES,
    )
    yield Comparison(
        name="rate-interval",
        says=f"{says}, QoS 1, log, {_INTERVAL}",
        group=Group.LATENCY,
        load=at_least_once,
        ours=who.blipmq(_INTERVAL, directory),
        others=(who.redis_streams("everysec", directory), who.jetstream("file", directory)),
        metrics=_LATENCIES,
    )
    yield Comparison(
        name="rate-always",
        says=f"{says}, QoS 1, log, always",
        group=Group.LATENCY,
        load=at_least_once,
        ours=who.blipmq("always", directory),
        others=(who.redis_streams("always", directory), who.rabbit("durable", directory)),
        metrics=_LATENCIES,
    )
