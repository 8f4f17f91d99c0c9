"""The subscriptions of a connection: those in use, and those that a program has left."""

from __future__ import annotations

from collections import defaultdict

import attrs
import trio

from blipmq.client.polling.connection import Connection
from blipmq.client.polling.feed import Feed
from blipmq.client.polling.pace import Pace
from blipmq.client.polling.poller import poll
from blipmq.client.reply import Reply
from blipmq.client.topic import encoded
from blipmq.protocol import encoder
from blipmq.protocol.frames import U64, Frame


@attrs.define(eq=False)
class Feeds:
    """Opens subscriptions, and keeps those that were left until someone wants the like again.

    Version 1 cannot end a subscription, so one that was left would fill up at the broker, and
    what has been fetched from it would wait for nobody. Going on with it loses nothing.
    """

    _connection: Connection
    _nursery: trio.Nursery
    """Where the polling tasks run."""
    _left: defaultdict[tuple[str, int], list[Feed]] = attrs.field(
        factory=lambda: defaultdict(list), init=False
    )

    async def open(self, topic: str, qos: int, prefetch: int) -> Feed:
        """A subscription to the topic that nobody uses; one that was left, if there is any.

        Cancelled, whatever the broker makes of the request is kept for the next one.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        await self._connection.room()
        if left := self._left[topic, qos]:
            feed = left.pop(0)
            feed.pace = Pace(prefetch, qos)
            await trio.lowlevel.cancel_shielded_checkpoint()
            return feed
        reply = Reply()
        self._connection.ask(lambda id_: encoder.subscribe(id_, encoded(topic), qos), reply)
        try:
            return self._opened(await reply.wait(), topic, qos, prefetch)
        except trio.Cancelled:
            reply.abandon(lambda frame: self.leave(self._opened(frame, topic, qos, prefetch)))
            raise

    def leave(self, feed: Feed) -> None:
        """Nobody uses this one any more."""
        self._left[feed.topic, feed.qos].append(feed)
        feed.wake()

    def _opened(self, frame: Frame, topic: str, qos: int, prefetch: int) -> Feed:
        (subscription_id,) = U64.unpack(frame.payload)
        feed = Feed(self._connection, subscription_id, topic, qos, Pace(prefetch, qos))
        self._connection.watch(feed)
        self._nursery.start_soon(poll, feed, name=f"blipmq poll {topic!r}")
        return feed
