"""The task that fetches a subscription's messages, on protocol version 1."""

from __future__ import annotations

import trio

from blipmq.client.polling.feed import Feed
from blipmq.errors import ClientError


async def poll(feed: Feed) -> None:
    """Asks for messages whenever the feed wants some, one round at a time, until cancelled.

    An empty queue is asked again after a pause, which grows from 1 ms to 100 ms while it stays
    empty; nothing is asked while nobody waits, nor when the connection has ended.
    """
    try:
        while True:
            polls = await feed.wanted()
            await feed.room()
            round_ = feed.ask(polls)
            await round_.over.wait()
            pause_s = feed.pace.over(trio.current_time(), round_.asked, round_.got)
            if pause_s:
                await trio.sleep(pause_s)
    except ClientError:
        return  # those who wait for a message have been told
