"""A connection: a reader, and a writer while there is something to send, from accept to close."""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from importlib.metadata import version

import attrs
import trio

from blipmq.broker.session import Session, State
from blipmq.broker.stats import CloseReason, Listener
from blipmq.errors import FramingError
from blipmq.nursery.bell import Bell
from blipmq.nursery.reader import Patience, read
from blipmq.nursery.state import DaemonState
from blipmq.nursery.writer import Writer

_DRAIN_BYTES = 64 * 1024


@cache
def _version() -> str:
    """Read from the installed package once, not for every connection."""
    return version("blipmq")


def _session_of(connection: Connection) -> Session:
    state = connection.state
    return Session(
        state.broker,
        state.authenticate,
        connection.on_progress,
        _version(),
    )


def _writer_of(connection: Connection) -> Writer:
    session, stream = connection.session, connection.stream
    return Writer(connection.state, session, stream, connection.incoming, connection.on_lost)


@attrs.define(eq=False)
class Connection:
    """One client's connection. `stop` lets it send what waits and close."""

    state: DaemonState
    stream: trio.abc.Stream
    peer: str
    listener: Listener = Listener.TCP
    accepted_at: float = attrs.Factory(trio.current_time)
    framing_error: str | None = None
    """What was wrong with what came, when it was no frame."""
    id: int = attrs.field(
        default=attrs.Factory(lambda self: next(self.state.connection_ids), takes_self=True),
        init=False,
    )
    incoming: Bell = attrs.Factory(Bell)
    session: Session = attrs.field(default=attrs.Factory(_session_of, takes_self=True))
    outgoing: Writer = attrs.field(default=attrs.Factory(_writer_of, takes_self=True))
    _reading: trio.CancelScope = attrs.Factory(trio.CancelScope)
    _leaving: trio.CancelScope | None = None
    _patience: Patience | None = None
    _stopped: bool = False
    _lost: bool = False
    _session_ended: bool = False

    def on_progress(self) -> None:
        """Something came that the reader or the writer may wait for."""
        self.incoming.ring()
        if self.session.has_output:
            self.outgoing.ring()

    def stop(self) -> None:
        """Read no more; send the replies that wait or are owed for publishes, then close."""
        self._stopped = True
        self._reading.cancel()

    def close(self, reason: CloseReason) -> bool:
        """`stop`, for a reason that is counted and logged; False when it ends already."""
        if self._stopped or self.session.close_reason is not None:
            return False
        self.session.close_reason = reason
        self.state.stats.connections_refused[reason] += 1
        self.stop()
        return True

    def set_heartbeat(self, heartbeat: float) -> None:
        """Seconds, from now on; a client of version 2 is told."""
        if self._patience is not None:
            self._patience.change(heartbeat, self.session)
        self.session.tell_info()

    def on_lost(self) -> None:
        """Nothing can be sent any more."""
        self._lost = True
        self._reading.cancel()
        if self._leaving is not None:
            self._leaving.cancel()

    async def run(self) -> None:
        """Serve the client until either side ends it, then give back what it held.

        Its writer is a task of the nursery that the calling one is in, and has ended by then.
        """
        nursery = trio.lowlevel.current_task().parent_nursery
        assert nursery is not None
        state, limits = self.state, self.state.config.limits
        state.connections.add(self)
        state.stats.connections += 1
        state.stats.connections_by_listener[self.listener] += 1
        self.outgoing.open(nursery)
        self._reading.deadline = self.accepted_at + limits.handshake_timeout_ms / 1000
        self._patience = patience = Patience(self._reading, limits.heartbeat_ms / 1000)
        try:
            try:
                # Here it waits while it is idle: whatever is called on the way takes memory.
                with self._reading:
                    await read(
                        state, self.session, self.stream, patience, self.incoming, self.outgoing
                    )
            except FramingError as error:
                self.framing_error = str(error)
                state.warn("framing error", "framing error", error=str(error), **self._about())
            except trio.BrokenResourceError:
                self._lost = True
            self._tell_end()
            if not self._lost:
                await self._leave()
        finally:
            state.connections.discard(self)
            state.stats.connections -= 1
            state.stats.connections_by_listener[self.listener] -= 1
            self._end_session()
            await self.outgoing.aclose()
            await trio.aclose_forcefully(self.stream)

    def _end_session(self) -> None:
        """Give back what it held, as soon as it can send no more and has been sent all it is owed.

        A client that has lost its connection may be back before this one is closed.
        """
        if not self._session_ended:
            self._session_ended = True
            self.session.end(trio.current_time())
            self.state.look()

    def _tell_end(self) -> None:
        """Count and log why the daemon closes it, if it does."""
        reason = self.session.close_reason
        if reason is not None:
            self.state.warn(reason.value, "connection closed", reason=reason.value, **self._about())
        elif self._reading.cancelled_caught and not (self._stopped or self._lost):
            self._tell_silence()

    def _about(self) -> dict[str, object]:
        """What a log line says of it; its key id once it has authenticated."""
        about: dict[str, object] = {"connection": self.id, "peer": self.peer}
        return {**about, "key_id": self.session.owner} if self.session.owner else about

    def _tell_silence(self) -> None:
        if self.session.state is State.READY:
            reason = CloseReason.HEARTBEAT
            self.state.warn("heartbeat missed", "heartbeat missed", **self._about())
        else:
            reason = CloseReason.HANDSHAKE_TIMEOUT
            self.state.warn("handshake timeout", "handshake timeout", **self._about())
        self.session.close_reason = reason
        self.state.stats.connections_refused[reason] += 1

    async def _leave(self) -> None:
        """Send what is owed, and close in peace."""
        with trio.CancelScope() as self._leaving:
            # Whatever ended the reading: a publish whose commit fails is owed its NACK.
            while self.session.uncommitted:
                await self.incoming.wait()
            self.session.gather(trio.current_time(), deliver=False)
            if not self.session.output:
                self._end_session()
            linger = self.state.config.shutdown.linger_timeout_ms / 1000
            self._leaving.deadline = trio.current_time() + linger
            self.outgoing.deliver = False
            await self.outgoing.flush()
            self._end_session()
            with suppress(trio.BrokenResourceError):
                await self._take_leave()

    async def _take_leave(self) -> None:
        """Say that no more comes, and let the client read it.

        Closing while bytes that it sent are unread would reset the connection, and the reset could
        overtake the last replies.
        """
        if isinstance(self.stream, trio.abc.HalfCloseableStream):
            await self.stream.send_eof()
            while await self.stream.receive_some(_DRAIN_BYTES):
                pass
