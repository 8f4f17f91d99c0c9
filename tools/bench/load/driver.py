"""Clients as a library makes them: a driver publishes and consumes with it, in a process each."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Protocol

from tools.bench.load.arrivals import Arrivals
from tools.bench.load.body import BODY_BYTES_MIN, STAMP
from tools.bench.load.counters import Counters
from tools.bench.load.latencies import Latencies
from tools.bench.load.pace import Pace
from tools.bench.load.ring import bodies, stamped
from tools.bench.load.server import Address
from tools.bench.load.work import Miscounted, Work

_PROGRESS_EVERY = 32


class Publishing:
    """What one publishing program has to do, and tells of it.

    `go` is called once, when it is connected. Then `next` is called again and again, until `done`.
    At QoS 1 it calls `confirm`, and is `finished` only when all is confirmed.
    """

    def __init__(self, work: Work, place: int, counters: Counters, go: Callable[[], None]) -> None:
        self.work = work
        self.place = place
        self.topics = [work.topic(topic) for topic in work.publisher_topics(place)]
        self.latencies = Latencies()
        self.began_ns = 0
        self._go = go
        self._pace = Pace(work, place, counters)
        self._bodies = bodies(work, place)
        self._stamped = frozenset(stamped(work, place))
        self._at = 0

    def go(self) -> None:
        """Returns when all are ready; blocks."""
        self._go()
        self.began_ns = self._pace.begin()

    @property
    def sent(self) -> int:
        return self._pace.sent

    @property
    def done(self) -> bool:
        """Nothing is left to be sent."""
        return self._pace.done

    @property
    def finished(self) -> bool:
        """Nothing is left to be sent or confirmed."""
        return self.done and (not self.work.guarantee or self._pace.confirmed == self._pace.sent)

    def next(self) -> Sequence[tuple[str, bytes]]:
        """Topic and body of each message to be sent now, in order.

        When there are none, it is to be called again after `pause_seconds`, or after a confirm
        when `window_full`.
        """
        count = self._pace.take()
        if not count:
            return ()
        stamps = self._pace.stamps(count)
        found = []
        now = time.monotonic_ns()
        for index in range(count):
            topic, content = self._bodies[self._at]
            if self._at in self._stamped:
                stamp = now if stamps is None else stamps[index]
                content = STAMP.pack(stamp) + content[STAMP.size :]
            found.append((topic, content))
            self._at = self._at + 1 if self._at + 1 < len(self._bodies) else 0
        return found

    @property
    def window_full(self) -> bool:
        return self._pace.window_full

    def keep_no_window(self) -> None:
        """The library bounds what is not confirmed itself."""
        self._pace.window = None

    def pause_seconds(self) -> float:
        return max(0, self._pace.resume_ns() - time.monotonic_ns()) / 1e9

    def confirm(self, count: int, sent_ns: int | None = None) -> None:
        """So many more are confirmed, sent at that time of `time.monotonic_ns` if it is known."""
        self._pace.confirmed += count
        if sent_ns is not None:
            self.latencies.add(time.monotonic_ns() - sent_ns, count)


class Consuming:
    """What one consuming program has to do, and tells of it.

    `go` is called once, when it is subscribed. Then `take` is called with every body.
    """

    def __init__(self, work: Work, place: int, counters: Counters, go: Callable[[], None]) -> None:
        self.work = work
        self.place = place
        self.topics = [work.topic(topic) for topic in work.subscriber_topics(place)]
        self.name = f"bench-{place}"
        self.arrivals = Arrivals(work, place)
        self.began_ns = 0
        self.received_ns = 0
        self._counters = counters
        self._go = go
        self._goal: int | None = None

    def go(self) -> None:
        """Returns when all are ready; blocks."""
        self._go()
        self.began_ns = time.monotonic_ns()
        self._goal = self._counters.goal(self.place)

    @property
    def done(self) -> bool:
        """Everything has come, which may be nothing at all."""
        return self.arrivals.received == self._goal

    def take(self, content: bytes) -> bool:
        """Count a message; whether it was the last one. Raises Miscounted."""
        arrivals = self.arrivals
        arrivals.one(content, 0)
        received = arrivals.received
        if received % _PROGRESS_EVERY and self._goal is not None and received < self._goal:
            return False
        self._counters.received[self.place] = received
        if self._goal is None:
            self._goal = self._counters.goal(self.place)
        if self._goal is None or received < self._goal:
            return False
        if received > self._goal:
            raise Miscounted(f"{received:,} messages of {self._goal:,}: some came twice")
        self.received_ns = time.monotonic_ns()
        return True


class ClientDriver(Protocol):
    """Programs with one client library; each function is the whole of a process.

    They return when there is nothing more to do: all was sent and confirmed, or taken and
    acknowledged as far as the library can tell. It is copied into client processes.
    """

    @property
    def name(self) -> str: ...

    def prepare(self, address: Address, work: Work) -> None:
        """As `WireProtocol.prepare`."""

    def conclude(self, address: Address, work: Work) -> None:
        """As `WireProtocol.conclude`."""

    def publish(self, address: Address, publishing: Publishing) -> None: ...

    def consume(self, address: Address, consuming: Consuming) -> None: ...

    def round_trips(self, address: Address, trips: RoundTrips) -> None:
        """Publish one message and receive it, again and again, in one program."""


class RoundTrips:
    """One message at a time. `body` is sent, and `took` called with what is received, until `done`.

    `go` is called once, when it is subscribed. `latencies` are those from before the call that
    sends to after the one that receives.
    """

    def __init__(self, work: Work, go: Callable[[], None]) -> None:
        self.work = work
        self.began_ns = 0
        self._go = go
        self.topic = work.topic(0)
        self.latencies = Latencies()
        self._left = work.messages or 0
        self._size = max(work.sizes[0], BODY_BYTES_MIN)
        self._sent = b""
        self._sent_ns = 0

    def go(self) -> None:
        """Returns when all are ready; blocks."""
        self._go()
        self.began_ns = time.monotonic_ns()

    @property
    def done(self) -> bool:
        return not self._left

    def body(self) -> bytes:
        """What to send next; the time counts from here."""
        self._sent = self._left.to_bytes(8).ljust(self._size, b"\0")
        self._sent_ns = time.monotonic_ns()
        return self._sent

    def took(self, content: bytes) -> None:
        """It is there. Raises Miscounted when it is not what was sent."""
        now = time.monotonic_ns()
        if content != self._sent:
            raise Miscounted("another message came than the one that was sent")
        self.latencies.add(now - self._sent_ns)
        self._left -= 1
