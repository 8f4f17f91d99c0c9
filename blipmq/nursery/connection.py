"""A connection: a reader and a writer in a nursery of their own, from accept to close."""

from __future__ import annotations

from importlib.metadata import version

import attrs
import trio

from blipmq.broker.session import Session, State
from blipmq.broker.stats import CloseReason
from blipmq.errors import FramingError
from blipmq.nursery.bell import Bell
from blipmq.nursery.reader import Patience, read
from blipmq.nursery.state import DaemonState
from blipmq.nursery.writer import write

_DRAIN_BYTES = 64 * 1024


def _session_of(connection: Connection) -> Session:
    state = connection.state
    return Session(state.broker, state.keys.authenticate, connection.on_progress, version("blipmq"))


@attrs.define(eq=False)
class Connection:
    """One client's connection. `stop` lets it send what waits and close."""

    state: DaemonState
    stream: trio.abc.Stream
    peer: str
    id: int = attrs.field(
        default=attrs.Factory(lambda self: next(self.state.connection_ids), takes_self=True),
        init=False,
    )
    incoming: Bell = attrs.Factory(Bell)
    outgoing: Bell = attrs.Factory(Bell)
    ended: trio.Event = attrs.Factory(trio.Event)
    session: Session = attrs.field(default=attrs.Factory(_session_of, takes_self=True))
    _reading: trio.CancelScope = attrs.Factory(trio.CancelScope)
    _session_ended: bool = False

    def on_progress(self) -> None:
        """Something came that the reader or the writer may wait for."""
        self.incoming.ring()
        if self.session.has_output:
            self.outgoing.ring()

    def stop(self) -> None:
        """Read no more; send the replies that wait or are owed for publishes, then close."""
        self._reading.cancel()

    async def run(self) -> None:
        """Serve the client until either side ends it, then give back what it held."""
        state = self.state
        state.connections.add(self)
        state.stats.connections += 1
        try:
            await self._converse()
        finally:
            state.connections.discard(self)
            state.stats.connections -= 1
            self._end_session()
            await trio.aclose_forcefully(self.stream)

    def _end_session(self) -> None:
        """Give back what it held, as soon as it can send no more and has been sent all it is owed.

        A client that has lost its connection may be back before this one is closed.
        """
        if not self._session_ended:
            self._session_ended = True
            self.session.end(trio.current_time())
            self.state.look()

    async def _converse(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._write, nursery.cancel_scope)
            await self._read(nursery.cancel_scope)
            # Whatever ended the reading: a publish whose commit fails is owed its NACK.
            while self.session.uncommitted:
                await self.incoming.wait()
            self.session.gather(trio.current_time(), deliver=False)
            if not self.session.output:
                self._end_session()
            linger = self.state.config.shutdown.linger_timeout_ms / 1000
            nursery.cancel_scope.deadline = trio.current_time() + linger
            self.ended.set()
            self.outgoing.ring()

    async def _read(self, conversation: trio.CancelScope) -> None:
        state = self.state
        limits = state.config.limits
        deadline = trio.current_time() + limits.handshake_timeout_ms / 1000
        silence = trio.CancelScope(deadline=deadline)
        patience = Patience(silence, limits.heartbeat_ms / 1000)
        try:
            with self._reading, silence:
                await read(state, self.session, self.stream, patience, self.incoming, self.outgoing)
        except FramingError as error:
            state.warn("framing error", "framing error", peer=self.peer, error=str(error))
        except trio.BrokenResourceError:
            conversation.cancel()
        if silence.cancelled_caught:
            self._tell_silence()
        elif self.session.close_reason is not None:
            reason = self.session.close_reason.value
            state.warn(reason, "connection closed", peer=self.peer, reason=reason)

    def _tell_silence(self) -> None:
        refused = self.state.stats.connections_refused
        if self.session.state is State.READY:
            refused[CloseReason.HEARTBEAT] += 1
            self.state.warn("heartbeat missed", "heartbeat missed", peer=self.peer)
        else:
            refused[CloseReason.HANDSHAKE_TIMEOUT] += 1
            self.state.warn("handshake timeout", "handshake timeout", peer=self.peer)

    async def _write(self, conversation: trio.CancelScope) -> None:
        try:
            await write(
                self.state, self.session, self.stream, self.incoming, self.outgoing, self.ended
            )
            self._end_session()
            await self._take_leave()
        except trio.BrokenResourceError:
            conversation.cancel()

    async def _take_leave(self) -> None:
        """Say that no more comes, and let the client read it.

        Closing while bytes that it sent are unread would reset the connection, and the reset could
        overtake the last replies.
        """
        if isinstance(self.stream, trio.abc.HalfCloseableStream):
            await self.stream.send_eof()
            while await self.stream.receive_some(_DRAIN_BYTES):
                pass
