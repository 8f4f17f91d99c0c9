"""Whole frames on their way to the stream."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import attrs
import trio

from blipmq.client.waiters import Waiters

LIMIT_BYTES: Final = 1024 * 1024


@attrs.define(eq=False)
class Outbox:
    """A queue of whole frames, bounded in bytes: many tasks fill it, one empties it.

    Because callers only ever put whole frames here, and one task alone writes to the stream,
    cancelling a caller never leaves half a frame on the wire.
    """

    _limit_bytes: int = LIMIT_BYTES
    shortcut: Callable[[bytes], int] | None = attrs.field(default=None, init=False)
    """Sends of a frame what can be sent without waiting; there while nobody else is sending."""
    spent: bool = attrs.field(default=False, init=False)
    """Whether it was used since other tasks have run. What comes then is better sent together."""
    full: bool = attrs.field(default=False, init=False)
    """Whether what is put here is to wait for room first."""
    told: bool = attrs.field(default=False, init=False)
    """Whether something without an answer was put here since the last request."""
    _frames: list[bytes] = attrs.field(factory=list, init=False)
    _waiting_bytes: int = attrs.field(default=0, init=False)
    _filled: trio.Event = attrs.field(factory=trio.Event, init=False)
    _room: Waiters = attrs.field(factory=Waiters, init=False)

    @property
    def waiting(self) -> bool:
        """Whether there is something to take."""
        return bool(self._frames)

    async def emptied(self) -> None:
        """Waits until the frames that wait now were taken, or `wake` was called."""
        await self._room.wait()

    def put(self, frames: bytes) -> None:
        """Adds one or more whole frames. Never waits: ask `full` first for what can wait."""
        if not self._frames:
            self._filled.set()
        self._frames.append(frames)
        self._waiting_bytes += len(frames)
        self.full = self._waiting_bytes >= self._limit_bytes

    def send(self, frame: bytes) -> bool:
        """As `put`, of one frame; it is sent at once if nothing else waits to be.

        Returns whether all of it was.
        """
        if self.shortcut is not None and not self.spent and not self._frames:
            self.spent = True
            frame = frame[self.shortcut(frame) :]
            if not frame:
                return True
        self.put(frame)
        return False

    def tell(self, head: bytes, body: bytes) -> None:
        """As `put`, of one frame that has no answer, in two parts."""
        frames = self._frames
        if not frames:
            self._filled.set()
        frames += (head, body)
        self._waiting_bytes += len(head) + len(body)
        self.full = self._waiting_bytes >= self._limit_bytes
        self.told = True

    def nudge(self) -> None:
        """Lets `filled` return, for something else to send."""
        self._filled.set()

    @property
    def nudged(self) -> bool:
        """Whether `filled` returns at once."""
        return self._filled.is_set()

    async def filled(self) -> None:
        """Waits until there is something to take, or `nudge` was called since the last `drain`."""
        await self._filled.wait()

    def drain(self, ahead: bytes = b"") -> bytes:
        """Everything that waits, in order; first what is to go `ahead` of it."""
        taken = b"".join((ahead, *self._frames) if ahead else self._frames)
        self._frames.clear()
        self._waiting_bytes = 0
        self.full = False
        if self._filled.is_set():
            self._filled = trio.Event()
        self._room.wake()
        return taken

    async def take(self) -> bytes:
        """Everything that waits, in order; waits until there is something."""
        await self._filled.wait()
        return self.drain()

    def wake(self) -> None:
        """Wakes everyone who waits for room, to look at the connection again."""
        self._room.wake()
