"""The half of a connection that receives: bytes in, requests carried out, batches handed on."""

from __future__ import annotations

import trio

from blipmq.broker.session import Session, State
from blipmq.nursery.bell import Bell
from blipmq.nursery.state import DaemonState


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


async def read(
    state: DaemonState,
    session: Session,
    stream: trio.abc.Stream,
    handshake: trio.CancelScope,
    incoming: Bell,
    outgoing: Bell,
) -> None:
    """Receive and carry out requests until the client has sent its last.

    `handshake` is relieved of its deadline when the client is authenticated. `incoming` is rung
    when a request that has to wait may go on, `outgoing` when there are replies. Raises
    FramingError, or trio.BrokenResourceError when the connection is lost.
    """
    while session.close_reason is None:
        room = session.room()
        count = await receive_into(stream, room)
        if not count:
            break
        session.received(count)
        await _carry_out(state, session, handshake, incoming, outgoing)


async def _carry_out(
    state: DaemonState,
    session: Session,
    handshake: trio.CancelScope,
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
            if session.state is State.READY:
                handshake.deadline = float("inf")
        if done:
            return
        if session.wants_to_log:
            await state.reserve()
            reserved = True
        else:
            await incoming.wait()
            reserved = state.try_reserve()
