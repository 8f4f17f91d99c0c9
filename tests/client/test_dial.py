"""TLS and WebSockets, on memory streams."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
import trio
import trio.testing
from trio.testing import MockClock
from trio_websocket import (
    ConnectionClosed,
    WebSocketConnection,
    WebSocketRequest,
    wrap_server_stream,
)

from blipmq import ConnectionLost, open_client
from blipmq.client.url import Address
from blipmq.testing import InProcessBroker, open_broker

TLS = Path(__file__).parent / "tls"
CERTIFICATE, KEY = TLS / "certificate.pem", TLS / "key.pem"
"""Of a broker at `broker.example`, signed by itself and valid for a hundred years; made by
`openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 36500` and so on."""


class Front:
    """What stands in front of a broker: TLS, WebSocket, or both."""

    def __init__(
        self,
        broker: InProcessBroker,
        nursery: trio.Nursery,
        server_context: ssl.SSLContext | None,
        *,
        websocket: bool,
    ) -> None:
        self.broker = broker
        self.nursery = nursery
        self.server_context = server_context
        self.websocket = websocket
        self.resource = ""

    async def connect(self, address: Address) -> trio.abc.Stream:
        ours, theirs = trio.testing.memory_stream_pair()
        self.nursery.start_soon(self._serve, theirs)
        return ours

    async def _serve(self, stream: trio.abc.Stream) -> None:
        behind = await self.broker.connect()
        front: trio.abc.Stream = stream
        if self.server_context is not None:
            front = trio.SSLStream(
                stream, self.server_context, server_side=True, https_compatible=True
            )
        try:
            if self.websocket:
                await self._serve_websocket(front, behind)
            else:
                await relay(front, behind)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return

    async def _serve_websocket(self, front: trio.abc.Stream, behind: trio.abc.Stream) -> None:
        request: WebSocketRequest = await wrap_server_stream(self.nursery, front)
        self.resource = request.path
        connection: WebSocketConnection = await request.accept()
        await relay(_Messages(connection), behind)


class _Messages(trio.abc.Stream):
    def __init__(self, connection: WebSocketConnection) -> None:
        self.connection = connection

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self.connection.send_message(bytes(data))

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        message = await self.connection.get_message()
        assert isinstance(message, bytes)
        return message

    async def aclose(self) -> None:
        await self.connection.aclose()


async def relay(one: trio.abc.Stream, other: trio.abc.Stream) -> None:
    """Until either ends or breaks; then both do."""

    async def pump(from_: trio.abc.Stream, to: trio.abc.Stream) -> None:
        try:
            while data := await from_.receive_some():
                await to.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError, ConnectionClosed):
            pass
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(pump, one, other)
        nursery.start_soon(pump, other, one)
    for stream in (one, other):
        with trio.move_on_after(1):
            await stream.aclose()


@pytest.mark.parametrize("scheme", ["blipmqs", "ws", "wss"])
async def test_a_client_over(
    autojump_clock: MockClock,
    nursery: trio.Nursery,
    scheme: str,
) -> None:
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(CERTIFICATE, KEY)
    trusting = ssl.create_default_context(cafile=str(CERTIFICATE))
    encrypted = scheme != "ws"
    async with open_broker() as broker:
        front = Front(
            broker, nursery, server if encrypted else None, websocket=scheme.startswith("ws")
        )
        async with (
            open_client(
                f"{scheme}://broker.example/" + ("mq" if front.websocket else ""),
                api_key=broker.api_key,
                connect=front.connect,
                ssl_context=trusting if encrypted else None,
            ) as client,
            client.subscribe("demo") as messages,
        ):
            large = bytes(3_000_000)
            await client.publish("demo", large)
            await client.publish("demo", b"small")
            assert (await messages.receive()).body == large
            async with await messages.receive() as message:
                assert message.body == b"small"
            await broker.hang_up()
            await client.publish("demo", b"after a reconnect")
        if front.websocket:
            assert front.resource == "/mq"


@pytest.mark.parametrize("scheme", ["blipmqs", "wss"])
async def test_a_broker_that_cannot_prove_who_it_is_is_not_talked_to(
    autojump_clock: MockClock,
    nursery: trio.Nursery,
    scheme: str,
) -> None:
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(CERTIFICATE, KEY)
    async with open_broker() as broker:
        front = Front(broker, nursery, server, websocket=scheme == "wss")
        with pytest.raises(ConnectionLost, match="certificate verify failed"):
            async with open_client(
                f"{scheme}://broker.example", api_key=broker.api_key, connect=front.connect
            ):
                pytest.fail("connected")


async def test_a_server_that_is_no_websocket_is_named(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    async def refuse(stream: trio.abc.Stream) -> None:
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
        await stream.aclose()

    async def connect(address: Address) -> trio.abc.Stream:
        ours, theirs = trio.testing.memory_stream_pair()
        nursery.start_soon(refuse, theirs)
        return ours

    with pytest.raises(ConnectionLost, match="cannot connect to host:80: "):
        async with open_client("ws://host", api_key="key", connect=connect):
            pytest.fail("connected")
