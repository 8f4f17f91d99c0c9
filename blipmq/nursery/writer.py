"""The half of a connection that sends: it gathers what waits and sends it with one call.

What comes of a step is sent at the end of that step, as far as the kernel takes it. There is a task
only while it does not take all; most connections are idle, and a task is most of what an idle one
would cost.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Final

import attrs
import trio

from blipmq.broker.output import Sendable
from blipmq.broker.session import Session
from blipmq.nursery.bell import Bell
from blipmq.nursery.state import DaemonState

_PART_BYTES: Final = 256 * 1024
_FRAMES_MAX: Final = 1024
"""As many as one system call takes."""


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


def _without(frames: list[Sendable], size: int) -> list[Sendable]:
    """The frames without their first `size` bytes."""
    at = 0
    while at < len(frames) and size >= len(frames[at]):
        size -= len(frames[at])
        at += 1
    rest = frames[at:]
    if size:
        rest[0] = memoryview(rest[0])[size:]
    return rest


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
    _rest: list[Sendable] | None = None
    """What is not sent yet of what was taken from the session's output."""

    def open(self, nursery: trio.Nursery) -> None:
        """Send from now on, by tasks in this nursery. Close it before the nursery ends."""
        self._nursery = nursery

    def ring(self) -> None:
        """There may be something to send."""
        if self._sending is not None or self._nursery is None:
            return
        if self.state.in_step and isinstance(self.stream, trio.SocketStream):
            self.state.unsent[self] = None
        else:
            self._start()

    def _start(self) -> None:
        if self._sending is None and self._nursery is not None:
            self._sending = trio.CancelScope()
            self._nursery.start_soon(self._send)

    def send_at_once(self) -> int:
        """Send what is there as far as the kernel takes it now; a task sends the rest.

        Returns how many bytes it took. That the connection is lost, the task finds out.
        """
        if self._sending is not None or self._nursery is None:
            return 0
        assert isinstance(self.stream, trio.SocketStream)
        session, output = self.session, self.session.output
        session.gather(trio.current_time(), deliver=self.deliver)
        if not output:
            return 0
        size = output.bytes
        frames = self._rest = output.take()
        try:
            sent = os.writev(self.stream.socket.fileno(), frames[:_FRAMES_MAX])
        except OSError:
            sent = 0
        if sent < size:
            self._rest = _without(frames, sent)
            self._start()
            return sent
        self._rest = None
        output.sent()
        self.incoming.ring()
        if session.has_output:
            self._start()
        return sent

    async def flush(self) -> None:
        """Wait until what there is is sent, or the connection is lost."""
        self._start()
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
        except BaseException:
            self._nursery = None  # part of a frame may have been sent
            raise
        finally:
            self._sending = None
            if self._stopped is not None:
                self._stopped.set()
                self._stopped = None

    async def _send_all(self) -> None:
        session, output = self.session, self.session.output
        while self._rest is not None or session.has_output:
            if self._rest is None:
                session.gather(trio.current_time(), deliver=self.deliver)
                self.state.look()  # what is delivered falls due some time
                if not output:
                    return
                self._rest = output.take()
            if isinstance(self.stream, trio.SocketStream):
                await self._send_rest(self.stream.socket)
            else:
                for part in _together(self._rest):
                    await self.stream.send_all(part)
            self._rest = None
            output.sent()
            self.incoming.ring()

    async def _send_rest(self, socket: trio.socket.SocketType) -> None:
        """Raises trio.BrokenResourceError."""
        frames = self._rest or []
        while frames:
            try:
                sent = os.writev(socket.fileno(), frames[:_FRAMES_MAX])
            except BlockingIOError:
                await trio.lowlevel.wait_writable(socket)
                continue
            except OSError as error:
                raise trio.BrokenResourceError(str(error)) from error
            frames = self._rest = _without(frames, sent)
            await trio.lowlevel.checkpoint()
