"""The wire half of protocol version 1: rounds of POLLs, and barriers behind publishes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

import attrs
import trio

from blipmq.client.polling import delivery
from blipmq.client.polling.round import Round, Sink
from blipmq.client.reply import Expected, Reply
from blipmq.client.wire import FIRST_ID, Wire, parse_nack
from blipmq.errors import ClientError, FramingError, Refused
from blipmq.protocol import encoder
from blipmq.protocol.frames import ACK, NACK, PONG, PUBLISH, Frame

NO_SUBSCRIPTION: Final = 2**64 - 1
"""A subscription id that is never given out, so that a POLL of it finds nothing."""


@attrs.define(eq=False)
class Connection(Wire):
    """One connection to a broker that speaks version 1."""

    _answered_id: int = attrs.field(default=FIRST_ID, init=False)
    _told_id: int = attrs.field(default=FIRST_ID, init=False)
    """An answer to this request or a later one says that all that was told has arrived."""
    _rounds: deque[Round] = attrs.field(factory=deque, init=False)
    _sinks: list[Sink] = attrs.field(factory=list, init=False)

    # What the rest of the client asks of it.

    def tell(self, frames: Callable[[int], bytes]) -> None:
        """Sends what has no answer. A NACK of it goes to `refusals`."""
        assert self._ended is None
        id_ = self._next_id
        self._next_id += 1
        self._told_id = self._next_id
        self.outbox.put(frames(id_))

    def barrier(self, expected: Expected) -> None:
        """Expects a PONG, which comes when all QoS 1 publishes before it are settled.

        A POLL, and every answer behind it, waits for them; the PING has one to wait.
        """
        self.ask(lambda id_: encoder.poll(id_, NO_SUBSCRIPTION) + encoder.ping(id_), expected)

    def poll(self, subscription_id: int, polls: int, sink: Sink) -> Round:
        """Asks for that many messages of a subscription."""
        assert self._ended is None
        round_ = Round(sink, self._next_id, polls)
        self._next_id += polls + 1
        self._rounds.append(round_)
        self.outbox.put(round_.frames(subscription_id))
        return round_

    def watch(self, sink: Sink) -> None:
        """Calls the sink's `lost` when the connection ends."""
        self._sinks.append(sink)

    @property
    def told(self) -> bool:
        """Whether some of what has no answer may not have reached the broker."""
        return self._answered_id < self._told_id

    # Its life.

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
        super()._end(error)
        for sink in self._sinks:
            sink.lost(error)
        self.outbox.wake()

    # What comes in.

    def take(self, frame: Frame) -> None:
        if frame.type == PUBLISH:
            if not self._rounds:
                raise FramingError("a message that nothing asked for")
            self._rounds[0].deliver(delivery.parse(frame))
        elif frame.type == PONG or frame.type == ACK:
            self._answer(frame)
        elif frame.type == NACK:
            self._refuse(frame.correlation_id, parse_nack(frame))
        else:
            raise FramingError(f"a {self.types[frame.type]}")

    def _answer(self, frame: Frame) -> None:
        self._answered_id = max(self._answered_id, frame.correlation_id)
        rounds = self._rounds
        if frame.type == PONG and rounds and rounds[0].ping_id == frame.correlation_id:
            rounds.popleft().over.set()
        else:
            self._answered(frame)

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
