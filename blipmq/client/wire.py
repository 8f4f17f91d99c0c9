"""What both protocol versions make of one connection: frames out, frames in, requests answered.

Knows correlation ids; knows nothing of topics. Everything but `run`, `room` and `request` is
synchronous, so whoever calls it is never left with half of it done.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Final

import attrs
import trio

from blipmq.client.line import Line
from blipmq.client.outbox import Outbox
from blipmq.client.refusals import Refusals
from blipmq.client.reply import Expected, Reply, again
from blipmq.client.splitter import Splitter
from blipmq.client.unwrapped import unwrapped
from blipmq.errors import ClientClosed, ClientError, ConnectionLost, FramingError, Refused, refusal
from blipmq.protocol.frames import ACK, TYPES, U16, U64, Frame

FIRST_ID: Final = 2**63
"""Correlation ids of requests count up from here, and tags from 1: they never meet."""
_GOODBYE_SECONDS: Final = 2.0


@attrs.define(eq=False)
class Wire(ABC):
    """One authenticated connection. `name` is what errors call the other end, `rest` what came
    from it behind the handshake.

    Requests are numbered in the order in which they are sent, and the broker answers in that
    order; so an answer also says that everything sent before its request was looked at.
    """

    _stream: trio.abc.Stream
    name: str
    rest: bytes = b""
    refusals: Refusals = attrs.field(factory=Refusals)
    outbox: Outbox = attrs.field(factory=Outbox)
    types: Mapping[int, str] = attrs.field(default=TYPES, init=False)
    """The frames that may come, with their names."""
    _line: Line = attrs.field(init=False)
    _next_id: int = attrs.field(default=FIRST_ID, init=False)
    _expected: dict[int, Expected] = attrs.field(factory=dict, init=False)
    _ended: ClientError | None = attrs.field(default=None, init=False)
    _leaving: bool = attrs.field(default=False, init=False)
    _running: trio.CancelScope = attrs.field(
        factory=lambda: trio.CancelScope(shield=True), init=False
    )

    def __attrs_post_init__(self) -> None:
        self._line = Line(self._stream)

    # What the rest of the client asks of it.

    def check(self) -> None:
        """Raises `ConnectionLost` or `ClientClosed` when nothing can be sent any more."""
        if self._ended is not None:
            raise again(self._ended)
        if self._leaving:
            raise closed()

    async def room(self) -> None:
        """Waits until the outbox takes more; a checkpoint only if it has to wait.

        Raises as `check` does. Until the next checkpoint, the caller may send.
        """
        self.check()
        while self.outbox.full:
            await self.outbox.emptied()
            self.check()

    def ask(self, frames: Callable[[int], bytes], expected: Expected) -> int:
        """Sends a request, which `frames` makes for a correlation id. Returns the id."""
        assert self._ended is None
        id_ = self._next_id
        self._next_id += 1
        self._expected[id_] = expected
        self.outbox.put(frames(id_))
        return id_

    async def request(self, frames: Callable[[int], bytes], type_: int = ACK) -> Frame:
        """Sends a request and waits for its answer, of that type. Raises its NACK's error.

        Cancelling it after it was sent leaves the answer to come, and to be dropped.
        """
        reply = Reply(type_)
        await self.room()
        self.ask(frames, reply)
        return await reply.wait()

    def forget(self, ids: Iterable[int]) -> None:
        """Expects nothing more for these requests."""
        for id_ in ids:
            self._expected.pop(id_, None)

    # Its life.

    async def run(self) -> None:
        """Reads and writes until the connection is lost, then closes it and returns.

        To be run once, in a task of its own, which is ended by `stop` and cannot be cancelled from
        elsewhere: what its callers do when they are cancelled may need the connection.
        """
        try:
            with self._running, unwrapped():
                async with trio.open_nursery() as nursery:
                    for work in self._work():
                        nursery.start_soon(self._until_lost, work, nursery.cancel_scope)
        finally:
            graceful = isinstance(self._ended, ClientClosed)
            with trio.move_on_after(_GOODBYE_SECONDS if graceful else 0, shield=True):
                await self._stream.aclose()

    def stop(self) -> None:
        """Ends the connection for good: everyone who waits or comes later gets `ClientClosed`."""
        self._end(closed())
        self._running.cancel()

    def _work(self) -> list[Callable[[], Awaitable[None]]]:
        """What runs while the connection does; when the first of these ends, it is lost."""
        return [self._read, self._write]

    def _end(self, error: ClientError) -> None:
        # The first loss stays the reason, until the client is closed.
        if self._ended is None or isinstance(error, ClientClosed):
            self._ended = error
        expected, self._expected = self._expected, {}
        for waiting in expected.values():
            waiting.lost(error)
        self.outbox.wake()

    async def _until_lost(
        self, work: Callable[[], Awaitable[None]], all_: trio.CancelScope
    ) -> None:
        try:
            await work()
            lost = hung_up(self.name)
        except FramingError as error:
            lost = broken_protocol(self.name, error)
        except ConnectionLost as error:
            lost = error
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            lost = broken(self.name, error)
        self._end(lost)
        all_.cancel()

    async def _write(self) -> None:
        while True:
            await self._line.send(await self.outbox.take())

    async def _read(self) -> None:
        splitter = Splitter(self.types)
        data = self.rest or await self._line.receive()
        while data:
            for frame in splitter.split(data):
                self.take(frame)
            data = await self._line.receive()

    # What comes in.

    @abstractmethod
    def take(self, frame: Frame) -> None:
        """A frame has come. Raises `FramingError` for one that must not."""

    def _answered(self, frame: Frame) -> None:
        """An ACK or a PONG that answers a request."""
        if frame.type == ACK and len(frame.payload) != U64.size:
            raise FramingError("a malformed ACK")
        waiting = self._expected.get(frame.correlation_id)
        if waiting is None:
            raise FramingError(f"{TYPES[frame.type]} to a request that does not wait for one")
        waiting.answered(frame)
        del self._expected[frame.correlation_id]  # not before: it must hear of a bad answer, too


def parse_nack(frame: Frame) -> Refused:
    """The error that a NACK stands for. Raises `FramingError` when it is malformed."""
    payload = frame.payload
    fixed = 2 * U16.size
    if len(payload) < fixed or len(payload) != fixed + U16.unpack_from(payload, U16.size)[0]:
        raise FramingError("a malformed NACK")
    (code,) = U16.unpack_from(payload)
    return refusal(code, payload[fixed:].decode(errors="replace"))


def closed() -> ClientClosed:
    return ClientClosed("the client's `async with` block has ended")


def hung_up(name: str) -> ConnectionLost:
    return ConnectionLost(f"the broker at {name} closed the connection")


def broken_protocol(name: str, error: FramingError) -> ConnectionLost:
    lost = ConnectionLost(f"{name} does not keep to the protocol: it sent {error}")
    lost.__cause__ = error
    return lost


def broken(name: str, error: Exception) -> ConnectionLost:
    lost = ConnectionLost(f"the connection to {name} broke: {error.__cause__ or error}")
    lost.__cause__ = error
    return lost
