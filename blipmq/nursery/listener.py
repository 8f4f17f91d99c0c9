"""Accepting connections, up to the limit."""

from __future__ import annotations

import socket

import trio

from blipmq.broker.stats import CloseReason
from blipmq.errors import ConfigError
from blipmq.nursery.connection import Connection
from blipmq.nursery.state import DaemonState


def address_text(address: tuple[str, int]) -> str:
    """`host:port`, with brackets around an IPv6 address."""
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def open_listeners(state: DaemonState) -> list[trio.SocketListener]:
    """Bind the broker's address. Raises ConfigError when it cannot be used."""
    config = state.config
    try:
        return await state.outside.listen(config.bind_addr, config.port)
    except (OSError, UnicodeError) as error:
        raise ConfigError(
            f"bind_addr, port: cannot listen on {config.bind_addr}:{config.port} ({error}); "
            "expected an address of this machine and a free port, or 0 for any"
        ) from None


async def serve_connections(
    state: DaemonState, listeners: list[trio.SocketListener], connections: trio.Nursery
) -> None:
    """Accept clients until cancelled; each is served in `connections` and outlives this task."""

    async def handle(stream: trio.SocketStream) -> None:
        await accept(state, stream)

    await trio.serve_listeners(handle, listeners, handler_nursery=connections)


async def accept(state: DaemonState, stream: trio.SocketStream) -> None:
    """Serve one client, or close it at once when there are too many."""
    if len(state.connections) >= state.config.limits.max_connections:
        state.stats.connections_refused[CloseReason.LIMIT] += 1
        state.warn("connection limit", "too many connections", limit=len(state.connections))
        await trio.aclose_forcefully(stream)
        return
    try:
        peer = address_text(stream.socket.getpeername())
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    except OSError:  # it is gone already
        await trio.aclose_forcefully(stream)
        return
    await Connection(state, stream, peer).run()
