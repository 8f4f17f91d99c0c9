"""A subscriber on a raw socket: large reads, messages counted where they lie."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

from tools.bench.load.arrivals import Arrivals
from tools.bench.load.wire import Refused, SubscribeCodec
from tools.bench.load.work import Miscounted

BUFFER_BYTES = 1 << 22
_ROOM_BYTES = 1 << 19
"""What the broker may send in one piece that can only be looked at whole."""


class WireSubscriber:
    """One connection. `received_ns` is when the last message came, `settled_ns` when the broker
    had dealt with every acknowledgement.
    """

    def __init__(self, sock: socket.socket, codec: SubscribeCodec, arrivals: Arrivals) -> None:
        self.arrivals = arrivals
        self.received_ns = 0
        self.settled_ns = 0
        self._sock = sock
        self._codec = codec
        self._buffer = bytearray(BUFFER_BYTES)
        self._view = memoryview(self._buffer)
        self._begin = 0
        self._end = 0

    def begin(self) -> None:
        """Let messages come."""
        self._send(self._codec.begin())

    def receive(self) -> int:
        """One read; what came whole is counted, and acknowledged. How many there were.

        Raises Miscounted and Refused.
        """
        if self._begin == self._end:
            self._begin = self._end = 0
        elif BUFFER_BYTES - self._end < _ROOM_BYTES:
            rest = self._buffer[self._begin : self._end]
            self._buffer[: len(rest)] = rest
            self._begin, self._end = 0, len(rest)
        count = self._sock.recv_into(self._view[self._end :])
        arrivals = self.arrivals
        arrivals.now_ns = time.monotonic_ns()
        if not count:
            raise Refused("the broker closed a subscriber's connection")
        self._end += count
        before = arrivals.received
        self._begin = self._codec.take(self._buffer, self._begin, self._end, arrivals)
        answer = self._codec.answer()
        if answer:
            self._sock.sendall(answer)
        return arrivals.received - before

    def run(self, goal: Callable[[], int | None], progress: Callable[[int], None]) -> None:
        """Receive until the goal, which is None while it is not known, and settle.

        Raises Miscounted also when more comes.
        """
        arrivals = self.arrivals
        last = goal()
        while last is None or arrivals.received < last:
            self.receive()
            progress(arrivals.received)
            if last is None:
                last = goal()
        self.received_ns = arrivals.now_ns
        self._send(self._codec.barrier())
        while not self._codec.settled:
            self.receive()
        self.settled_ns = time.monotonic_ns()
        if arrivals.received > last:
            raise Miscounted(f"{arrivals.received:,} messages of {last:,}: some came twice")

    def _send(self, data: bytes) -> None:
        if data:
            self._sock.sendall(data)
