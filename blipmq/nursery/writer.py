"""The half of a connection that sends: it gathers what waits and sends it with one call.

It is a task only while there is something to send; most connections are idle, and a task is most of
what an idle one would cost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import attrs
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


def _nothing() -> None:
    pass


@attrs.define(eq=False)
class Writer:
    """Sends to one client. `lost` is called when its connection turns out to be lost.

    `incoming` is rung when there is room for replies again.
    """

    state: DaemonState
    session: Session
    stream: trio.abc.Stream
    incoming: Bell
    lost: Callable[[], None]
    deliver: bool = True
    """Whether messages are sent besides the replies and what publishes are owed."""
    _nursery: trio.Nursery | None = None
    _sending: trio.CancelScope | None = None
    """That of the task, while there is one."""
    _stopped: trio.Event | None = None

    def open(self, nursery: trio.Nursery) -> None:
        """Send from now on, by tasks in this nursery. Close it before the nursery ends."""
        self._nursery = nursery

    def ring(self) -> None:
        """There may be something to send."""
        if self._sending is None and self._nursery is not None:
            self._sending = trio.CancelScope()
            self._nursery.start_soon(self._send)

    async def flush(self) -> None:
        """Wait until what there is is sent, or the connection is lost."""
        self.ring()
        await self._stop()

    async def aclose(self) -> None:
        """Send nothing more. Returns, even when it is cancelled, when nobody uses the stream."""
        self._nursery = None
        if self._sending is not None:
            self._sending.cancel()
        with trio.CancelScope(shield=True):
            await self._stop()
        # Whoever has it refers to this; so neither has to wait for the garbage collector.
        self.lost = _nothing

    async def _stop(self) -> None:
        while self._sending is not None:
            if self._stopped is None:
                self._stopped = trio.Event()
            await self._stopped.wait()

    async def _send(self) -> None:
        assert self._sending is not None
        try:
            with self._sending:
                await self._send_all()
        except trio.BrokenResourceError:
            self._nursery = None
            self.lost()
        finally:
            self._sending = None
            if self._stopped is not None:
                self._stopped.set()
                self._stopped = None

    async def _send_all(self) -> None:
        session = self.session
        while session.has_output:
            session.gather(trio.current_time(), deliver=self.deliver)
            self.state.look()  # what is delivered falls due some time
            if not session.output:
                return
            for part in _together(session.output.take()):
                await self.stream.send_all(part)
            session.output.sent()
            self.incoming.ring()
