"""NATS, its server and its core messages: at most once, nothing is kept."""

from __future__ import annotations

import socket
from pathlib import Path

import attrs

from tools.bench.load.arrivals import Arrivals
from tools.bench.load.server import Address
from tools.bench.load.wire import Refused
from tools.bench.load.work import Work
from tools.bench.peers.counting import Expected, Lap
from tools.bench.peers.nats_wire import PING, PONG, connected, message, publish, subscribe
from tools.bench.peers.peer import Launch, PeerServer
from tools.bench.peers.process import HOST, find_program, first_line_of

_CONFIGURATION = """\
listen: "{host}:{port}"
max_pending: {max_pending}
jetstream {{ store_dir: "{directory}", max_memory_store: 8G, max_file_store: 16G }}
"""
_MAX_PENDING_BYTES = 1 << 28


def version() -> str:
    """As the server tells it. Raises Missing."""
    return first_line_of(find_program("nats-server"), "--version")


def nats_server(within: Path | None = None) -> PeerServer:
    """A server with JetStream."""
    settings = {"jetstream": "on", "max_pending": f"{_MAX_PENDING_BYTES >> 20} MiB"}
    return PeerServer("NATS", settings, _launch, within)


def _launch(directory: Path, port: int) -> list[Launch]:
    program = find_program("nats-server")
    path = directory / "nats.conf"
    path.write_text(
        _CONFIGURATION.format(
            host=HOST, port=port, max_pending=_MAX_PENDING_BYTES, directory=directory
        )
    )
    return [Launch([program, "-c", str(path)], port)]


@attrs.define
class CorePublisher:
    """Core publishes are not answered."""

    def enclose(self, place: int, topic: str, body_bytes: int) -> tuple[bytes, bytes]:
        return publish(topic.encode(), body_bytes), b"\r\n"

    def fence(self, sent: int) -> bytes:
        return b""

    def confirmed(self, data: bytes) -> tuple[int, int]:
        if b"-ERR" in data:
            raise Refused(data.decode(errors="replace"))
        return data.rfind(b"\n") + 1, 0


class CoreSubscriber:
    """Every byte that comes is known beforehand, but for the server's question now and then."""

    def __init__(self, work: Work, place: int) -> None:
        topics = [work.topic(topic).encode() for topic in work.subscriber_topics(place)]
        together = work.pattern(place) is not None
        ids = {topic: 1 if together else n for n, topic in enumerate(topics, 1)}
        lap = Lap.of(work, place, lambda topic, body: message(topic, body, ids[topic]))
        self._expected = Expected(lap, (PING, PONG))
        self.settled = False

    def begin(self) -> bytes:
        return b""

    def take(self, data: bytearray, start: int, end: int, arrivals: Arrivals) -> int:
        return self._expected.take(data, start, end, arrivals)

    def answer(self) -> bytes:
        asked = self._expected.interruptions.count(PING)
        self.settled = self.settled or PONG in self._expected.interruptions
        self._expected.interruptions.clear()
        return PONG * asked

    def barrier(self) -> bytes:
        return PING


@attrs.frozen
class NatsCore:
    """Core NATS."""

    name: str = "NATS core"

    def prepare(self, address: Address, work: Work) -> None:
        if work.guarantee:
            raise Refused("core NATS has no acknowledgements")

    def conclude(self, address: Address, work: Work) -> None:
        """Nothing is left."""

    def publisher(
        self, address: Address, work: Work, place: int
    ) -> tuple[socket.socket, CorePublisher]:
        return connected(address), CorePublisher()

    def subscriber(
        self, address: Address, work: Work, place: int
    ) -> tuple[socket.socket, CoreSubscriber]:
        sock = connected(address)
        pattern = work.pattern(place)
        topics = [work.topic(topic) for topic in work.subscriber_topics(place)]
        subscribe(sock, [name.encode() for name in ([pattern] if pattern else topics)])
        return sock, CoreSubscriber(work, place)
