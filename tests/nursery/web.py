"""WebSockets to a daemon on memory streams, by trio-websocket's client."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, cast

import attrs
import trio
from trio_websocket import CloseReason, ConnectionClosed, WebSocketConnection, wrap_client_stream

from blipmq.config import WebSocketSettings
from tests.nursery.daemon import Daemon
from tests.nursery.network import MemoryPeer
from tests.peer import PATIENCE_SECONDS, Peer

ORIGIN: Final = "https://app.example"
WEB: Final = WebSocketSettings(enabled=True, allowed_origins=(ORIGIN,))
"""A listener that lets one origin in."""


class Messages(trio.abc.HalfCloseableStream):
    """What is sent is cut into messages of `size` bytes; what the daemon sends is put together."""

    def __init__(self, connection: WebSocketConnection, size: int | None = None) -> None:
        self.connection = connection
        self.size = size

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        size = self.size or max(1, len(data))
        try:
            for at in range(0, len(data), size):
                await self.connection.send_message(bytes(data[at : at + size]))
        except ConnectionClosed:
            return  # who sends on TCP does not learn at once either that it was closed

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        try:
            message = await self.connection.get_message()
        except ConnectionClosed:
            return b""
        assert isinstance(message, bytes)
        return message

    async def send_eof(self) -> None:
        """A WebSocket closes in both directions at once."""
        await self.connection.aclose()

    async def aclose(self) -> None:
        await self.connection.aclose()


@attrs.define(eq=False)
class WebPeer(Peer):
    """A peer on a WebSocket; `below` is the connection that carries it."""

    connection: WebSocketConnection = attrs.field(kw_only=True)
    below: MemoryPeer = attrs.field(kw_only=True)

    async def closed(self) -> CloseReason:
        """Wait until the daemon has closed it; what its close frame said."""
        with trio.fail_after(PATIENCE_SECONDS):
            while await self.stream.receive_some():
                pass
        assert self.connection.closed is not None
        return self.connection.closed


async def open_web(
    daemon: Daemon,
    nursery: trio.Nursery,
    *,
    path: str = "/",
    origins: Sequence[str] = (),
    subprotocols: Sequence[str] = (),
    size: int | None = None,
    cut: int | None = None,
    bounded: bool = False,
) -> WebPeer:
    """A WebSocket to the daemon. Raises ConnectionRejected when it does not agree to it."""
    below = daemon.connect(cut=cut, bounded=bounded, port=daemon.config.websocket.port)
    connection = await wrap_client_stream(
        nursery,
        cast(trio.SocketStream, below.stream),  # it asks no more than any stream has
        "daemon.example",
        path,
        subprotocols=list(subprotocols),
        extra_headers=[(b"Origin", origin.encode()) for origin in origins],
        message_queue_size=1_000,
        max_message_size=1 << 25,
    )
    return WebPeer(Messages(connection, size), connection=connection, below=below)
