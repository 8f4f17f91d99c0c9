"""The two kinds of client, as the runner sees them: raw sockets, and a library."""

from __future__ import annotations

import gc
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Protocol

import attrs

from tools.bench.load.arrivals import Arrivals
from tools.bench.load.clients import Go
from tools.bench.load.counters import Counters
from tools.bench.load.driver import ClientDriver, Consuming, Publishing, RoundTrips
from tools.bench.load.latencies import Latencies
from tools.bench.load.pace import Pace
from tools.bench.load.publishing import WirePublisher
from tools.bench.load.server import Address
from tools.bench.load.subscribing import WireSubscriber
from tools.bench.load.wire import WireProtocol
from tools.bench.load.work import Miscounted, Work

_LEAVE_SECONDS = 5.0


@attrs.frozen
class Report:
    """Of one client. `latencies` are encoded: of deliveries, or of confirms for a publisher."""

    began_ns: int
    ended_ns: int
    messages: int
    latencies: bytes


class Clients(Protocol):
    """Each of the last three is what a process does: it prepares, calls `go`, and reports once."""

    @property
    def kind(self) -> str: ...

    @property
    def name(self) -> str: ...

    def prepare(self, address: Address, work: Work) -> None: ...

    def conclude(self, address: Address, work: Work) -> None: ...

    def publish(
        self, address: Address, work: Work, place: int, counters: Counters, go: Go
    ) -> Iterator[Report]: ...

    def consume(
        self, address: Address, work: Work, place: int, counters: Counters, go: Go
    ) -> Iterator[Report]: ...

    def round_trips(self, address: Address, work: Work, go: Go) -> Iterator[Report]: ...


@attrs.frozen
class WireClients:
    """Raw sockets, frames encoded beforehand, deliveries counted without making objects."""

    protocol: WireProtocol
    kind: str = attrs.field(default="wire", init=False)

    @property
    def name(self) -> str:
        return self.protocol.name

    def prepare(self, address: Address, work: Work) -> None:
        self.protocol.prepare(address, work)

    def conclude(self, address: Address, work: Work) -> None:
        self.protocol.conclude(address, work)

    def publish(
        self, address: Address, work: Work, place: int, counters: Counters, go: Go
    ) -> Iterator[Report]:
        gc.disable()
        sock, codec = self.protocol.publisher(address, work, place)
        with sock:
            publisher = WirePublisher(sock, codec, work, place)
            pace = Pace(work, place, counters)
            go()
            began = pace.begin()
            publisher.run(pace)
            ended = time.monotonic_ns()
            yield Report(began, ended, pace.sent, publisher.latencies.encoded())
            _leave(sock)

    def consume(
        self, address: Address, work: Work, place: int, counters: Counters, go: Go
    ) -> Iterator[Report]:
        gc.disable()
        sock, codec = self.protocol.subscriber(address, work, place)
        with sock:
            subscriber = WireSubscriber(sock, codec, Arrivals(work, place))
            go()
            began = time.monotonic_ns()
            subscriber.begin()

            def progress(received: int) -> None:
                counters.received[place] = received

            subscriber.run(lambda: counters.goal(place), progress)
            ended = subscriber.settled_ns if work.guarantee else subscriber.received_ns
            arrivals = subscriber.arrivals
            yield Report(began, ended, arrivals.received, arrivals.latencies.encoded())

    def round_trips(self, address: Address, work: Work, go: Go) -> Iterator[Report]:
        gc.disable()
        receiving, subscribe_codec = self.protocol.subscriber(address, work, 0)
        sending, publish_codec = self.protocol.publisher(address, work, 0)
        with receiving, sending:
            subscriber = WireSubscriber(receiving, subscribe_codec, Arrivals(work, 0))
            publisher = WirePublisher(sending, publish_codec, work, 0)
            go()
            began = time.monotonic_ns()
            subscriber.begin()
            latencies = Latencies()
            for trip in range(work.messages or 0):
                sent = time.monotonic_ns()
                publisher.send(1)
                while subscriber.arrivals.received <= trip:
                    subscriber.receive()
                latencies.add(subscriber.arrivals.now_ns - sent)
                if subscriber.arrivals.received > trip + 1:
                    raise Miscounted("a message came twice")
                publisher.confirmed(wait=False)
            ended = time.monotonic_ns()
            yield Report(began, ended, subscriber.arrivals.received, latencies.encoded())


@attrs.frozen
class LibraryClients:
    """What a user of a client library gets."""

    driver: ClientDriver
    kind: str = attrs.field(default="client", init=False)

    @property
    def name(self) -> str:
        return self.driver.name

    def prepare(self, address: Address, work: Work) -> None:
        self.driver.prepare(address, work)

    def conclude(self, address: Address, work: Work) -> None:
        self.driver.conclude(address, work)

    def publish(
        self, address: Address, work: Work, place: int, counters: Counters, go: Go
    ) -> Iterator[Report]:
        publishing = Publishing(work, place, counters, go)
        self.driver.publish(address, publishing)
        if not publishing.finished:
            raise Miscounted(f"{publishing.sent:,} messages were sent, and not all confirmed")
        ended, latencies = time.monotonic_ns(), publishing.latencies.encoded()
        yield Report(publishing.began_ns, ended, publishing.sent, latencies)

    def consume(
        self, address: Address, work: Work, place: int, counters: Counters, go: Go
    ) -> Iterator[Report]:
        consuming = Consuming(work, place, counters, go)
        self.driver.consume(address, consuming)
        arrivals = consuming.arrivals
        if arrivals.received != (goal := counters.goal(place)):
            raise Miscounted(f"{arrivals.received:,} messages of {goal} were received")
        ended = time.monotonic_ns() if work.guarantee else consuming.received_ns
        yield Report(consuming.began_ns, ended, arrivals.received, arrivals.latencies.encoded())

    def round_trips(self, address: Address, work: Work, go: Go) -> Iterator[Report]:
        trips = RoundTrips(work, go)
        self.driver.round_trips(address, trips)
        if not trips.done:
            raise Miscounted("not every message came back")
        ended = time.monotonic_ns()
        yield Report(trips.began_ns, ended, work.messages or 0, trips.latencies.encoded())


def _leave(sock: socket.socket) -> None:
    """Close so that the broker still reads all: closed over unread bytes, it might not."""
    sock.settimeout(_LEAVE_SECONDS)
    with suppress(OSError):
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(1 << 16):
            pass
