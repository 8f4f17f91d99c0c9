"""The half of a connection that receives: bytes in, requests carried out, batches handed on."""

from __future__ import annotations

import math
import os

import attrs
import trio

from blipmq.broker.session import Session, State
from blipmq.nursery.bell import Bell
from blipmq.nursery.state import DaemonState
from blipmq.nursery.writer import Writer

_OTHER_BYTES = 64 * 1024
"""What is asked of a stream that is no socket."""
_MORE_BYTES = 4 * 1024
"""After a read that was as long there are more bytes, most likely."""
_HEARTBEAT_STEP = 0.25
"""How much longer than promised a silent client may stay, in heartbeats."""


@attrs.define(eq=False)
class Patience:
    """How long a client may be silent: before it has authenticated, and as its heartbeat says.

    The deadline of `scope` moves on in steps, so that a busy client does not cost a timer a read.
    """

    scope: trio.CancelScope
    heartbeat: float
    """Seconds; 0: a client may be silent for ever."""

    def heard(self, session: Session) -> None:
        """It has sent something, and all of that was carried out."""
        if session.state is not State.READY:
            return
        deadline = self.scope.deadline
        if session.version == 1 or not self.heartbeat:
            if deadline != math.inf:
                self.scope.deadline = math.inf
            return
        now = trio.current_time()
        latest = now + (2 + _HEARTBEAT_STEP) * self.heartbeat
        if not now + 2 * self.heartbeat <= deadline <= latest:
            self.scope.deadline = latest

    def change(self, heartbeat: float, session: Session) -> None:
        """A longer heartbeat holds at once, a shorter one from when the client is heard next."""
        longer = not heartbeat or 0 < self.heartbeat < heartbeat
        self.heartbeat = heartbeat
        if longer and self.scope.deadline != math.inf:
            self.heard(session)

    def busy(self, session: Session) -> None:
        """What it has sent has to wait: it is not the client that is silent."""
        if session.state is State.READY:
            self.scope.deadline = math.inf


async def read(
    state: DaemonState,
    session: Session,
    stream: trio.abc.Stream,
    patience: Patience,
    incoming: Bell,
    outgoing: Writer,
) -> None:
    """Receive and carry out requests until the client has sent its last, or was silent too long.

    `incoming` is rung when a request that has to wait may go on, `outgoing` when there are
    replies. Raises FramingError, or trio.BrokenResourceError when the connection is lost.

    Most connections wait here most of the time: with no buffer, and few frames of coroutines.
    """
    if not isinstance(stream, trio.SocketStream):
        await _read_stream(state, session, stream, patience, incoming, outgoing)
        return
    # Trio's own call would have the buffer while it waits.
    file = stream.socket.fileno()
    more = False
    while session.close_reason is None:
        if more:
            await trio.lowlevel.checkpoint()
        else:
            # To try first, after all was read, would be in vain nearly always.
            session.release_room()
            await trio.lowlevel.wait_readable(file)
        try:
            count = os.readv(file, (session.room(),))
        except BlockingIOError:
            more = False
            continue
        except OSError as error:
            raise trio.BrokenResourceError(str(error)) from error
        if not count:
            return
        more = count >= _MORE_BYTES
        session.received(count)
        await _carry_out(state, session, patience, incoming, outgoing)


async def _read_stream(
    state: DaemonState,
    session: Session,
    stream: trio.abc.Stream,
    patience: Patience,
    incoming: Bell,
    outgoing: Writer,
) -> None:
    while session.close_reason is None:
        session.release_room()
        data = await stream.receive_some(_OTHER_BYTES)
        if not data:
            return
        session.room(len(data))[: len(data)] = data
        session.received(len(data))
        await _carry_out(state, session, patience, incoming, outgoing)


async def _carry_out(
    state: DaemonState,
    session: Session,
    patience: Patience,
    incoming: Bell,
    outgoing: Writer,
) -> None:
    """Carry out everything that was received. A slow log holds up only who publishes to it."""
    reserved = state.try_reserve()
    while True:
        state.begin_step()
        try:
            done = session.advance(trio.current_time(), may_log=reserved)
        finally:
            if session.has_output:
                outgoing.ring()
            state.hand_on(reserved)
        if done:
            patience.heard(session)
            return
        patience.busy(session)
        if session.wants_to_log:
            await state.reserve()
            reserved = True
        else:
            paused_until = session.paused_until
            with trio.move_on_at(math.inf if paused_until is None else paused_until):
                await incoming.wait()
            reserved = state.try_reserve()
