"""A program's handle on a subscription."""

from __future__ import annotations

from types import TracebackType
from typing import Self

import attrs
import trio

from blipmq.client.feed import Feed
from blipmq.client.feeds import Feeds
from blipmq.client.message import Message
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
    _feeds: Feeds = attrs.field(repr=False, alias="feeds")
    _feed: Feed | None = attrs.field(default=None, init=False, repr=False)
    _entered: bool = attrs.field(default=False, init=False, repr=False)

    async def __aenter__(self) -> Self:
        """Subscribes; messages published after this returns are received.

        Raises the `Refused` of the broker's NACK, `ConnectionLost` or `ClientClosed`. Cancelled, a
        subscription that the broker made of it all the same is what the next one of this client
        to that topic and QoS gets.
        """
        if self._entered:
            raise RuntimeError("a subscription can be entered once; call subscribe() again")
        self._entered = True
        self._feed = await self._feeds.open(self.topic, self.qos, self.prefetch)
        return self

    async def __aexit__(
        self,
        type_: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stops receiving; whoever waits in receive() gets `ClientClosed`. Not a checkpoint.

        On protocol version 1 the subscription itself goes on until the client is closed, with
        the messages that were fetched and not received. The next subscribe() of this client to the
        same topic and QoS continues it.
        """
        feed, self._feed = self._feed, None
        if feed is not None:
            self._feeds.leave(feed)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Message:
        return await self.receive()

    async def receive(self) -> Message:
        """The next message, waiting for one if need be.

        A checkpoint. Cancelled, it has taken no message: the next receive() gets it. Raises
        `ClientClosed` outside of the block and `ConnectionLost` when the connection is lost;
        QoS 0 messages that had come by then are received first, QoS 1 messages come again to
        whoever takes over the subscription.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        while True:
            feed = self._feed
            if feed is None:
                raise ClientClosed("the subscription's `async with` block has ended or not begun")
            message = feed.take()
            if message is not None:
                break
            await feed.arrival()
        await trio.lowlevel.cancel_shielded_checkpoint()
        return message
