"""Clients over WebSocket: their binary messages, put together, are the protocol's byte stream.

Knows of HTTP and WebSocket what trio-websocket does not decide: who may connect, what closes a
connection and with which code. To reader and writer it is a stream like any other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import attrs
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, WebSocketRequest
from wsproto import ConnectionType, WSConnection
from wsproto.connection import ConnectionState
from wsproto.events import BytesMessage, CloseConnection, Ping, TextMessage

from blipmq.broker.stats import CloseReason, Listener
from blipmq.config import WebSocketSettings
from blipmq.nursery.connection import Connection
from blipmq.nursery.state import DaemonState

SUBPROTOCOL: Final = "blipmq"
PART_BYTES: Final = 256 * 1024
"""The largest message that is sent: so much every client takes."""
_RECEIVE_BYTES: Final = 64 * 1024

NORMAL: Final = 1000
GOING_AWAY: Final = 1001
PROTOCOL_ERROR: Final = 1002
UNSUPPORTED_DATA: Final = 1003
POLICY: Final = 1008
TOO_BIG: Final = 1009
TRY_AGAIN_LATER: Final = 1013
"""Codes of RFC 6455, section 7.4, and of the registry that it founds."""


@attrs.frozen
class Goodbye:
    """What a close frame says."""

    code: int
    reason: str = ""


class _Heard(trio.abc.Stream):
    """A stream that knows since when its other end is silent, and can turn a deaf ear to it."""

    def __init__(self, inner: trio.abc.Stream) -> None:
        self.deaf = False
        """Whether all that comes is thrown away, up to the end."""
        self._inner = inner
        self._last = trio.current_time()
        self._listening = False

    @property
    def silent_since(self) -> float:
        """Now, while nobody listens: then it is not the client that is silent."""
        return self._last if self._listening else trio.current_time()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._inner.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._inner.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        self._last = trio.current_time()
        self._listening = True
        try:
            data = await self._inner.receive_some(max_bytes)
            while data and self.deaf:
                data = await self._inner.receive_some(max_bytes)
            return data
        finally:
            self._listening = False

    async def aclose(self) -> None:
        await self._inner.aclose()


class _Socket(WebSocketConnection):
    """trio-websocket's connection, which hands on what comes without putting messages together.

    So a client makes the daemon hold one part of a message at most, however large the message, and
    in however many fragments it comes. What breaks a rule is the end of what is handed on, so that
    all that came before it is answered; `verdict` is what the close frame is to say then.
    """

    def __init__(
        self,
        stream: _Heard,
        max_message_bytes: int,
        refuse: Callable[[CloseReason, str], None],
    ) -> None:
        super().__init__(
            stream,
            WSConnection(ConnectionType.SERVER),
            message_queue_size=0,
            max_message_size=max_message_bytes,
            receive_buffer_size=_RECEIVE_BYTES,
        )
        self._heard = stream
        self._refuse = refuse
        self.verdict: Goodbye | None = None

    async def receive(self) -> None:
        """Read until the connection ends. Nothing that a client sends raises out of here."""
        try:
            await self._reader_task()
        except Exception as error:  # noqa: BLE001, its parsers raise what they did not foresee
            self._refuse(CloseReason.WEBSOCKET_FRAMING, repr(error))

    async def request(self) -> WebSocketRequest:
        return await self._get_request()

    async def _handle_message_event(self, event: BytesMessage | TextMessage) -> None:
        if self.verdict is not None:
            return
        if not isinstance(event, BytesMessage):
            goodbye = Goodbye(UNSUPPORTED_DATA, "binary messages, please")
            await self._judge(CloseReason.TEXT, goodbye)
            return
        self._message_size += len(event.data)
        if self._message_size > self._max_message_size:
            goodbye = Goodbye(TOO_BIG, f"messages have {self._max_message_size} bytes at most")
            await self._judge(CloseReason.MESSAGE_SIZE, goodbye)
            return
        if event.message_finished:
            self._message_size = 0
        if event.data:
            try:
                await self._send_channel.send(bytes(event.data))
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return  # it is being closed, and what comes is for nobody

    async def _handle_close_connection_event(self, event: CloseConnection) -> None:
        if self._wsproto.state is not ConnectionState.OPEN:
            await super()._handle_close_connection_event(event)
        elif self.verdict is None:  # not a close frame, but a frame that is none
            goodbye = Goodbye(event.code, event.reason or "")
            # What follows has no meaning, and the parser would gather it.
            self._heard.deaf = True
            await self._judge(CloseReason.WEBSOCKET_FRAMING, goodbye)

    async def _handle_ping_event(self, event: Ping) -> None:
        if self._wsproto.state is ConnectionState.OPEN:
            await super()._handle_ping_event(event)

    async def _judge(self, reason: CloseReason, goodbye: Goodbye) -> None:
        self.verdict = goodbye
        self._refuse(reason, goodbye.reason)
        await self._send_channel.aclose()


class WebSocketStream(trio.abc.HalfCloseableStream):
    """The daemon's end. `goodbye` gives what its close frame says, unless the client misbehaved."""

    def __init__(self, socket: _Socket, transport: trio.abc.Stream) -> None:
        self._socket = socket
        self._transport = transport
        self._rest = memoryview(b"")
        self.goodbye: Callable[[], Goodbye] = lambda: Goodbye(NORMAL)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Raises trio.BrokenResourceError when the connection is gone."""
        await trio.lowlevel.checkpoint()
        view = memoryview(data)
        try:
            for at in range(0, len(view), PART_BYTES):
                await self._socket.send_message(bytes(view[at : at + PART_BYTES]))
        except ConnectionClosed as error:
            raise trio.BrokenResourceError(str(error)) from error

    async def wait_send_all_might_not_block(self) -> None:
        await self._transport.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """At least one byte; none when the client has closed, or sends nothing that counts.

        Raises trio.BrokenResourceError when the connection is lost without a word.
        """
        if not self._rest:
            try:
                message = await self._socket.get_message()
            except ConnectionClosed as error:
                closed = self._socket.closed
                if self._socket.verdict is not None or (closed and closed.code != 1006):
                    return b""
                raise trio.BrokenResourceError("lost without a close frame") from error
            assert isinstance(message, bytes)
            self._rest = memoryview(message)
        else:
            await trio.lowlevel.checkpoint()
        size = len(self._rest) if max_bytes is None else max_bytes
        data, self._rest = self._rest[:size], self._rest[size:]
        return bytes(data)

    async def send_eof(self) -> None:
        """Say why no more comes, and wait until the client has closed as well."""
        goodbye = self._socket.verdict or self.goodbye()
        await self._socket.aclose(goodbye.code, goodbye.reason)

    async def aclose(self) -> None:
        await self._transport.aclose()


@attrs.frozen
class _Rejection:
    """A request that is answered by HTTP and nothing else."""

    status: int
    reason: CloseReason
    text: str


def _rejection(request: WebSocketRequest, settings: WebSocketSettings) -> _Rejection | None:
    """Why this request is not accepted, if it is not."""
    path = request.path.partition("?")[0]
    if path != settings.path:
        return _Rejection(404, CloseReason.UPGRADE, "no WebSocket at this path")
    origins = [value.lower() for name, value in request.headers if name == b"origin"]
    allowed = {origin.encode() for origin in settings.allowed_origins}
    if b"*" not in allowed and not allowed.issuperset(origins):
        return _Rejection(403, CloseReason.ORIGIN, "websocket.allowed_origins has not this origin")
    proposed = request.proposed_subprotocols
    if proposed and SUBPROTOCOL not in proposed:
        return _Rejection(400, CloseReason.UPGRADE, f"the subprotocol is {SUBPROTOCOL}")
    return None


@attrs.frozen
class _Client:
    """One that has connected to the WebSocket listener."""

    state: DaemonState
    transport: _Heard
    peer: str
    accepted_at: float

    @property
    def settings(self) -> WebSocketSettings:
        return self.state.config.websocket

    def refuse(self, reason: CloseReason, error: str) -> None:
        self.state.stats.connections_refused[reason] += 1
        self.state.warn(
            reason, "WebSocket refused", peer=self.peer, reason=reason.value, error=error
        )

    async def serve(self) -> None:
        socket = _Socket(self.transport, self.settings.max_message_bytes, self.refuse)
        async with trio.open_nursery() as nursery:
            if await self._upgrade(socket, nursery):
                stream = WebSocketStream(socket, self.transport)
                connection = Connection(
                    self.state, stream, self.peer, Listener.WEBSOCKET, self.accepted_at
                )
                stream.goodbye = lambda: _goodbye(connection)
                if self.settings.ping_ms:
                    nursery.start_soon(self._keep_alive, socket, nursery)
                await connection.run()
            nursery.cancel_scope.cancel()

    async def _upgrade(self, socket: _Socket, nursery: trio.Nursery) -> bool:
        """Whether this is a WebSocket now. If it is not, the client was told why."""
        accepted = False
        timeout = self.state.config.limits.handshake_timeout_ms / 1000
        with self.state.opening(self.accepted_at + timeout) as scope:
            nursery.start_soon(self._receive, socket, scope)
            accepted = await self._answer(await socket.request())
        if scope.cancelled_caught:
            if trio.current_time() >= scope.deadline:
                self.refuse(CloseReason.HANDSHAKE_TIMEOUT, "no request in time")
            elif not self.state.stopping.is_set():
                self.refuse(CloseReason.UPGRADE, "no request for a WebSocket")
        return accepted

    async def _answer(self, request: WebSocketRequest) -> bool:
        rejection = _rejection(request, self.settings)
        if rejection is None:
            chosen = SUBPROTOCOL if request.proposed_subprotocols else None
            await request.accept(subprotocol=chosen)
            return True
        self.refuse(rejection.reason, rejection.text)
        await request.reject(
            rejection.status,
            extra_headers=[(b"content-type", b"text/plain"), (b"connection", b"close")],
            body=rejection.text.encode(),
        )
        return False

    async def _receive(self, socket: _Socket, opening: trio.CancelScope) -> None:
        await socket.receive()
        opening.cancel()

    async def _keep_alive(self, socket: _Socket, nursery: trio.Nursery) -> None:
        """Ping a client that is silent, and end the connection if that changes nothing."""
        interval = self.settings.ping_ms / 1000
        answered = trio.Event()
        answered.set()
        while True:
            since = self.transport.silent_since
            silence = trio.current_time() - since
            if silence >= 2 * interval:
                self.refuse(CloseReason.PING, "no answer to a ping")
                nursery.cancel_scope.cancel()
                return
            if silence >= interval:
                if answered.is_set():
                    answered = trio.Event()
                    nursery.start_soon(_ping, socket, answered)
                await trio.sleep_until(since + 2 * interval)
            else:
                await trio.sleep_until(since + interval)


async def _ping(socket: _Socket, answered: trio.Event) -> None:
    """A task of its own: it must not be cancelled with half of the ping sent."""
    try:
        await socket.ping()
    except ConnectionClosed:
        return
    answered.set()


def _goodbye(connection: Connection) -> Goodbye:
    """Why the daemon closes this connection."""
    if connection.framing_error is not None:
        return Goodbye(PROTOCOL_ERROR, connection.framing_error)
    reason = connection.session.close_reason
    if reason is CloseReason.MEMORY:
        return Goodbye(TRY_AGAIN_LATER, reason)
    if reason is not None:
        return Goodbye(POLICY, reason)
    if connection.state.stopping.is_set():
        return Goodbye(GOING_AWAY, "shutting down")
    return Goodbye(NORMAL)


async def serve_websocket(
    state: DaemonState, transport: trio.abc.Stream, peer: str, accepted_at: float
) -> None:
    """Serve one client from its HTTP request on; closes the stream."""
    heard = _Heard(transport)
    try:
        await _Client(state, heard, peer, accepted_at).serve()
    finally:
        await trio.aclose_forcefully(heard)
