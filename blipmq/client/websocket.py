"""A WebSocket as a stream of bytes: its binary messages, put together, are the protocol."""

from __future__ import annotations

from typing import Final, cast

import trio
from trio_websocket import (
    ConnectionClosed,
    HandshakeError,
    WebSocketConnection,
    wrap_client_stream,
)

from blipmq.client.unwrapped import unwrapped

SUBPROTOCOL: Final = "blipmq"
MESSAGE_BYTES_MAX: Final = 32 * 1024 * 1024
"""Of what is received."""
_PART_BYTES: Final = 256 * 1024
"""Of what is sent: so much every WebSocket server takes."""
_CLOSE_SECONDS: Final = 2.0


class WebSocketStream(trio.abc.Stream):
    """The client's end. Text messages break it."""

    def __init__(
        self,
        transport: trio.abc.Stream,
        connection: WebSocketConnection,
        tasks: trio.CancelScope,
    ) -> None:
        self._transport = transport
        self._connection = connection
        self._tasks = tasks
        self._rest = b""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Raises `trio.BrokenResourceError` when the connection is gone."""
        await trio.lowlevel.checkpoint()
        view = memoryview(data)
        try:
            for at in range(0, len(view), _PART_BYTES):
                await self._connection.send_message(bytes(view[at : at + _PART_BYTES]))
        except ConnectionClosed as error:
            raise trio.BrokenResourceError(_reason(error)) from error

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """At least one byte; none at the end of the stream."""
        while not self._rest:
            try:
                message = await self._connection.get_message()
            except ConnectionClosed as error:
                reason = self._connection.closed
                if reason is not None and reason.code in (1000, 1001):
                    return b""
                raise trio.BrokenResourceError(_reason(error)) from error
            if isinstance(message, str):
                raise trio.BrokenResourceError("a text message, where bytes are due")
            self._rest = message
        else:
            await trio.lowlevel.checkpoint()
        data, self._rest = self._rest[:max_bytes], self._rest[max_bytes or len(self._rest) :]
        return data

    async def aclose(self) -> None:
        """Says goodbye, unless it is cancelled, and closes what is below."""
        try:
            with trio.move_on_after(_CLOSE_SECONDS):
                await self._connection.aclose()
        finally:
            # It leaves both as they are when the other end has closed or broken it.
            self._tasks.cancel()
            await trio.aclose_forcefully(self._transport)


async def open_websocket(
    stream: trio.abc.Stream, nursery: trio.Nursery, host: str, resource: str
) -> WebSocketStream:
    """A WebSocket over this stream, whose task runs in the nursery.

    Raises `trio.BrokenResourceError` when the server does not agree to it.
    """
    try:
        opened: WebSocketStream = await nursery.start(_host, stream, host, resource)
    except HandshakeError as error:
        raise trio.BrokenResourceError(f"no WebSocket: {error!r}") from error
    return opened


async def _host(
    stream: trio.abc.Stream,
    host: str,
    resource: str,
    *,
    task_status: trio.TaskStatus[WebSocketStream],
) -> None:
    """Runs the tasks of a WebSocket. An error of theirs ends it, and nothing else.

    Once it is open they end when it is closed, and not before: closing it needs them.
    """
    started = False
    try:
        with trio.CancelScope() as scope, unwrapped():
            async with trio.open_nursery() as nursery:
                connection = await wrap_client_stream(
                    nursery,
                    # It asks no more of a stream than any stream has.
                    cast(trio.SocketStream, stream),
                    host,
                    resource,
                    subprotocols=[SUBPROTOCOL],
                    max_message_size=MESSAGE_BYTES_MAX,
                )
                task_status.started(WebSocketStream(stream, connection, scope))
                started = scope.shield = True
    except HandshakeError:
        if not started:
            raise


def _reason(error: ConnectionClosed) -> str:
    return f"the WebSocket was closed: {error.reason}"
