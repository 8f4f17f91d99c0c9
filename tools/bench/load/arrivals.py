"""What a subscriber got: every message is counted, and looked at for its place in its stream."""

from __future__ import annotations

import time

from tools.bench.load.body import NUMBER, NUMBER_AT, NUMBER_LOW_AT, STAMP
from tools.bench.load.latencies import Latencies
from tools.bench.load.work import Miscounted, Work


class Arrivals:
    """Of one subscriber. `now_ns` is set by who reads, once for each read; 0: it is looked up.

    Raises Miscounted when a message of a stream is not the one that follows.
    """

    def __init__(self, work: Work, place: int) -> None:
        self.received = 0
        self.now_ns = 0
        self.latencies = Latencies()
        self._cycle = work.cycle
        self._sampled = work.sampled
        self._next = {
            work.stream(publisher, work.publisher_topics(publisher)[at]): 0
            for publisher in range(work.publishers)
            for at in work.common(publisher, place)
        }
        self._alone = next(iter(self._next)) if len(self._next) == 1 else None
        self._lows = bytes(number & 0xFF for number in range(self._cycle)) * 2

    def one(self, data: bytes | bytearray | memoryview, at: int) -> None:
        """A message whose body begins there."""
        number, stream = NUMBER.unpack_from(data, at + NUMBER_AT)
        if self._next.get(stream) != number:
            raise Miscounted(self._complaint(stream, number))
        self._next[stream] = number + 1 if number + 1 < self._cycle else 0
        self.received += 1
        if number % self._sampled == 0:
            self._stamp(data, at)

    def column(self, data: bytes | bytearray, body_at: int, stride: int, count: int) -> None:
        """So many messages of equal frames, `stride` bytes each, the first body of them there.

        Of one stream, all are looked at at once.
        """
        stream = self._alone
        if stream is None:
            for at in range(body_at, body_at + count * stride, stride):
                self.one(data, at)
            return
        if not count:
            return
        first = self._next[stream]
        while len(self._lows) < first + count:
            self._lows += self._lows
        low_at = body_at + NUMBER_LOW_AT
        lows = data[low_at : low_at + (count - 1) * stride + 1 : stride]
        number, its_stream = NUMBER.unpack_from(data, body_at + NUMBER_AT)
        if (number, its_stream) != (first, stream) or lows != self._lows[first : first + count]:
            self._find(data, body_at, stride, count)
        for at in range(-first % self._sampled, count, self._sampled):
            self._stamp(data, body_at + at * stride)
        self._next[stream] = (first + count) % self._cycle
        self.received += count

    def _find(self, data: bytes | bytearray, body_at: int, stride: int, count: int) -> None:
        """Which one it is. Raises Miscounted."""
        for at in range(body_at, body_at + count * stride, stride):
            self.one(data, at)
        raise Miscounted("messages are not in order")

    def _stamp(self, data: bytes | bytearray | memoryview, at: int) -> None:
        now = self.now_ns or time.monotonic_ns()
        self.latencies.add(now - STAMP.unpack_from(data, at)[0])

    def _complaint(self, stream: int, number: int) -> str:
        if stream not in self._next:
            return f"a message of stream {stream}, to which this subscriber has not subscribed"
        return (
            f"after {self.received:,} messages: number {number} of stream {stream}, "
            f"expected {self._next[stream]}; one is missing, or came twice, or out of order"
        )
