"""`python -m tools.bench.idle`: what a connection costs a broker while nothing comes on it.

Each kind of connection has a broker of its own, without a log, and one process of clients. Memory
is what the broker has more of than before the first of them came. Then nobody sends anything for a
while: a broker with nothing to do uses no processor time, and its threads are not woken.
"""

from __future__ import annotations

import resource
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Final

import attrs
import click

from blipmq.protocol import encoder
from blipmq.protocol.attach_properties import AttachProperties, encode_attach_properties
from tools.bench.blipmq.connection import receive_frame
from tools.bench.daemon import API_KEY, running_daemon
from tools.bench.load.clients import Client, Go
from tools.bench.options import json_option
from tools.bench.table import show

_LONG_MS = 3_600_000
"""No handshake takes so long, and no client is silent for so long."""
_AT_ONCE = 64
"""New connections that wait to be accepted; as many as any system lets."""
_OTHER_FILES = 64


@attrs.frozen
class Kind:
    """A kind of connection: what the n-th of them sends, and how many frames answer that."""

    requests: Callable[[int], list[bytes]]
    answers: int


def _handshake(version: int) -> list[bytes]:
    return [encoder.hello(1, version), encoder.auth(2, API_KEY.encode())]


def _subscribed(topic: bytes, qos: int) -> list[bytes]:
    return [*_handshake(1), encoder.subscribe(3, topic, qos)]


def _attached(topic: bytes, qos: int, name: bytes | None = None) -> list[bytes]:
    properties = AttachProperties(name=name, prefetch=256)
    attach = encoder.attach(3, topic, qos, encode_attach_properties(properties))
    return [*_handshake(2), attach]


KINDS: Final[Mapping[str, Kind]] = {
    "before AUTH": Kind(lambda place: _handshake(1)[:1], 1),
    "version 1": Kind(lambda place: _handshake(1), 2),
    "version 1, QoS 0, one topic": Kind(lambda place: _subscribed(b"idle", 0), 3),
    "version 1, QoS 1, a topic each": Kind(lambda place: _subscribed(b"idle.%d" % place, 1), 3),
    "version 2": Kind(lambda place: _handshake(2), 3),
    "version 2, QoS 0, one topic": Kind(lambda place: _attached(b"idle", 0), 4),
    "version 2, one subscription": Kind(lambda place: _attached(b"idle", 1, b"all"), 4),
    "version 2, QoS 1, a topic each": Kind(lambda place: _attached(b"idle.%d" % place, 1), 4),
}


@attrs.frozen
class Measured:
    """What the broker has more of in memory, and what it does while all are silent."""

    kind: str
    connections: int
    kib_each: float
    broker_mib: float
    quiet_s: float
    cpu_s: float
    wakings: int


def _connect(address: tuple[str, int], kind: Kind, connections: int, go: Go) -> Iterator[int]:
    """Open them; when all that they have asked for is answered, be silent until told to go on.

    Reports how many are open then.
    """
    _allow_files(connections)
    sockets: list[socket.socket] = []
    while len(sockets) < connections:
        places = range(len(sockets), min(len(sockets) + _AT_ONCE, connections))
        begun = [socket.create_connection(address) for _ in places]
        for sock, place in zip(begun, places, strict=True):
            sock.sendall(b"".join(kind.requests(place)))
        for sock in begun:
            for _ in range(kind.answers):
                receive_frame(sock)
        sockets += begun
    go()
    yield sum(_is_silent(sock) for sock in sockets)


def _allow_files(count: int) -> None:
    """Let this process have so many more open files, and the broker that it starts as well."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + _OTHER_FILES
    if hard != resource.RLIM_INFINITY and wanted > hard:
        raise click.ClickException(f"{wanted} open files are needed, and {hard} are allowed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))


def _is_silent(sock: socket.socket) -> bool:
    """Whether nothing came, not even the end."""
    sock.setblocking(False)
    try:
        sock.recv(1)
    except BlockingIOError:
        return True
    return False


def measure(name: str, connections: int, quiet_seconds: float) -> Measured:
    """On a broker of its own."""
    settings = {
        "BLIPMQ_LIMITS_MAX_CONNECTIONS": str(connections),
        "BLIPMQ_LIMITS_HANDSHAKE_TIMEOUT_MS": str(_LONG_MS),
        "BLIPMQ_LIMITS_HEARTBEAT_MS": str(_LONG_MS),
    }
    with running_daemon("", "none", settings) as daemon:
        before = daemon.memory_bytes()
        client = Client.start(partial(_connect, daemon.address, KINDS[name], connections))
        try:
            client.wait_ready()
            memory = daemon.memory_bytes()
            cpu, wakings = daemon.cpu_seconds(), daemon.wakings()
            time.sleep(quiet_seconds)
            cpu, wakings = daemon.cpu_seconds() - cpu, daemon.wakings() - wakings
            client.go()
            silent = client.last_report()
        finally:
            client.end()
    each = (memory - before) / connections / 1024
    return Measured(name, silent, each, memory / 2**20, quiet_seconds, cpu, wakings)


@click.command()
@click.option("--kind", "kinds", multiple=True, type=click.Choice(list(KINDS)), default=KINDS)
@click.option("--connections", default=10_000, show_default=True, help="Of each kind.")
@click.option("--quiet-secs", default=10.0, show_default=True, help="How long they are silent.")
@json_option
def main(kinds: tuple[str, ...], connections: int, quiet_secs: float, as_json: bool) -> None:
    """Measure what idle connections cost."""
    rows = [measure(kind, connections, quiet_secs) for kind in kinds]
    show({"idle": rows}, as_json=as_json)


if __name__ == "__main__":
    main()
