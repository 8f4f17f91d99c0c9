"""Consumers on raw sockets: pushed messages are counted by the sizes of their frames.

What comes in one read is settled with one row. All messages have one size, and come once and in
order, or it is an error; so who has counted as many as were published has had every one.
"""

from __future__ import annotations

import selectors
import socket
from collections.abc import Iterator, Sequence

import attrs

from blipmq.protocol import encoder
from blipmq.protocol.frames import (
    DELIVER,
    HEADER,
    HEADER_BYTES,
    INFO,
    LENGTH_BYTES,
    Outcome,
)
from tools.bench.blipmq.connection import attach, connect, refusal

_BUFFER_BYTES = 1 << 22
_FRAME_BYTES_MAX = 1 << 18
"""What a DELIVER takes at most, unless it has a single message."""


@attrs.define(eq=False)
class Consumer:
    """One connection with one attachment. `received` counts messages, all of them settled."""

    sock: socket.socket
    subscription: int
    frame_bytes: int
    received: int = 0
    _buffer: bytearray = attrs.Factory(lambda: bytearray(_BUFFER_BYTES))
    _begin: int = 0
    _end: int = 0
    _last_tag: int = 0

    @classmethod
    def connect(
        cls,
        address: tuple[str, int],
        api_key: str,
        topic: bytes,
        name: bytes,
        size: int,
        prefetch: int,
    ) -> Consumer:
        """Attached to the subscription of that name; `size` is that of a body."""
        sock = connect(address, api_key, version=2)
        subscription = attach(sock, topic, name, prefetch=prefetch)
        return cls(sock, subscription, len(encoder.publish(0, 1, topic, bytes(size))))

    def receive(self) -> None:
        """One read; what came whole is counted and settled. Raises Refused."""
        if _BUFFER_BYTES - self._end < _FRAME_BYTES_MAX:
            rest = self._buffer[self._begin : self._end]
            self._buffer[: len(rest)] = rest
            self._begin, self._end = 0, len(rest)
        with memoryview(self._buffer) as view:
            count = self.sock.recv_into(view[self._end :])
        if not count:
            raise ConnectionError("the broker closed the connection")
        self._end += count
        before, last = self.received, self._last_tag
        self._take_frames()
        if self.received > before:
            row = (Outcome.ACCEPT, last + 1, self._last_tag, 0)
            self.sock.sendall(encoder.settle(self.subscription, [row]))

    def _take_frames(self) -> None:
        at, end = self._begin, self._end
        while end - at >= HEADER_BYTES:
            length, type_, _ = HEADER.unpack_from(self._buffer, at)
            following = at + LENGTH_BYTES + length
            if following > end:
                break
            if type_ == DELIVER:
                self._count(at + HEADER_BYTES, following)
            elif type_ != INFO:
                raise refusal(bytes(self._buffer[at:following]))
            at = following
        self._begin = at
        if at == end:
            self._begin = self._end = 0

    def _count(self, start: int, stop: int) -> None:
        """Count the messages in a DELIVER: they have equal sizes, so it is enough to look at two.

        Raises ValueError when they do not, or have come before.
        """
        size = self.frame_bytes
        count, rest = divmod(stop - start, size)
        first_length, _, first = HEADER.unpack_from(self._buffer, start)
        last_length, _, last = HEADER.unpack_from(self._buffer, stop - size)
        if rest or first_length != size - LENGTH_BYTES or last_length != first_length:
            raise ValueError("a message of another size")
        if first <= self._last_tag or last - first < count - 1:
            raise ValueError("a message came twice, or out of order")
        self.received += count
        self._last_tag = last


def consume(consumers: Sequence[Consumer], messages: int, step: int) -> Iterator[int]:
    """Receive so many messages in all. Yields how many there were, about every `step` of them."""
    with selectors.DefaultSelector() as selector:
        for consumer in consumers:
            selector.register(consumer.sock, selectors.EVENT_READ, consumer)
        received, due = 0, step
        while received < messages:
            for key, _ in selector.select():
                key.data.receive()
            received = sum(consumer.received for consumer in consumers)
            if received >= due:
                yield received
                due = received + step
        if received > messages:
            raise ValueError("more messages than were published")
        yield received
