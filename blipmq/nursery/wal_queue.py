"""The channel to the WAL writer, with room that is reserved before a decision is made.

Who has reserved a place can put a batch without waiting; so numbering messages and handing them on
is one step, and a cancellation never leaves numbered messages that nobody commits.
"""

from __future__ import annotations

from contextlib import suppress

import attrs
import trio

from blipmq.broker.broker import Batch


@attrs.define(eq=False)
class WalQueue:
    """Holds up to `size` batches that the writer has not finished with."""

    size: int
    unfinished: int = attrs.field(default=0, init=False)
    """Batches that were handed on and that the writer has not finished with."""
    _room: trio.Semaphore = attrs.field(init=False)
    send: trio.MemorySendChannel[Batch] = attrs.field(init=False)
    receive: trio.MemoryReceiveChannel[Batch] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._room = trio.Semaphore(self.size)
        # One more than can be reserved: the last batch of a shutdown needs no reservation.
        self.send, self.receive = trio.open_memory_channel[Batch](self.size + 1)

    def fill(self) -> dict[str, object]:
        """How full it is: places, those that are taken, and what waits in them or for one."""
        return {
            "places": self.size,
            "taken": self.size - self._room.value,
            "waiting_batches": self.receive.statistics().current_buffer_used,
            "waiting_for_a_place": self._room.statistics().tasks_waiting,
        }

    async def reserve(self) -> None:
        """Wait for a place. It is then used by `put` or given back by `release`."""
        if not self.try_reserve():
            await self._room.acquire()

    def try_reserve(self) -> bool:
        """Take a place if one is free now, and nobody waits for it."""
        try:
            self._room.acquire_nowait()
        except trio.WouldBlock:
            return False
        return True

    def put(self, batch: Batch) -> None:
        """Hand on a batch, in a place that was reserved."""
        self.send.send_nowait(batch)
        self.unfinished += 1

    def close(self, last: Batch | None) -> None:
        """Nothing more comes but for `last`; the writer ends when it has written everything.

        A writer that was cancelled has ended already; then `last` is dropped.
        """
        if last is not None:
            with suppress(trio.BrokenResourceError):
                self.send.send_nowait(last)
                self.unfinished += 1
        self.send.close()

    def finish(self, count: int) -> None:
        """So many batches are in the log, or never will be."""
        self.unfinished -= count
        self.release(count)

    def release(self, count: int = 1) -> None:
        """Give places back."""
        for _ in range(count):
            self._room.release()
