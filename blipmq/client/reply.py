"""What a request waits for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import attrs
import trio

from blipmq.errors import ClientError, FramingError, Refused
from blipmq.protocol.frames import ACK, TYPES, Frame


class Expected(Protocol):
    """Something that the broker's answer to one correlation id goes to. Nothing here waits."""

    def answered(self, frame: Frame) -> None:
        """The ACK or PONG. Raises `FramingError` when it does not fit the request."""

    def refused(self, error: Refused) -> None:
        """The NACK. Raises `FramingError` when the request cannot be refused."""

    def lost(self, error: ClientError) -> None:
        """The connection has ended; there will be no answer."""


@attrs.define(eq=False)
class Reply:
    """The answer to a request that one task waits for."""

    _type: int = ACK
    _event: trio.Event = attrs.field(factory=trio.Event, init=False)
    _frame: Frame | None = attrs.field(default=None, init=False)
    _error: Refused | ClientError | None = attrs.field(default=None, init=False)
    _abandoned: Callable[[Frame], None] | None = attrs.field(default=None, init=False)

    def answered(self, frame: Frame) -> None:
        if frame.type != self._type:
            raise FramingError(f"{TYPES[frame.type]} where {TYPES[self._type]} was due")
        self._frame = frame
        self._event.set()
        if self._abandoned is not None:
            self._abandoned(frame)

    def refused(self, error: Refused) -> None:
        self._error = error
        self._event.set()

    def lost(self, error: ClientError) -> None:
        self._error = again(error)
        self._event.set()

    def abandon(self, then: Callable[[Frame], None]) -> None:
        """Hands the answer to `then`, now or when it comes: its task waits no more."""
        self._abandoned = then
        if self._frame is not None:
            then(self._frame)

    async def wait(self) -> Frame:
        """The answer. Raises the `Refused` of a NACK, or why the connection has ended."""
        await self._event.wait()
        if self._error is not None:
            raise self._error
        assert self._frame is not None
        return self._frame


def again(error: ClientError) -> ClientError:
    """A copy of an error that several tasks raise, so that none adds to another's traceback."""
    copy = type(error)(*error.args)
    copy.__cause__ = error.__cause__
    return copy
