"""The wire half of the client: frames out, frames in, and who waits for which answer.

Knows correlation ids and the order of answers; knows nothing of topics. Everything but `run`
and `room` is synchronous, so whoever calls it is never left with half of it done.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

import attrs
import trio

from blipmq.client import delivery
from blipmq.client.outbox import Outbox
from blipmq.client.refusals import Refusals
from blipmq.client.reply import Expected, Reply, again
from blipmq.client.round import Round, Sink
from blipmq.client.splitter import Splitter
from blipmq.client.unwrapped import unwrapped
from blipmq.errors import ClientClosed, ClientError, ConnectionLost, FramingError, Refused, refusal
from blipmq.protocol import encoder
from blipmq.protocol.frames import ACK, NACK, PONG, PUBLISH, TYPES, U16, U64, Frame

FIRST_ID: Final = 2**63
"""Correlation ids of requests count up from here, and delivery tags from 1: they never meet."""

NO_SUBSCRIPTION: Final = 2**64 - 1
"""A subscription id that is never given out, so that a POLL of it finds nothing."""


@attrs.define(eq=False)
class Connection:
    """One connection to a broker. `name` is what errors call the other end.

    Requests are numbered in the order in which they are sent, and the broker answers in that
    order; so an answer also says that everything sent before its request was looked at.
    """

    _stream: trio.abc.Stream
    name: str
    refusals: Refusals = attrs.field(factory=Refusals, init=False)
    _outbox: Outbox = attrs.field(factory=Outbox, init=False)
    _next_id: int = attrs.field(default=FIRST_ID, init=False)
    _answered_id: int = attrs.field(default=FIRST_ID, init=False)
    _told_id: int = attrs.field(default=FIRST_ID, init=False)
    """An answer to this request or a later one says that all that was told has arrived."""
    _expected: dict[int, Expected] = attrs.field(factory=dict, init=False)
    _rounds: deque[Round] = attrs.field(factory=deque, init=False)
    _sinks: list[Sink] = attrs.field(factory=list, init=False)
    _ended: ClientError | None = attrs.field(default=None, init=False)
    _leaving: bool = attrs.field(default=False, init=False)
    _running: trio.CancelScope = attrs.field(
        factory=lambda: trio.CancelScope(shield=True), init=False
    )

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
        while self._outbox.full:
            await self._outbox.emptied()
            self.check()

    def ask(self, frames: Callable[[int], bytes], expected: Expected) -> int:
        """Sends a request, which `frames` makes for a correlation id. Returns the id."""
        assert self._ended is None
        id_ = self._next_id
        self._next_id += 1
        self._expected[id_] = expected
        self._outbox.put(frames(id_))
        return id_

    async def request(self, frames: Callable[[int], bytes], type_: int = ACK) -> Frame:
        """Sends a request and waits for its answer, of that type. Raises its NACK's error.

        Cancelling it after it was sent leaves the answer to come, and to be dropped.
        """
        reply = Reply(type_)
        await self.room()
        self.ask(frames, reply)
        return await reply.wait()

    def tell(self, frames: Callable[[int], bytes]) -> None:
        """Sends what has no answer. A NACK of it goes to `refusals`."""
        assert self._ended is None
        id_ = self._next_id
        self._next_id += 1
        self._told_id = self._next_id
        self._outbox.put(frames(id_))

    def barrier(self, expected: Expected) -> None:
        """Expects a PONG, which comes when all QoS 1 publishes before it are settled.

        A POLL, and every answer behind it, waits for them; the PING has one to wait.
        """
        self.ask(lambda id_: encoder.poll(id_, NO_SUBSCRIPTION) + encoder.ping(id_), expected)

    def forget(self, ids: Iterable[int]) -> None:
        """Expects nothing more for these requests."""
        for id_ in ids:
            self._expected.pop(id_, None)

    def poll(self, subscription_id: int, polls: int, sink: Sink) -> Round:
        """Asks for that many messages of a subscription."""
        assert self._ended is None
        round_ = Round(sink, self._next_id, polls)
        self._next_id += polls + 1
        self._rounds.append(round_)
        self._outbox.put(round_.frames(subscription_id))
        return round_

    def watch(self, sink: Sink) -> None:
        """Calls the sink's `lost` when the connection ends."""
        self._sinks.append(sink)

    @property
    def told(self) -> bool:
        """Whether some of what has no answer may not have reached the broker."""
        return self._answered_id < self._told_id

    # Its life.

    async def run(self) -> None:
        """Reads and writes until the connection is lost, then closes it and returns.

        To be run once, in a task of its own, which is ended by `stop` and cannot be cancelled from
        elsewhere: what its callers do when they are cancelled may need the connection.
        """
        with self._running:
            with unwrapped():
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._until_lost, self._read, nursery.cancel_scope)
                    nursery.start_soon(self._until_lost, self._write, nursery.cancel_scope)
            await trio.aclose_forcefully(self._stream)

    def stop(self) -> None:
        """Ends the connection for good: everyone who waits or comes later gets `ClientClosed`."""
        self._end(closed())
        self._running.cancel()

    async def leave(self, timeout_s: float) -> None:
        """Takes no more requests, and waits until those that it took are settled.

        Waits no longer than `timeout_s`, and cannot be cancelled.
        """
        self._leaving = True
        if self._ended is not None:
            return
        with trio.move_on_after(timeout_s, shield=True):
            reply = Reply(PONG)
            self.barrier(reply)
            await self._settled(reply)

    async def _settled(self, reply: Reply) -> None:
        try:
            await reply.wait()
        except ClientError:
            return  # `told` says what this means

    def _end(self, error: ClientError) -> None:
        # The first loss stays the reason, until the client is closed.
        if self._ended is None or isinstance(error, ClientClosed):
            self._ended = error
        expected, self._expected = self._expected, {}
        for waiting in expected.values():
            waiting.lost(error)
        for sink in self._sinks:
            sink.lost(error)
        self._outbox.wake()

    async def _until_lost(
        self, work: Callable[[], Awaitable[None]], all_: trio.CancelScope
    ) -> None:
        try:
            await work()
            lost = ConnectionLost(f"the broker at {self.name} closed the connection")
        except FramingError as error:
            lost = ConnectionLost(f"{self.name} does not keep to the protocol: it sent {error}")
            lost.__cause__ = error
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            reason = error.__cause__ or error
            lost = ConnectionLost(f"the connection to {self.name} broke: {reason}")
            lost.__cause__ = error
        self._end(lost)
        all_.cancel()

    async def _write(self) -> None:
        while True:
            await self._stream.send_all(await self._outbox.take())

    async def _read(self) -> None:
        splitter = Splitter()
        while data := await self._stream.receive_some():
            for frame in splitter.split(bytes(data)):
                self._take(frame)

    # What comes in.

    def _take(self, frame: Frame) -> None:
        if frame.type == PUBLISH:
            if not self._rounds:
                raise FramingError("a message that nothing asked for")
            self._rounds[0].deliver(delivery.parse(frame))
        elif frame.type == PONG or frame.type == ACK:
            self._answer(frame)
        elif frame.type == NACK:
            self._refuse(frame.correlation_id, parse_nack(frame))
        else:
            raise FramingError(f"a {TYPES[frame.type]}")

    def _answer(self, frame: Frame) -> None:
        if frame.type == ACK and len(frame.payload) != U64.size:
            raise FramingError("a malformed ACK")
        self._answered_id = max(self._answered_id, frame.correlation_id)
        rounds = self._rounds
        if frame.type == PONG and rounds and rounds[0].ping_id == frame.correlation_id:
            rounds.popleft().over.set()
            return
        waiting = self._expected.get(frame.correlation_id)
        if waiting is None:
            raise FramingError(f"{TYPES[frame.type]} to a request that does not wait for one")
        waiting.answered(frame)
        del self._expected[frame.correlation_id]  # not before: it must hear of a bad answer, too

    def _refuse(self, id_: int, error: Refused) -> None:
        waiting = self._expected.get(id_)
        if waiting is not None:
            waiting.refused(error)
            del self._expected[id_]
        elif self._rounds and self._rounds[0].holds(id_):
            self._rounds[0].sink.refused(error)
        elif id_ < FIRST_ID:
            self.refusals.accept(error)
        else:
            self.refusals.publish(error)


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
