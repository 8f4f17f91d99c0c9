"""Bytes to and from a stream; where that is a plain socket, by no more detours than there need be.

Trio's own streams try to receive before they wait, and let others run after each send. On a
connection that is idle most of the time both are time between a message and who waits for it.
"""

from __future__ import annotations

import os
from typing import Final

import trio

RECEIVE_BYTES: Final = 256 * 1024


class Line:
    """One stream, which is read by one task and written to by one at a time.

    Received is into one buffer. A new one for each read, of which little is used, would be mapped
    and unmapped by the C library each time, at five times the cost of a short read.
    """

    __slots__ = ("_buffer", "_socket", "_stream")

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._buffer = memoryview(b"")
        plain = type(stream) is trio.SocketStream and os.name == "posix"
        self._socket = stream.socket if plain and isinstance(stream, trio.SocketStream) else None

    async def receive(self) -> bytes | memoryview:
        """At least one byte; none at the end of the stream. Raises as a stream does.

        What it returns is good until the next call.
        """
        socket = self._socket
        if socket is None:
            return bytes(await self._stream.receive_some(RECEIVE_BYTES))
        if not self._buffer:
            self._buffer = memoryview(bytearray(RECEIVE_BYTES))
        while True:
            await trio.lowlevel.wait_readable(socket)
            try:
                return self._buffer[: os.readv(socket.fileno(), (self._buffer,))]
            except BlockingIOError:
                continue
            except OSError as error:
                raise trio.BrokenResourceError from error

    def send_now(self, data: bytes) -> int:
        """Sends what the socket takes without waiting, and returns how many bytes those are.

        None where it is no plain socket, and none where it is broken: `send` says so.
        """
        if self._socket is None:
            return 0
        try:
            return os.write(self._socket.fileno(), data)
        except OSError:
            return 0

    async def send(self, data: bytes) -> None:
        """Sends everything; a checkpoint only if it has to wait. Raises as a stream does."""
        sent = self.send_now(data)
        if sent < len(data):
            await self._stream.send_all(memoryview(data)[sent:])
