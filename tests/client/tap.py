"""Looks at what a client sends."""

from __future__ import annotations

import attrs
import trio

from blipmq.client.splitter import Splitter
from blipmq.protocol.frames import TYPES_V2, Frame


@attrs.define(eq=False)
class Tap(trio.abc.Stream):
    """Around the client's end of connections that follow each other."""

    sent: list[Frame] = attrs.field(factory=list, init=False)
    inner: trio.abc.Stream = attrs.field(init=False)
    _splitter: Splitter = attrs.field(init=False)

    def around(self, stream: trio.abc.Stream) -> trio.abc.Stream:
        """To be used for one connection at a time."""
        tap = Tap()
        tap.sent, tap.inner, tap._splitter = self.sent, stream, Splitter(TYPES_V2)
        return tap

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        self.sent.extend(self._splitter.split(bytes(data)))
        await self.inner.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self.inner.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self.inner.receive_some(max_bytes)

    async def aclose(self) -> None:
        await self.inner.aclose()
