"""TLS on a client's connection: the handshake, and a stream that can say that no more comes."""

from __future__ import annotations

import ssl
from contextlib import suppress
from typing import Final

import trio

from blipmq.broker.stats import CloseReason
from blipmq.nursery.state import DaemonState

_ENDS: Final = (ssl.SSLEOFError, ssl.SSLZeroReturnError)


class _Farewell(ssl.SSLObject):
    """Takes leave also of a client that still sends.

    OpenSSL calls that an error, and Trio would then not send what it has written: that no more
    comes.
    """

    def unwrap(self) -> None:
        try:
            super().unwrap()
        except ssl.SSLError as error:
            if error.reason != "APPLICATION_DATA_AFTER_CLOSE_NOTIFY":
                raise


class TlsStream(trio.abc.HalfCloseableStream):
    """The daemon's end, over any stream. A client that closes without a word has sent its last."""

    def __init__(self, transport: trio.abc.Stream, context: ssl.SSLContext) -> None:
        self._transport = transport
        context.sslobject_class = _Farewell
        self._tls: trio.SSLStream[trio.abc.Stream] = trio.SSLStream(
            transport, context, server_side=True, https_compatible=True
        )
        self._said_goodbye = False

    async def shake_hands(self) -> None:
        """Raises trio.BrokenResourceError when the client does not agree."""
        await self._tls.do_handshake()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._tls.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._tls.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """After `send_eof`, what comes is for nobody: still encrypted, and only counted."""
        if self._said_goodbye:
            return await self._transport.receive_some(max_bytes)
        return await self._tls.receive_some(max_bytes)

    async def send_eof(self) -> None:
        """Say that no more comes, and wait until the client has said so too, or sends on."""
        with suppress(trio.BrokenResourceError):
            await self._tls.unwrap()
        self._said_goodbye = True

    async def aclose(self) -> None:
        await self._transport.aclose()


async def encrypted(state: DaemonState, stream: trio.abc.Stream, peer: str) -> TlsStream | None:
    """The stream with TLS on it; None when the client did not agree, which is counted."""
    assert state.certificate is not None
    secure = TlsStream(stream, state.certificate.context)
    try:
        await secure.shake_hands()
    except trio.BrokenResourceError as error:
        state.stats.connections_refused[CloseReason.TLS_HANDSHAKE] += 1
        cause = error.__cause__
        # Whoever only looks whether the port is open is not worth a line.
        if isinstance(cause, ssl.SSLError) and not isinstance(cause, _ENDS):
            state.warn("no TLS", "no TLS", peer=peer, error=cause.reason or str(cause))
        return None
    return secure
