"""Streams that are worse than the one they wrap."""

from __future__ import annotations

import attrs
import trio


@attrs.define(eq=False)
class Cut(trio.abc.Stream):
    """Passes on at most `size` bytes at a time, both ways."""

    inner: trio.abc.Stream
    size: int

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        for at in range(0, len(data), self.size):
            await self.inner.send_all(data[at : at + self.size])

    async def wait_send_all_might_not_block(self) -> None:
        await self.inner.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self.inner.receive_some(self.size)

    async def aclose(self) -> None:
        await self.inner.aclose()


@attrs.define(eq=False)
class Breaking(trio.abc.Stream):
    """Ends after so many bytes received, or breaks after so many sent; `broke` says it did."""

    received_bytes: int | None = None
    sent_bytes: int | None = None
    broke: bool = attrs.field(default=False, init=False)
    inner: trio.abc.Stream = attrs.field(init=False)

    def around(self, stream: trio.abc.Stream) -> trio.abc.Stream:
        self.inner = stream
        return self

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        sent = data if self.sent_bytes is None else data[: self.sent_bytes]
        if self.sent_bytes is not None:
            self.sent_bytes -= len(sent)
        await self.inner.send_all(sent)
        if len(sent) < len(data):
            self.broke = True
            raise trio.BrokenResourceError("broken by the test")

    async def wait_send_all_might_not_block(self) -> None:
        await self.inner.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        if self.received_bytes == 0:
            await trio.lowlevel.checkpoint()
            self.broke = True
            return b""
        data = await self.inner.receive_some(self.received_bytes or max_bytes)
        if self.received_bytes is not None:
            self.received_bytes -= len(data)
        return data

    async def aclose(self) -> None:
        await self.inner.aclose()


@attrs.define(eq=False)
class Stalled(trio.abc.Stream):
    """Sends nothing while `flowing` is not set."""

    inner: trio.abc.Stream
    flowing: trio.Event = attrs.field(factory=trio.Event)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self.flowing.wait()
        await self.inner.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self.flowing.wait()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self.inner.receive_some(max_bytes)

    async def aclose(self) -> None:
        await self.inner.aclose()
