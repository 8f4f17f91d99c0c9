"""The half of a connection that receives: bytes in, requests carried out, batches handed on."""

from __future__ import annotations

import math

import attrs
import trio

from blipmq.broker.session import Session, State
from blipmq.nursery.bell import Bell
from blipmq.nursery.state import DaemonState

_HEARTBEAT_STEP = 0.25
"""How much longer than promised a silent client may stay, in heartbeats."""


async def receive_into(stream: trio.abc.Stream, room: memoryview) -> int:
    """Receive at least one byte into `room`; 0 at the end of the stream.

    Raises trio.BrokenResourceError when the connection is lost.
    """
    if isinstance(stream, trio.SocketStream):
        try:
            return await stream.socket.recv_into(room)
        except OSError as error:
            raise trio.BrokenResourceError(str(error)) from error
    data = await stream.receive_some(len(room))
    room[: len(data)] = data
    return len(data)


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
        if session.version == 1 or not self.heartbeat:
            self.scope.deadline = math.inf
            return
        now = trio.current_time()
        latest = now + (2 + _HEARTBEAT_STEP) * self.heartbeat
        if not now + 2 * self.heartbeat <= self.scope.deadline <= latest:
            self.scope.deadline = latest

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
    outgoing: Bell,
) -> None:
    """Receive and carry out requests until the client has sent its last, or was silent too long.

    `incoming` is rung when a request that has to wait may go on, `outgoing` when there are
    replies. Raises FramingError, or trio.BrokenResourceError when the connection is lost.
    """
    while session.close_reason is None:
        room = session.room()
        count = await receive_into(stream, room)
        if not count:
            break
        session.received(count)
        await _carry_out(state, session, patience, incoming, outgoing)


async def _carry_out(
    state: DaemonState,
    session: Session,
    patience: Patience,
    incoming: Bell,
    outgoing: Bell,
) -> None:
    """Carry out everything that was received. A slow log holds up only who publishes to it."""
    reserved = state.try_reserve()
    while True:
        try:
            done = session.advance(trio.current_time(), may_log=reserved)
        finally:
            state.hand_on(reserved)
            if session.has_output:
                outgoing.ring()
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
