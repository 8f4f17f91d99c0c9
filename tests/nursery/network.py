"""TCP without the kernel: listeners and connections in memory."""

from __future__ import annotations

import math
import socket
from collections.abc import Callable
from typing import Final, cast

import attrs
import trio
from trio.testing import (
    lockstep_stream_one_way_pair,
    memory_stream_one_way_pair,
)

from blipmq.config import Config
from tests.peer import Peer

PORT: Final = Config().port


@attrs.frozen
class Address:
    """What is asked of a socket: where it is bound, or where its peer is."""

    host: str
    port: int

    def getsockname(self) -> tuple[str, int]:
        return self.host, self.port

    getpeername = getsockname


@attrs.define(eq=False)
class ServerStream(trio.abc.HalfCloseableStream):
    """The daemon's end of a connection. Hands on at most `cut` bytes at a time.

    When `reset` is set, the end of what the peer sent is that of a connection that was cut off.
    """

    socket: Address
    incoming: trio.abc.ReceiveStream
    outgoing: trio.abc.SendStream
    cut: int | None
    reset: bool = False
    received: int = 0
    """Bytes that the daemon took."""

    def setsockopt(self, level: int, option: int, value: int) -> None:
        pass

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self.outgoing.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self.outgoing.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        await self.outgoing.aclose()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        sizes = [size for size in (max_bytes, self.cut) if size is not None]
        data = await self.incoming.receive_some(min(sizes, default=None))
        if not data and self.reset:
            raise trio.BrokenResourceError("reset by the test")
        self.received += len(data)
        return data

    async def aclose(self) -> None:
        await self.outgoing.aclose()
        await self.incoming.aclose()


@attrs.define(eq=False)
class MemoryPeer(Peer):
    """A peer that can also break its connection."""

    server: ServerStream = attrs.field(kw_only=True)

    async def reset(self) -> None:
        """Cut the connection off: what the daemon sends or receives from now on fails."""
        self.server.reset = True
        await self.stream.aclose()


class Listener(trio.abc.Listener[ServerStream | trio.SocketStream]):
    """Gives the connections that a `Network` makes."""

    def __init__(self, address: Address) -> None:
        self.socket = address
        self.send, self._accepted = trio.open_memory_channel[ServerStream | trio.SocketStream](
            math.inf
        )

    async def accept(self) -> ServerStream | trio.SocketStream:
        return await self._accepted.receive()

    async def aclose(self) -> None:
        await self._accepted.aclose()


@attrs.define(eq=False)
class Network:
    """Where one daemon listens, by port, and peers connect."""

    listeners: dict[int, Listener] = attrs.Factory(dict)

    async def listen(self, host: str, port: int) -> list[trio.SocketListener]:
        """As `blipmq.nursery.outside.Outside.listen`."""
        await trio.lowlevel.checkpoint()
        listener = self.listeners[port] = Listener(Address(host, port or 1))
        # The daemon asks no more of a listener than this one has.
        return [cast(trio.SocketListener, listener)]

    def connect(
        self, *, cut: int | None = None, bounded: bool = False, port: int = PORT
    ) -> MemoryPeer:
        """A new connection; the daemon gets its bytes `cut` at a time.

        On a `bounded` one the daemon waits until the peer has read what it sent; else all that is
        sent fits into it. Raises ConnectionRefusedError when nobody listens.
        """
        to_server, server_receives = memory_stream_one_way_pair()
        server_sends: trio.abc.SendStream
        from_server: trio.abc.ReceiveStream
        pair: Callable[[], tuple[trio.abc.SendStream, trio.abc.ReceiveStream]]
        pair = lockstep_stream_one_way_pair if bounded else memory_stream_one_way_pair
        server_sends, from_server = pair()
        server = ServerStream(Address("192.0.2.1", 40_000), server_receives, server_sends, cut)
        if port not in self.listeners:
            raise ConnectionRefusedError
        try:
            self.listeners[port].send.send_nowait(server)
        except trio.BrokenResourceError:
            raise ConnectionRefusedError from None
        return MemoryPeer(trio.StapledStream(to_server, from_server), server=server)

    async def connect_tcp(self, *, send_buffer: int | None = None) -> trio.SocketStream:
        """A new connection through the kernel, which takes about so many bytes of the daemon."""
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        async with listener:
            if send_buffer is not None:
                listener.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
            client = trio.socket.socket()
            if send_buffer is not None:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, send_buffer)
            await client.connect(listener.socket.getsockname())
            server = await listener.accept()
        self.listeners[PORT].send.send_nowait(server)
        return trio.SocketStream(client)
