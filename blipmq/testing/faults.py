"""A stream that does to its user what networks do."""

from __future__ import annotations

import attrs
import trio


@attrs.define(eq=False)
class FaultyStream(trio.abc.Stream):
    """Around one end of a connection; may be changed at any time.

    Sends arrive in parts of at most `part_bytes`, and as many are received at a time; each send and
    receive is late by `delay` seconds. After `cut_sent` bytes sent, or `cut_received` bytes
    received, the connection breaks; `reset` breaks it now. While it is `silent`, nothing arrives
    either way, and nothing tells.
    """

    inner: trio.abc.Stream
    part_bytes: int | None = None
    delay: float = 0.0
    cut_sent: int | None = None
    cut_received: int | None = None
    silent: bool = False
    broken: bool = attrs.field(default=False, init=False)
    """Whether it has broken."""

    async def reset(self) -> None:
        """Breaks it, for both ends."""
        self.broken = True
        await trio.aclose_forcefully(self.inner)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """As any stream's. What comes before a cut arrives."""
        await self._before()
        if self.silent:
            return
        view = memoryview(data)
        if self.cut_sent is not None:
            view = view[: self.cut_sent]
            self.cut_sent -= len(view)
        size = self.part_bytes or len(view) or 1
        for at in range(0, len(view), size):
            await self._sent(bytes(view[at : at + size]))
        if len(view) < len(data):
            await self.reset()
            raise _broken()

    async def wait_send_all_might_not_block(self) -> None:
        await self._before()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """As any stream's."""
        await self._before()
        if self.cut_received == 0:
            await self.reset()
            raise _broken()
        sizes = (max_bytes, self.part_bytes, self.cut_received)
        most = min((size for size in sizes if size is not None), default=None)
        data = await self._received(most)
        while data and self.silent:
            data = await self._received(most)
        if self.cut_received is not None:
            self.cut_received -= len(data)
        return data

    async def _sent(self, part: bytes) -> None:
        try:
            await self.inner.send_all(part)
        except trio.ClosedResourceError:
            if self.broken:
                raise _broken() from None
            raise

    async def _received(self, most: int | None) -> bytes | bytearray:
        try:
            return await self.inner.receive_some(most)
        except trio.ClosedResourceError:
            if self.broken:
                raise _broken() from None
            raise

    async def aclose(self) -> None:
        await self.inner.aclose()

    async def _before(self) -> None:
        await trio.lowlevel.checkpoint()
        if self.delay:
            await trio.sleep(self.delay)
        if self.broken:
            raise _broken()


def _broken() -> trio.BrokenResourceError:
    return trio.BrokenResourceError("broken by a fault")
