"""The frames of a publisher, encoded beforehand and sent again and again."""

from __future__ import annotations

import socket
import time
from bisect import bisect_left
from collections.abc import Callable, Sequence

from tools.bench.load.body import STAMP, body
from tools.bench.load.work import Work

Enclose = Callable[[int, str, int], tuple[bytes, bytes]]
"""What stands before and after a body: by the frame's place in the ring, its topic, the bytes of
the body."""


def bodies(work: Work, place: int) -> list[tuple[str, bytes]]:
    """Topic and body of every message of that publisher, before they begin anew."""
    topics, sizes = work.publisher_topics(place), work.sizes
    found = []
    for number in range(work.cycle):
        for at, topic in enumerate(topics):
            # Each topic gets every size, however many there are of both.
            size = sizes[(number * len(topics) + at + number) % len(sizes)]
            found.append((work.topic(topic), body(size, work.stream(place, topic), number)))
    return found


def stamped(work: Work, place: int) -> list[int]:
    """The places in the ring of messages that carry a time stamp."""
    each = len(work.publisher_topics(place))
    return [at for at in range(work.cycle * each) if at // each % work.sampled == 0]


class Ring:
    """Frames end to end; the next one to send is remembered."""

    def __init__(self, work: Work, place: int, enclose: Enclose) -> None:
        self._data = bytearray()
        self._starts = [0]
        self._bodies: list[int] = []
        for at, (topic, content) in enumerate(bodies(work, place)):
            before, after = enclose(at, topic, len(content))
            self._bodies.append(len(self._data) + len(before))
            self._data += before + content + after
            self._starts.append(len(self._data))
        self._stamped = stamped(work, place)
        self._view = memoryview(self._data)
        self._at = 0

    @property
    def frames(self) -> int:
        return len(self._bodies)

    def send(self, sock: socket.socket, count: int, stamps: Sequence[int] | None = None) -> None:
        """Send the next so many frames, stamped with these times or, without, with the present."""
        while count:
            stop = min(self._at + count, self.frames)
            taken = stop - self._at
            self._stamp(stop, stamps)
            sock.sendall(self._view[self._starts[self._at] : self._starts[stop]])
            stamps = stamps[taken:] if stamps is not None else None
            self._at = stop % self.frames
            count -= taken

    def _stamp(self, stop: int, stamps: Sequence[int] | None) -> None:
        now = time.monotonic_ns()
        for at in self._stamped[bisect_left(self._stamped, self._at) :]:
            if at >= stop:
                break
            stamp = now if stamps is None else stamps[at - self._at]
            STAMP.pack_into(self._data, self._bodies[at], stamp)
