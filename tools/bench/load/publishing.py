"""A publisher on a raw socket: blocks of frames out, confirms in."""

from __future__ import annotations

import select
import socket
import time
from collections import deque

from tools.bench.load.latencies import Latencies
from tools.bench.load.pace import Pace
from tools.bench.load.ring import Ring
from tools.bench.load.wire import PublishCodec, Refused
from tools.bench.load.work import Miscounted, Work

_READ_BYTES = 1 << 18
_SPIN_NS = 150_000
"""A sleep ends late by less than this; the rest before a message of a schedule is spun away."""


class WirePublisher:
    """One connection. `latencies` are from a send to the confirm, of each message."""

    def __init__(self, sock: socket.socket, codec: PublishCodec, work: Work, place: int) -> None:
        self.latencies = Latencies()
        self._sock = sock
        self._codec = codec
        self._ring = Ring(work, place, codec.enclose)
        self._confirms = bool(work.guarantee)
        self._rest = b""
        self._sent = 0
        self._unconfirmed: deque[tuple[int, int]] = deque()

    def send(self, count: int, stamps: list[int] | None = None) -> None:
        """Send so many, stamped with these times or with the present."""
        if self._confirms:
            if stamps is None:
                self._unconfirmed.append((count, time.monotonic_ns()))
            else:
                self._unconfirmed.extend((1, stamp) for stamp in stamps)
        self._ring.send(self._sock, count, stamps)
        self._sent += count
        fence = self._codec.fence(self._sent)
        if fence:
            self._sock.sendall(fence)

    def confirmed(self, *, wait: bool) -> int:
        """How many were confirmed by what has come, or, to `wait`, comes next. Raises Refused."""
        try:
            data = self._sock.recv(_READ_BYTES, 0 if wait else socket.MSG_DONTWAIT)
        except BlockingIOError:
            return 0
        if not data:
            raise Refused("the broker closed a publisher's connection")
        now = time.monotonic_ns()
        data = self._rest + data
        taken, count = self._codec.confirmed(data)
        self._rest = data[taken:]
        if self._confirms:
            self._note(count, now)
        return count

    def _note(self, count: int, now_ns: int) -> None:
        while count:
            if not self._unconfirmed:
                raise Miscounted("more messages were confirmed than published")
            messages, sent_ns = self._unconfirmed.popleft()
            if messages > count:
                self._unconfirmed.appendleft((messages - count, sent_ns))
                messages = count
            count -= messages
            self.latencies.add(now_ns - sent_ns, messages)

    def run(self, pace: Pace) -> None:
        """Publish as the pace says, and return when all is confirmed, or sent at QoS 0."""
        while not pace.done:
            count = pace.take()
            if count:
                self.send(count, pace.stamps(count))
                if self._confirms:
                    pace.confirmed += self.confirmed(wait=pace.window_full)
            elif pace.window_full:
                pace.confirmed += self.confirmed(wait=True)
            else:
                self._wait(pace)
        while self._confirms and pace.confirmed < pace.sent:
            pace.confirmed += self.confirmed(wait=True)

    def _wait(self, pace: Pace) -> None:
        """Until the pace may allow more: its time has come, or something was confirmed."""
        until = pace.resume_ns()
        spin_ns = _SPIN_NS if pace.scheduled else 0
        while (left := until - time.monotonic_ns()) > 0:
            sleep = max(0, left - spin_ns) / 1e9
            if self._confirms and pace.confirmed < pace.sent:
                if select.select([self._sock], [], [], sleep)[0]:
                    pace.confirmed += self.confirmed(wait=True)
                    return
            elif sleep:
                time.sleep(sleep)
