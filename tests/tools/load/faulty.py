"""A relay in place of a broker that does to one message what a broker must not.

`python -m tests.tools.load.faulty FAULT` puts load on it and prints what the engine says of it.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import get_context

import attrs

from tools.bench.load.arrivals import Arrivals
from tools.bench.load.clients import ClientFailed
from tools.bench.load.kinds import WireClients
from tools.bench.load.runner import run
from tools.bench.load.server import Address
from tools.bench.load.work import Guarantee, Miscounted, Work

MESSAGES = 5_000
PLACE = 3_000
LAST = MESSAGES - 1
SIZE = 16
Fault = Callable[[int, bytes], list[bytes]]
"""What becomes of the message at that place."""
FAULTS: dict[str, Fault] = {
    "none": lambda place, frame: [frame],
    "loses": lambda place, frame: [] if place == PLACE else [frame],
    "loses-last": lambda place, frame: [] if place == LAST else [frame],
    "repeats": lambda place, frame: [frame, frame] if place == PLACE else [frame],
    "repeats-last": lambda place, frame: [frame, frame] if place == LAST else [frame],
    "changes": lambda place, frame: [bytes(SIZE)] if place == PLACE else [frame],
}
ROLE_PUBLISHER, ROLE_SUBSCRIBER = b"p", b"s"
BARRIER = b"?"
PATIENCE_SECONDS = 0.5


@attrs.frozen
class Relay:
    address: Address
    pids: tuple[int, ...] = ()


@attrs.define
class Codec:
    """Frames are bodies; the end of what is there is the answer to a barrier."""

    settled: bool = False

    def enclose(self, place: int, topic: str, body_bytes: int) -> tuple[bytes, bytes]:
        return b"", b""

    def fence(self, sent: int) -> bytes:
        return b""

    def confirmed(self, data: bytes) -> tuple[int, int]:
        return 0, 0

    def begin(self) -> bytes:
        return b""

    def take(self, data: bytearray, start: int, end: int, arrivals: Arrivals) -> int:
        count = (end - start) // SIZE
        arrivals.column(data, start, SIZE, count)
        start += count * SIZE
        if data[start:end] == BARRIER:
            self.settled = True
            return end
        return start

    def answer(self) -> bytes:
        return b""

    def barrier(self) -> bytes:
        return BARRIER


@attrs.frozen
class Protocol:
    name: str = "relay"

    def prepare(self, address: Address, work: Work) -> None: ...

    def conclude(self, address: Address, work: Work) -> None: ...

    def publisher(self, address: Address, work: Work, place: int) -> tuple[socket.socket, Codec]:
        return self._connect(address, ROLE_PUBLISHER), Codec()

    def subscriber(self, address: Address, work: Work, place: int) -> tuple[socket.socket, Codec]:
        return self._connect(address, ROLE_SUBSCRIBER), Codec()

    def _connect(self, address: Address, role: bytes) -> socket.socket:
        sock = socket.create_connection(address)
        sock.sendall(role)
        assert sock.recv(1) == role
        return sock


@contextmanager
def relaying(fault: str) -> Iterator[Relay]:
    listener = socket.create_server(("127.0.0.1", 0))
    process = get_context("fork").Process(target=_relay, args=(listener, FAULTS[fault]))
    process.start()
    try:
        yield Relay(listener.getsockname())
    finally:
        process.terminate()
        process.join()


def _relay(listener: socket.socket, fault: Fault) -> None:
    with suppress(ConnectionError):  # who has found the fault leaves
        _carry(listener, fault)


def _carry(listener: socket.socket, fault: Fault) -> None:
    ends = {}
    for _ in range(2):
        sock, _ = listener.accept()
        role = sock.recv(1)
        sock.sendall(role)
        ends[role] = sock
    publisher, subscriber = ends[ROLE_PUBLISHER], ends[ROLE_SUBSCRIBER]
    stream = publisher.makefile("rb")
    for place in range(MESSAGES):
        for each in fault(place, stream.read(SIZE)):
            subscriber.sendall(each)
    subscriber.recv(1)
    subscriber.sendall(BARRIER)


def main(fault: str) -> None:
    work = Work(guarantee=Guarantee.AT_MOST_ONCE, messages=MESSAGES, sizes=(SIZE,))
    with relaying(fault) as relay:
        try:
            result = run(relay, WireClients(Protocol()), work, patience_seconds=PATIENCE_SECONDS)
        except (Miscounted, ClientFailed) as error:
            sys.stdout.write(f"found: {error}\n")
        else:
            sys.stdout.write(f"counted: {result.received}\n")


if __name__ == "__main__":
    main(sys.argv[1])
