"""Publishers on raw sockets: each keeps a window of messages unconfirmed, and times the CONFIRMs.

All connections are served by one thread. The frames are encoded beforehand and never touched
again: their correlation ids go round, twice as many as a window, so that an id is unambiguous.
"""

from __future__ import annotations

import selectors
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable

import attrs

from blipmq.protocol import encoder
from blipmq.protocol.frames import CONFIRM, HEADER, HEADER_BYTES, INFO, LENGTH_BYTES
from tools.bench.blipmq.connection import connect, refusal

_READ_BYTES = 1 << 16
_HELD_UP_SECONDS = 0.0005


@attrs.define(eq=False)
class _Connection:
    """Of the ids, `sent` and `confirmed` are the last ones that were. `groups` are the sends that
    are not confirmed: how many messages, and when."""

    sock: socket.socket
    unsent: int = 0
    unconfirmed: int = 0
    sent: int = 0
    confirmed: int = 0
    rest: bytes = b""
    groups: deque[tuple[int, float]] = attrs.Factory(deque)


@attrs.define(eq=False)
class Publishers:
    """Connections that publish to one topic, at most `window` messages unconfirmed on each.

    `latencies` gathers, for each send, the seconds from it to its CONFIRM, and how many messages
    it had; `sent` and `confirmed` count the messages of all.
    """

    window: int
    frame_bytes: int
    latencies: list[tuple[float, int]] = attrs.Factory(list)
    sent: int = 0
    confirmed: int = 0
    _frames: memoryview = attrs.field(factory=lambda: memoryview(b""))
    _connections: list[_Connection] = attrs.Factory(list)
    _selector: selectors.BaseSelector = attrs.Factory(selectors.DefaultSelector)

    @classmethod
    def connect(
        cls,
        address: tuple[str, int],
        api_key: str,
        topic: bytes,
        size: int,
        connections: int,
        window: int,
    ) -> Publishers:
        """On so many connections to a broker; `size` is that of a body."""
        sockets = [connect(address, api_key, version=2) for _ in range(connections)]
        return cls.on(sockets, topic, size, window)

    @classmethod
    def on(
        cls, sockets: Iterable[socket.socket], topic: bytes, size: int, window: int
    ) -> Publishers:
        """On these connections, of version 2 and authenticated."""
        ids = 2 * window
        body = bytes(size)
        ring = b"".join(encoder.publish(i + 1, 1, topic, body) for i in range(ids))
        self = cls(window, len(ring) // ids, frames=memoryview(ring + ring))
        for sock in sockets:
            connection = _Connection(sock)
            self._connections.append(connection)
            self._selector.register(sock, selectors.EVENT_READ, connection)
        return self

    def publish(self, messages: int, may_send: Callable[[], int] | None = None) -> None:
        """Publish so many on each connection, and return when all are confirmed.

        `may_send` tells how many of all connections may have been sent by now, counted from the
        beginning. Raises Refused for a NACK.
        """
        for connection in self._connections:
            connection.unsent += messages
        held_up = self._send_all(may_send)
        while self.confirmed < self.sent or held_up:
            timeout = _HELD_UP_SECONDS if held_up else None
            for key, _ in self._selector.select(timeout):
                self._receive(key.data)
                if may_send is None:
                    self._send(key.data, key.data.unsent)
            if may_send is not None:
                held_up = self._send_all(may_send)

    def _send_all(self, may_send: Callable[[], int] | None) -> bool:
        """Whether `may_send` holds something up that has room in its window."""
        held_up = False
        for connection in self._connections:
            most = connection.unsent if may_send is None else may_send() - self.sent
            self._send(connection, most)
            held_up |= connection.unsent > 0 and connection.unconfirmed < self.window
        return held_up

    def _send(self, connection: _Connection, most: int) -> None:
        count = min(self.window - connection.unconfirmed, connection.unsent, most)
        if count <= 0:
            return
        start = connection.sent * self.frame_bytes
        stop = start + count * self.frame_bytes
        connection.groups.append((count, time.perf_counter()))
        connection.sock.sendall(self._frames[start:stop])
        connection.sent = (connection.sent + count) % (2 * self.window)
        connection.unsent -= count
        connection.unconfirmed += count
        self.sent += count

    def _receive(self, connection: _Connection) -> None:
        data = connection.sock.recv(_READ_BYTES)
        if not data:
            raise ConnectionError("the broker closed the connection")
        now = time.perf_counter()
        data = connection.rest + data
        at = 0
        last = None
        while len(data) - at >= HEADER_BYTES:
            length, type_, id_ = HEADER.unpack_from(data, at)
            following = at + LENGTH_BYTES + length
            if type_ == CONFIRM:
                last = id_
            elif type_ != INFO:
                raise refusal(data[at:following])
            elif following > len(data):
                break
            at = following
        connection.rest = data[at:]
        if last is not None:
            self._confirm(connection, last, now)

    def _confirm(self, connection: _Connection, id_: int, now: float) -> None:
        ids = 2 * self.window
        count = (id_ - connection.confirmed) % ids
        connection.confirmed = id_ % ids
        connection.unconfirmed -= count
        self.confirmed += count
        groups = connection.groups
        while count:
            messages, sent_at = groups.popleft()
            if messages > count:
                groups.appendleft((messages - count, sent_at))
                messages = count
            count -= messages
            self.latencies.append((now - sent_at, messages))


def percentile(latencies: list[tuple[float, int]], share: float) -> float:
    """The seconds within which this share of the messages, 0 to 1, were confirmed."""
    wanted = share * sum(messages for _, messages in latencies)
    passed = 0
    for seconds, messages in sorted(latencies):
        passed += messages
        if passed >= wanted:
            return seconds
    raise ValueError("there are no latencies")
