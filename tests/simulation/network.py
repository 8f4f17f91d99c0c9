"""TCP without the kernel: connections that are slow, cut up, stalled, half-open or reset.

Both directions of a connection keep their order and lose nothing while it lasts; connections are
independent of each other.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from random import Random
from typing import Final, cast

import attrs
import trio

from tests.simulation.repeatable import chance

KEEPALIVE_SECONDS: Final = 10.0
"""After so long the ends of a half-open connection find out."""
_HOST: Final = "192.0.2.1"


@attrs.define
class Link:
    """How the network is at the moment, for all connections: delays in seconds, sizes in bytes."""

    delay: float = 0.0
    """At most; none if 0."""
    piece: int = 1 << 16
    """At most so many bytes are sent or received at a time."""
    window: int = 1 << 16
    """So many bytes are under way before a sender has to wait."""


@attrs.define(eq=False)
class Pipe:
    """One direction of a connection."""

    link: Link
    rng: Random
    on_sent: Callable[[bytes], None] | None = None
    """Called with all that is given to be sent."""
    broken: bool = False
    lost: bool = False
    """What is sent from now on goes nowhere, and nobody is told."""
    stalled_until: float = 0.0
    _parts: deque[tuple[float, bytes]] = attrs.Factory(deque)
    """With when they arrive."""
    _size: int = 0
    _ended: bool = False
    _closed: bool = False
    _receivers: trio.lowlevel.ParkingLot = attrs.Factory(trio.lowlevel.ParkingLot)
    _senders: trio.lowlevel.ParkingLot = attrs.Factory(trio.lowlevel.ParkingLot)

    def wake(self) -> None:
        self._receivers.unpark_all()
        self._senders.unpark_all()

    def break_(self) -> None:
        self.broken = True
        self.wake()

    def end(self) -> None:
        """Nothing more is sent."""
        self._ended = True
        self.wake()

    def close(self) -> None:
        """Nothing more is received."""
        self._closed = True
        self._parts.clear()
        self._size = 0
        self.wake()

    def stall(self, until: float) -> None:
        self.stalled_until = max(self.stalled_until, until)

    async def send(self, data: bytes | bytearray | memoryview) -> None:
        rest = memoryview(data)
        if self.on_sent is not None:
            self.on_sent(bytes(rest))
        await trio.lowlevel.checkpoint()
        while True:
            if self._ended:
                raise trio.ClosedResourceError
            if self.broken or self._closed:
                raise trio.BrokenResourceError("the connection was reset")
            if not len(rest):
                return
            room = min(self.link.window - self._size, self._piece())
            if room <= 0:
                await self._senders.park()
                continue
            self._put(bytes(rest[:room]))
            rest = rest[room:]

    def _piece(self) -> int:
        piece = self.link.piece
        return self.rng.randint(1, piece) if piece < 1 << 16 else piece

    def _put(self, part: bytes) -> None:
        self._size += len(part)
        if self.lost:
            return
        arrival = trio.current_time()
        if self.link.delay:
            arrival += self.rng.random() * self.link.delay
        if self._parts:
            arrival = max(arrival, self._parts[-1][0])
        self._parts.append((arrival, part))
        self._receivers.unpark_all()

    async def receive(self, max_bytes: int | None) -> bytes:
        await trio.lowlevel.checkpoint()
        while True:
            if self._closed:
                raise trio.ClosedResourceError
            if self.broken:
                raise trio.BrokenResourceError("the connection was reset")
            if self._parts:
                arrival = max(self._parts[0][0], self.stalled_until)
                if arrival <= trio.current_time():
                    return self._take(max_bytes or 1 << 16)
                with trio.move_on_at(arrival):
                    await self._receivers.park()
            elif self._ended and not self.lost:
                return b""
            else:
                await self._receivers.park()

    def _take(self, most: int) -> bytes:
        now = trio.current_time()
        most = min(most, self._piece())
        taken = b""
        while self._parts and self._parts[0][0] <= now and len(taken) < most:
            arrival, part = self._parts.popleft()
            taken += part
            if len(taken) > most:
                self._parts.appendleft((arrival, taken[most:]))
                taken = taken[:most]
        self._size -= len(taken)
        self._senders.unpark_all()
        return taken


@attrs.frozen
class Address:
    """What is asked of a socket."""

    port: int

    def getsockname(self) -> tuple[str, int]:
        return _HOST, self.port

    getpeername = getsockname


@attrs.define(eq=False)
class Line:
    """One connection, by its number; `who` made it."""

    number: int
    who: str
    up: Pipe
    down: Pipe
    opened_at: float = attrs.Factory(trio.current_time)
    broken_at: float = math.inf
    """When the daemon, or the network, ended it."""
    lost_at: float = math.inf
    ended_at: float = math.inf
    """When either side began to end it."""

    def end(self) -> None:
        self.ended_at = min(self.ended_at, trio.current_time())

    def reset(self) -> None:
        self.end()
        self.broken_at = min(self.broken_at, trio.current_time())
        self.up.break_()
        self.down.break_()

    def lose(self) -> None:
        """Half-open from now on."""
        self.up.lost = self.down.lost = True
        self.lost_at = trio.current_time()

    def stall(self, until: float, *, up: bool = True) -> None:
        """Nothing arrives until then, at the client, and `up` at the daemon."""
        self.down.stall(until)
        if up:
            self.up.stall(until)

    @property
    def alive(self) -> bool:
        """Whether the daemon may still think that it is."""
        return self.broken_at == math.inf


@attrs.define(eq=False)
class End(trio.abc.HalfCloseableStream):
    """The client's end of a connection, or the daemon's."""

    line: Line
    incoming: Pipe
    outgoing: Pipe
    socket: Address
    server: bool = False

    def setsockopt(self, level: int, option: int, value: int) -> None:
        pass

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self.outgoing.send(data)

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def send_eof(self) -> None:
        await trio.lowlevel.checkpoint()
        self.line.end()
        self.outgoing.end()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        return await self.incoming.receive(max_bytes)

    async def aclose(self) -> None:
        self.line.end()
        if self.server:
            self.line.broken_at = min(self.line.broken_at, trio.current_time())
        self.outgoing.end()
        self.incoming.close()
        await trio.lowlevel.checkpoint()


class Listener(trio.abc.Listener[End]):
    """Gives the connections that clients make."""

    def __init__(self, port: int) -> None:
        self.socket = Address(port)
        self.send, self._accepted = trio.open_memory_channel[End](math.inf)

    async def accept(self) -> End:
        return await self._accepted.receive()

    async def aclose(self) -> None:
        self._accepted.close()
        await trio.lowlevel.checkpoint()


@attrs.define(eq=False)
class Network:
    """All connections to one daemon. `tap` gives for a connection who listens to the daemon."""

    link: Link
    seed: int
    tap: Callable[[Line], Callable[[bytes], None]]
    lines: list[Line] = attrs.Factory(list)
    listener: Listener | None = None
    _cut_until: dict[str, float] = attrs.Factory(dict)
    """By who, until when nothing of theirs arrives anywhere."""

    async def listen(self, host: str, port: int) -> list[trio.SocketListener]:
        """As `blipmq.nursery.outside.Outside.listen`."""
        await trio.lowlevel.checkpoint()
        self.listener = Listener(port)
        return [cast(trio.SocketListener, self.listener)]

    async def connect(self, who: str) -> End:
        """Raises ConnectionRefusedError when nobody listens."""
        await trio.lowlevel.checkpoint()
        await trio.sleep_until(max(trio.current_time(), self._cut_until.get(who, 0.0)))
        number = len(self.lines) + 1
        up, down = (Pipe(self.link, chance(self.seed, number, way)) for way in ("up", "down"))
        line = Line(number, who, up, down)
        line.down.on_sent = self.tap(line)
        address = Address(20_000 + number)
        server = End(line, line.up, line.down, address, server=True)
        if self.listener is None:
            raise ConnectionRefusedError("connection refused")
        try:
            self.listener.send.send_nowait(server)
        except trio.BrokenResourceError:
            raise ConnectionRefusedError("connection refused") from None
        self.lines.append(line)
        return End(line, line.down, line.up, address)

    def of(self, who: str) -> list[Line]:
        """The connections of one client that are open."""
        return [line for line in self.lines if line.who == who and line.alive]

    def partition(self, who: list[str], until: float) -> None:
        """Nothing of these clients arrives anywhere until then."""
        for each in who:
            self._cut_until[each] = max(until, self._cut_until.get(each, 0.0))
            for line in self.of(each):
                line.stall(until)

    def keepalive(self) -> None:
        """The ends of what is half-open for long find out."""
        now = trio.current_time()
        for line in self.lines:
            if line.alive and now >= line.lost_at + KEEPALIVE_SECONDS:
                line.reset()

    def heal(self) -> None:
        """Nothing is stalled or half-open any more."""
        self._cut_until.clear()
        for line in self.lines:
            line.up.stalled_until = line.down.stalled_until = 0.0
            line.up.wake()
            line.down.wake()
            if line.lost_at < math.inf:
                line.reset()

    def killed(self, *, power: bool) -> None:
        """The daemon's machine closes what its process had open, or is gone without a word."""
        self.listener = None
        for line in self.lines:
            line.down.on_sent = None
            if not line.alive:
                continue
            line.end()
            if power:
                line.lose()
                line.broken_at = trio.current_time()
            else:
                line.broken_at = trio.current_time()
                line.up.break_()
                line.down.end()

    def back(self) -> None:
        """The machine is there again, and knows nothing of its old connections."""
        for line in self.lines:
            if not line.alive:
                line.up.break_()
                line.down.end()
                if line.lost_at < math.inf:
                    line.down.break_()
