"""How a QoS 1 publish learns that it is committed, on protocol version 1.

Version 1 answers a publish only with a NACK, if at all. But a POLL and whatever is answered
behind it wait until the connection's QoS 1 publishes are committed or refused. So a publish is
followed by a barrier: a POLL that finds nothing, and a PING. Publishes that come while a barrier
is under way wait for the next one together, so the more come the more share one: a group
commit that needs no timer.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs
import trio

from blipmq.client.polling.connection import Connection
from blipmq.client.reply import again
from blipmq.errors import ClientError, FramingError, Refused
from blipmq.protocol.frames import PONG, TYPES, Frame


@attrs.define(eq=False)
class Group:
    """The publishes that share a barrier. `over` is set when all of them are settled."""

    ids: list[int] = attrs.field(factory=list, init=False)
    over: trio.Event = attrs.field(factory=trio.Event, init=False)
    error: ClientError | None = attrs.field(default=None, init=False)


@attrs.define(eq=False)
class Confirm:
    """What one publish waits for."""

    _group: Group
    _connection: Connection
    _error: Refused | None = attrs.field(default=None, init=False)
    _abandoned: bool = attrs.field(default=False, init=False)

    async def wait(self) -> None:
        """Until it is committed. Raises the NACK's error, or why the connection has ended.

        When this is cancelled, a NACK goes to the refusals that no call waits for.
        """
        try:
            await self.settled()
        except trio.Cancelled:
            self._abandoned = True
            if self._error is not None:
                self._connection.refusals.publish(self._error)
            raise

    async def settled(self) -> None:
        """As `wait`, but when this is cancelled, it may be called again."""
        await self._group.over.wait()
        if self._error is not None:
            raise self._error
        if self._group.error is not None:
            raise again(self._group.error)

    def answered(self, frame: Frame) -> None:
        raise FramingError(f"{TYPES[frame.type]} to a PUBLISH")

    def refused(self, error: Refused) -> None:
        self._error = error
        if self._abandoned:
            self._connection.refusals.publish(error)

    def lost(self, error: ClientError) -> None:
        self._group.error = error
        self._group.over.set()


@attrs.define(eq=False)
class Confirms:
    """The publishes of a connection that are not settled yet."""

    _connection: Connection
    _gathering: Group = attrs.field(factory=Group, init=False)
    _under_way: Group | None = attrs.field(default=None, init=False)

    def publish(self, frame: Callable[[int], bytes]) -> Confirm:
        """Sends a PUBLISH, and a barrier behind it now or as soon as the last one is back."""
        confirm = Confirm(self._gathering, self._connection)
        self._gathering.ids.append(self._connection.ask(frame, confirm))
        if self._under_way is None:
            self._raise_barrier()
        return confirm

    def _raise_barrier(self) -> None:
        self._under_way, self._gathering = self._gathering, Group()
        self._connection.barrier(self)

    def answered(self, frame: Frame) -> None:
        """The barrier's PONG."""
        if frame.type != PONG:
            raise FramingError(f"{TYPES[frame.type]} to a PING")
        assert self._under_way is not None
        self._connection.forget(self._under_way.ids)
        self._under_way.over.set()
        self._under_way = None
        if self._gathering.ids:
            self._raise_barrier()

    def refused(self, error: Refused) -> None:
        raise FramingError(f"a NACK to a barrier: {error}")

    def lost(self, error: ClientError) -> None:
        """Every publish of the connection is told by itself."""
