"""From addresses to a stream over which a broker has accepted this client."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import attrs
import trio

from blipmq.client import handshake
from blipmq.client.backoff import Backoff
from blipmq.client.url import Address
from blipmq.client.websocket import open_websocket
from blipmq.errors import AuthenticationFailed, ConnectionLost, Refused

Connect = Callable[[Address], Awaitable[trio.abc.Stream]]
"""Opens a stream to an address, which carries TCP's part: neither TLS nor WebSocket yet."""

_CLOSE_SECONDS: Final = 2.0


@attrs.frozen
class Dialled:
    """A stream whose other end is a broker that has authenticated this client.

    `name` is what errors call it; `rest` is what it sent behind its answers.
    """

    stream: trio.abc.Stream
    name: str
    version: int
    rest: bytes


async def open_tcp(address: Address) -> trio.abc.Stream:
    return await trio.open_tcp_stream(address.host, address.port)


@attrs.define(eq=False)
class Dialer:
    """Tries the addresses in turn. `entropy` gives so many random bytes."""

    addresses: Sequence[Address]
    key: bytes
    timeout_s: float
    """Of each attempt."""
    ssl_context: ssl.SSLContext | None
    connect: Connect
    entropy: Callable[[int], bytes]
    nursery: trio.Nursery
    """For the tasks of WebSockets."""

    async def dial(self, versions: tuple[int, ...] = handshake.VERSIONS) -> Dialled:
        """The first broker that answers, with the first of these versions that it speaks.

        Raises `ConnectionLost` when there is none, with the reason of each, and the `Refused` of a
        handshake at once: another broker of the same service would say the same.
        """
        reasons: list[ConnectionLost] = []
        for address in self.addresses:
            try:
                return await self._try(address, versions)
            except ConnectionLost as error:
                reasons.append(error)
        if len(reasons) == 1:
            raise reasons[0]
        raise ConnectionLost("; ".join(map(str, reasons))) from reasons[0]

    async def redial(self, leaving: str | None, version: int, timeout_s: float) -> Dialled:
        """Connects again, for at most so many seconds. Raises `ConnectionLost`.

        Begins behind the broker that it is `leaving`, if it has others.
        """
        backoff = Backoff(self.entropy)
        names = [str(address) for address in self.addresses]
        if leaving in names:
            behind = names.index(leaving) + 1
            self.addresses = [*self.addresses[behind:], *self.addresses[:behind]]
        last: ConnectionLost | Refused | None = None
        with trio.move_on_after(timeout_s):
            while True:
                await trio.sleep(backoff.next())
                try:
                    return await self.dial((version,))
                except AuthenticationFailed:
                    raise
                except (ConnectionLost, Refused) as error:
                    last = error
        reason = last or f"no answer from {', '.join(names)}"
        text = f"not connected again within {timeout_s:g} seconds: {reason}"
        raise ConnectionLost(text) from last

    async def _try(self, address: Address, versions: tuple[int, ...]) -> Dialled:
        name, timeout_ms = str(address), round(self.timeout_s * 1000)
        with trio.move_on_after(self.timeout_s):
            return await greeted(await self._open(address), name, self.key, versions)
        raise ConnectionLost(f"cannot connect to {name} within {timeout_ms} ms")

    async def _open(self, address: Address) -> trio.abc.Stream:
        try:
            stream = await self.connect(address)
        except (OSError, UnicodeError) as error:  # Trio's IDNA is stricter than Python's
            raise ConnectionLost(f"cannot connect to {address}: {_reason(error)}") from error
        try:
            if address.encrypted:
                stream = await self._encrypted(stream, address)
            if address.websocket:
                stream = await open_websocket(stream, self.nursery, str(address), address.resource)
        except BaseException as error:
            await trio.aclose_forcefully(stream)
            if isinstance(error, trio.BrokenResourceError):
                reason = error.__cause__ or error
                raise ConnectionLost(f"cannot connect to {address}: {reason}") from error
            raise
        return stream

    async def _encrypted(self, stream: trio.abc.Stream, address: Address) -> trio.abc.Stream:
        context = self.ssl_context or ssl.create_default_context()
        secure = trio.SSLStream(
            stream, context, server_hostname=address.host, https_compatible=True
        )
        await secure.do_handshake()
        return secure


async def greeted(
    stream: trio.abc.Stream,
    name: str,
    key: bytes,
    versions: tuple[int, ...] = handshake.VERSIONS,
) -> Dialled:
    """Shakes hands; an exception or a cancellation closes the stream."""
    try:
        greeting = await handshake.shake_hands(stream, name, key, versions)
    except BaseException:
        with trio.move_on_after(_CLOSE_SECONDS, shield=True):
            await trio.aclose_forcefully(stream)
        raise
    return Dialled(stream, name, greeting.version, greeting.rest)


def _reason(error: OSError | UnicodeError) -> str:
    """What went wrong at each of the addresses that the host has."""
    cause = error.__cause__
    if isinstance(cause, BaseExceptionGroup):
        return "; ".join(str(each) for each in cause.exceptions)
    return str(error)
