"""How a client stands with its broker, for programs to watch."""

from __future__ import annotations

from collections import deque
from enum import Enum
from typing import Final, Self
from weakref import WeakSet

import attrs
import trio

_REMEMBERED: Final = 64


class State(Enum):
    """What a client is doing."""

    CONNECTED = "connected"
    DRAINING = "draining"
    """The broker is about to shut down: what is held is settled, then another one looked for."""
    RECONNECTING = "reconnecting"
    LOST = "lost"
    """The connection is lost for good."""
    CLOSED = "closed"


@attrs.define(eq=False)
class Watch:
    """An iterator over a client's states: the present one, then each that follows.

    Ends behind CLOSED. Of a watcher that does not keep up, the oldest states are forgotten.
    """

    _seen: deque[State]
    _changed: trio.Event = attrs.field(factory=trio.Event, init=False)
    _ended: bool = attrs.field(default=False, init=False)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> State:
        """A checkpoint. Cancelled, it has taken no state."""
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._ended:
            raise StopAsyncIteration
        while not self._seen:
            self._changed = trio.Event()
            await self._changed.wait()
        state = self._seen.popleft()
        self._ended = state is State.CLOSED
        await trio.lowlevel.cancel_shielded_checkpoint()
        return state

    def add(self, state: State) -> None:
        self._seen.append(state)
        self._changed.set()


@attrs.define(eq=False)
class States:
    """The present state, and who watches it."""

    now: State = attrs.field(default=State.CONNECTED, init=False)
    _changed: trio.Event = attrs.field(factory=trio.Event, init=False)
    _watches: WeakSet[Watch] = attrs.field(factory=WeakSet, init=False)

    def become(self, state: State) -> None:
        """Nothing follows CLOSED."""
        if state is self.now or self.now is State.CLOSED:
            return
        self.now = state
        for watch in list(self._watches):
            watch.add(state)
        self.wake()

    def watch(self) -> Watch:
        watch = Watch(deque([self.now], _REMEMBERED))
        self._watches.add(watch)
        return watch

    def wake(self) -> None:
        """Wakes everyone in `changed`."""
        self._changed.set()
        self._changed = trio.Event()

    async def changed(self) -> None:
        """Waits for another state."""
        await self._changed.wait()
