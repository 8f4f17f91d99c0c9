"""The half of a connection that sends: it gathers what waits and sends it with one call."""

from __future__ import annotations

import trio

from blipmq.broker.session import Session
from blipmq.nursery.bell import Bell


async def write(
    session: Session, stream: trio.abc.Stream, incoming: Bell, outgoing: Bell, ended: trio.Event
) -> None:
    """Send replies whenever `outgoing` rings, until `ended` is set and all are sent.

    Rings `incoming` when there is room for replies again. Raises trio.BrokenResourceError when the
    connection is lost.
    """
    while True:
        while session.has_output:
            replies = session.take_output()
            await stream.send_all(replies[0] if len(replies) == 1 else b"".join(replies))
            incoming.ring()
        if ended.is_set():
            return
        await outgoing.wait()
