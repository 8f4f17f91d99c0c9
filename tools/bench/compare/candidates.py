"""Who is compared: BlipMQ as it is set and spoken to, its peers, and a bare server on Trio."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module, metadata
from pathlib import Path
from typing import Final

import trio

from blipmq.protocol import encoder
from tools.bench import echo
from tools.bench.blipmq.daemon_server import BlipmqServer
from tools.bench.blipmq.library import LibraryDriver
from tools.bench.blipmq.poll import PollProtocol
from tools.bench.blipmq.push import PushProtocol
from tools.bench.compare.comparison import Candidate, Load, Scale
from tools.bench.daemon import API_KEY
from tools.bench.load.driver import ClientDriver
from tools.bench.load.kinds import Clients, LibraryClients, WireClients
from tools.bench.load.runner import Result, round_trips, run
from tools.bench.load.server import Server
from tools.bench.modes import Shape
from tools.bench.peers import mosquitto, nats, rabbitmq, redis_server
from tools.bench.peers.jetstream import MAX_ACK_PENDING, JetStream, Storage
from tools.bench.peers.process import Missing
from tools.bench.peers.rabbitmq import PREFETCH, QueueKind, RabbitQueues
from tools.bench.peers.redis_pubsub import RedisPubSub
from tools.bench.peers.redis_server import AppendOnly
from tools.bench.peers.redis_streams import COUNT, RedisStreams

PEERS: Final = ("nats", "jetstream", "redis", "mosquitto", "rabbitmq", "own", "echo")
"""By whom to choose; `own` is BlipMQ with another setting."""
LIBRARY_WINDOW: Final = 256


def _own_version() -> str:
    return (
        f"BlipMQ {metadata.version('blipmq')} on Trio {trio.__version__}, "
        f"{platform.python_implementation()} {platform.python_version()}"
    )


def _package(name: str) -> Callable[[], str]:
    """The version of an installed package. Raises Missing."""

    def version() -> str:
        try:
            return f"{name} {metadata.version(name)}"
        except metadata.PackageNotFoundError:
            raise Missing(f"the Python package {name}") from None

    return version


def _candidate(
    name: str,
    peer: str,
    versions: Sequence[Callable[[], str]],
    server: Server,
    clients: Callable[[], Clients],
    settings: Mapping[str, str] | None = None,
    load: Load | None = None,
) -> Candidate:
    """A broker that is started anew for every run. `clients` are made when it is measured."""

    def measure(load: Load, scale: Scale) -> Result:
        work = load.work(scale)
        with server.start() as running:
            if load.shape is Shape.TRIPS:
                return round_trips(running, clients(), work, pinning=load.pinning)
            return run(running, clients(), work, pinning=load.pinning)

    return Candidate(
        name=name,
        peer=peer,
        settings={**server.settings, **(settings or {})},
        versions=versions,
        measure=measure,
        load=load,
    )


def _server(policy: str | None, directory: Path | None) -> BlipmqServer:
    if directory is None:
        return BlipmqServer(fsync_policy=policy)
    return BlipmqServer(fsync_policy=policy, directory=directory)


def blipmq(
    policy: str | None,
    directory: Path | None = None,
    *,
    name: str = "BlipMQ",
    load: Load | None = None,
) -> Candidate:
    """Version 2 on raw sockets; `policy` None: without a log."""
    server = _server(policy, directory)
    return _candidate(
        name, "own", [_own_version], server, lambda: WireClients(PushProtocol(API_KEY)), load=load
    )


def blipmq_polled() -> Candidate:
    """Version 1 on raw sockets, one POLL and one ACK at a time."""
    server = BlipmqServer()
    clients = WireClients(PollProtocol(API_KEY, 1))
    return _candidate("BlipMQ", "own", [_own_version], server, lambda: clients)


def blipmq_library(policy: str | None, directory: Path | None = None) -> Candidate:
    """The client library."""
    server = _server(policy, directory)
    clients = LibraryClients(LibraryDriver(API_KEY))
    return _candidate("BlipMQ", "own", [_own_version], server, lambda: clients)


def nats_core() -> Candidate:
    clients = WireClients(nats.NatsCore())
    return _candidate("NATS core", "nats", [nats.version], nats.nats_server(), lambda: clients)


def jetstream(storage: Storage, directory: Path) -> Candidate:
    clients = WireClients(JetStream(storage))
    return _candidate(
        f"JetStream {storage}",
        "jetstream",
        [nats.version],
        nats.nats_server(directory),
        lambda: clients,
        _stream_settings(storage),
    )


def _stream_settings(storage: Storage) -> dict[str, str]:
    return {
        "stream": f"one a topic, storage {storage}, retention limits",
        "consumer": f"push, explicit ack, max_ack_pending {MAX_ACK_PENDING}",
    }


def redis_pubsub() -> Candidate:
    server, clients = redis_server.redis_server(), WireClients(RedisPubSub())
    return _candidate("Redis pub/sub", "redis", [redis_server.version], server, lambda: clients)


def redis_streams(append_only: AppendOnly, directory: Path) -> Candidate:
    clients = WireClients(RedisStreams())
    return _candidate(
        f"Redis Streams{_log_of(append_only)}",
        "redis",
        [redis_server.version],
        redis_server.redis_server(append_only, directory),
        lambda: clients,
        {"reading": f"XREADGROUP COUNT {COUNT}, XACK of what it returned"},
    )


def _log_of(append_only: AppendOnly) -> str:
    return "" if append_only == "no" else f", AOF {append_only}"


def mqtt() -> Candidate:
    server, clients = mosquitto.mosquitto_server(), WireClients(mosquitto.Mqtt())
    return _candidate("Mosquitto", "mosquitto", [mosquitto.version], server, lambda: clients)


def rabbit(kind: QueueKind, directory: Path) -> Candidate:
    clients = WireClients(RabbitQueues(kind))
    return _candidate(
        f"RabbitMQ {kind}",
        "rabbitmq",
        [rabbitmq.version],
        rabbitmq.rabbitmq_server(directory),
        lambda: clients,
        {"queue": kind, "clients": f"confirms, prefetch {PREFETCH}, acks in multiples"},
    )


def _library(module: str, driver: str, *arguments: object) -> Callable[[], Clients]:
    """Clients of a library that is imported only where it is used, for it may be missing."""

    def clients() -> Clients:
        made: ClientDriver = getattr(import_module(f"tools.bench.peers.{module}"), driver)(
            *arguments
        )
        return LibraryClients(made)

    return clients


def nats_py() -> Candidate:
    return _candidate(
        "nats-py core",
        "nats",
        [nats.version, _package("nats-py")],
        nats.nats_server(),
        _library("nats_library", "NatsCoreDriver"),
    )


def nats_py_jetstream(directory: Path) -> Candidate:
    return _candidate(
        "nats-py JetStream file",
        "jetstream",
        [nats.version, _package("nats-py")],
        nats.nats_server(directory),
        _library("nats_library", "JetStreamDriver", JetStream("file")),
        _stream_settings("file"),
    )


def redis_py_pubsub() -> Candidate:
    return _candidate(
        "redis-py pub/sub",
        "redis",
        [redis_server.version, _package("redis"), _package("hiredis")],
        redis_server.redis_server(),
        _library("redis_library", "RedisPubSubDriver"),
        {"publishing": f"pipelines of {LIBRARY_WINDOW}"},
    )


def redis_py_streams(append_only: AppendOnly, directory: Path) -> Candidate:
    return _candidate(
        f"redis-py Streams{_log_of(append_only)}",
        "redis",
        [redis_server.version, _package("redis"), _package("hiredis")],
        redis_server.redis_server(append_only, directory),
        _library("redis_library", "RedisStreamsDriver"),
        {"publishing": "pipelines as long as the window"},
    )


def paho() -> Candidate:
    return _candidate(
        "paho-mqtt",
        "mosquitto",
        [mosquitto.version, _package("paho-mqtt")],
        mosquitto.mosquitto_server(),
        _library("paho_library", "PahoDriver"),
    )


def aio_pika(kind: QueueKind, directory: Path) -> Candidate:
    return _candidate(
        f"aio-pika {kind}",
        "rabbitmq",
        [rabbitmq.version, _package("aio-pika")],
        rabbitmq.rabbitmq_server(directory),
        _library("aio_pika_library", "AioPikaDriver", RabbitQueues(kind)),
        {"queue": kind, "clients": f"confirms, prefetch {PREFETCH}, an ack a message"},
    )


def trio_echo() -> Candidate:
    """A bare Trio server that answers requests of the same length with as many bytes."""

    def measure(load: Load, scale: Scale) -> Result:
        work = load.work(scale)
        frame = encoder.publish(0, 0, work.topic(0).encode(), bytes(work.sizes[0]))
        polled = load.shape is Shape.POLLS
        asked = encoder.ack(0) + encoder.poll(0, 0) if polled else frame
        server = echo.EchoServer(len(asked), len(frame))
        return echo.measure(server, work.subscribers, work.messages or 0, pinning=load.pinning)

    return Candidate(
        name="Trio echo",
        peer="echo",
        settings={"answers": "the bytes of the message, whatever it is asked"},
        versions=[lambda: f"Trio {trio.__version__}"],
        measure=measure,
    )
