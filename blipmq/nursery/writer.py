"""The half of a connection that sends: it gathers what waits and sends it with one call."""

from __future__ import annotations

from collections.abc import Iterator

import trio

from blipmq.broker.output import Sendable
from blipmq.broker.session import Session
from blipmq.nursery.bell import Bell
from blipmq.nursery.state import DaemonState

_PART_BYTES = 256 * 1024


def _together(frames: list[Sendable]) -> Iterator[Sendable]:
    """The frames in as few parts as it takes; a long one is not copied."""
    part: list[Sendable] = []
    size = 0
    for frame in frames:
        if part and size + len(frame) > _PART_BYTES:
            yield b"".join(part)
            part, size = [], 0
        if len(frame) > _PART_BYTES:
            yield frame
        else:
            part.append(frame)
            size += len(frame)
    if part:
        yield part[0] if len(part) == 1 else b"".join(part)


async def write(
    state: DaemonState,
    session: Session,
    stream: trio.abc.Stream,
    incoming: Bell,
    outgoing: Bell,
    ended: trio.Event,
) -> None:
    """Send what is there whenever `outgoing` rings, until `ended` is set and all replies are sent.

    Rings `incoming` when there is room for replies again. Raises trio.BrokenResourceError when the
    connection is lost.
    """
    while True:
        while session.has_output:
            session.gather(trio.current_time(), deliver=not ended.is_set())
            state.look()  # what is delivered falls due some time
            if not session.output:
                break
            for part in _together(session.output.take()):
                await stream.send_all(part)
            session.output.sent()
            incoming.ring()
        if ended.is_set():
            return
        await outgoing.wait()
