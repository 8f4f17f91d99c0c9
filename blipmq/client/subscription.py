"""A program's handle on a subscription."""

from __future__ import annotations

from collections import deque
from itertools import islice
from types import TracebackType
from typing import Self

import attrs
import trio
from trio.lowlevel import cancel_shielded_checkpoint, checkpoint_if_cancelled

from blipmq.client.batch import Batch
from blipmq.client.message import Message
from blipmq.client.source import Source
from blipmq.errors import ClientClosed


@attrs.define(eq=False)
class Subscription:
    """The messages of a topic, from `Client.subscribe`; to be used in its `async with` block.

    `async for message in subscription` never ends by itself: it ends with an exception, or when
    its body leaves it. Several tasks may receive; each message goes to one of them.
    """

    topic: str
    qos: int
    prefetch: int
    _source: Source = attrs.field(repr=False, alias="source")
    _given_back: deque[Message] = attrs.field(factory=deque, init=False, repr=False)
    """Taken for a batch that was cancelled."""
    _open: bool = attrs.field(default=False, init=False, repr=False)
    _entered: bool = attrs.field(default=False, init=False, repr=False)
    _steps: int = attrs.field(default=0, init=False, repr=False)

    async def __aenter__(self) -> Self:
        """Subscribes; messages published after this returns are received.

        Raises the `Refused` of the broker's NACK, `UnsupportedByBroker`, `ConnectionLost` or
        `ClientClosed`. Cancelled, the subscription is given up again; on version 1, where that
        cannot be, it is what the next one of this client to that topic and QoS gets.
        """
        if self._entered:
            raise RuntimeError("a subscription can be entered once; call subscribe() again")
        self._entered = True
        await self._source.open()
        self._open = True
        return self

    async def __aexit__(
        self,
        type_: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stops receiving; whoever waits in receive() gets `ClientClosed`. Not a checkpoint.

        What was not handed over, or not settled, goes back to the broker at once, and comes
        again: to another member of a named subscription, or to the next that attaches.

        On protocol version 1 the subscription itself goes on until the client is closed, with
        the messages that were fetched and not received. The next subscribe() of this client to the
        same topic and QoS continues it.
        """
        if self._open:
            self._open = False
            self._source.close()

    @property
    def dropped(self) -> int:
        """Messages of QoS 0 that came and were dropped here, for nobody took them in time."""
        return self._source.dropped

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Message:
        """As `receive`."""
        await checkpoint_if_cancelled()
        if not self._open:
            raise _closed()
        message = None if self._given_back else next(self._source.ready, None)
        if message is None:
            message = self._take_back() if self._given_back else None
            message = message or self._source.take() or await self._next()
        self._steps += 1
        if self._steps >= self._source.steps:
            self._steps = 0
            await cancel_shielded_checkpoint()
        return message

    async def receive(self) -> Message:
        """The next message, waiting for one if need be.

        A checkpoint; of messages that have come already, many are received between two trips
        through the scheduler. Cancelled, it has taken no message: the next receive() gets it.

        Raises `ClientClosed` outside of the block, `SubscriptionEnded` when the broker ends it,
        and `ConnectionLost` when the connection is lost for good; QoS 0 messages that had come by
        then are received first, QoS 1 messages come again.
        """
        return await self.__anext__()

    async def batch(self, max: int, within: float = 0.0) -> Batch:  # noqa: A002
        """At least one message, and at most `max`: what comes within so many seconds of the first.

        A checkpoint. Cancelled, it has taken no message. Raises as `receive`, and `ValueError`
        for a `max` below 1.
        """
        if max < 1:
            raise ValueError(f"max {max!r}; expected 1 or more")
        messages = [await self.__anext__()]
        try:
            self._fill(messages, max)
            with trio.move_on_after(within):
                while len(messages) < max and within > 0:
                    await self._source.arrival()
                    self._fill(messages, max)
            await checkpoint_if_cancelled()
        except BaseException:
            self._given_back.extendleft(reversed(messages))
            raise
        return Batch(messages)

    def _fill(self, messages: list[Message], most: int) -> None:
        while len(messages) < most:
            if not self._open:
                raise _closed()
            message = self._take_back() or self._source.take()
            if message is None:
                return
            messages.append(message)
            if not self._given_back:
                messages.extend(islice(self._source.ready, most - len(messages)))

    def _take_back(self) -> Message | None:
        while self._given_back:
            message = self._given_back.popleft()
            if self._source.alive(message):
                return message
        return None

    async def _next(self) -> Message:
        while True:
            await self._source.arrival()
            if not self._open:
                raise _closed()
            message = self._take_back() if self._given_back else None
            message = message or self._source.take()
            if message is not None:
                return message


def _closed() -> ClientClosed:
    return ClientClosed("the subscription's `async with` block has ended or not begun")
