"""Accepting connections, up to the limit, on each port that is configured."""

from __future__ import annotations

import socket
from functools import partial

import attrs
import trio

from blipmq.broker.stats import CloseReason, Listener
from blipmq.errors import ConfigError
from blipmq.nursery.connection import Connection
from blipmq.nursery.state import DaemonState
from blipmq.nursery.tls import encrypted
from blipmq.nursery.websocket import serve_websocket


def address_text(address: tuple[str, int]) -> str:
    """`host:port`, with brackets around an IPv6 address."""
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@attrs.frozen
class Port:
    """What was bound for one kind of client."""

    kind: Listener
    listeners: list[trio.SocketListener]
    encrypted: bool

    @property
    def addresses(self) -> tuple[tuple[str, int], ...]:
        """(host, port) of each of its sockets."""
        return tuple(listener.socket.getsockname()[:2] for listener in self.listeners)


async def open_ports(state: DaemonState) -> list[Port]:
    """Bind all addresses that are configured. Raises ConfigError when one cannot be used."""
    config = state.config
    wanted = [(Listener.TCP, False, "bind_addr", "port", config.bind_addr, config.port)]
    if state.certificate is not None:
        tls = config.tls
        wanted.append((Listener.TLS, True, "tls.address", "tls.port", tls.address, tls.port))
    if config.websocket.enabled:
        web, names = config.websocket, ("websocket.address", "websocket.port")
        wanted.append((Listener.WEBSOCKET, web.tls, *names, web.address, web.port))
    ports: list[Port] = []
    try:
        for kind, is_encrypted, address_key, port_key, host, number in wanted:
            try:
                ports.append(Port(kind, await state.outside.listen(host, number), is_encrypted))
            except (OSError, UnicodeError) as error:
                raise ConfigError(
                    f"{address_key}, {port_key}: cannot listen on {host}:{number} ({error}); "
                    "expected an address of this machine and a free port, or 0 for any"
                ) from None
    except BaseException:
        for port in ports:
            for listener in port.listeners:
                await trio.aclose_forcefully(listener)
        raise
    return ports


async def serve_connections(state: DaemonState, port: Port, connections: trio.Nursery) -> None:
    """Accept clients until cancelled; each is served in `connections` and outlives this task."""
    handle = partial(accept, state, port)
    await trio.serve_listeners(handle, port.listeners, handler_nursery=connections)


async def accept(state: DaemonState, port: Port, stream: trio.SocketStream) -> None:
    """Serve one client, or close it at once when there are too many."""
    count = len(state.connections) + len(state.openings)
    if count >= state.config.limits.max_connections:
        state.stats.connections_refused[CloseReason.LIMIT] += 1
        state.warn("connection limit", "too many connections", limit=count)
        await trio.aclose_forcefully(stream)
        return
    try:
        peer = address_text(stream.socket.getpeername())
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    except OSError:  # it is gone already
        await trio.aclose_forcefully(stream)
        return
    state.stats.connections_accepted[port.kind] += 1
    try:
        await _serve(state, port, stream, peer)
    finally:
        await trio.aclose_forcefully(stream)


async def _serve(state: DaemonState, port: Port, accepted: trio.SocketStream, peer: str) -> None:
    accepted_at = trio.current_time()
    stream: trio.abc.Stream | None = accepted
    if port.encrypted:
        timeout = state.config.limits.handshake_timeout_ms / 1000
        with state.opening(accepted_at + timeout) as scope:
            stream = await encrypted(state, accepted, peer)
        if scope.cancelled_caught:
            if not state.stopping.is_set():
                state.stats.connections_refused[CloseReason.HANDSHAKE_TIMEOUT] += 1
                state.warn("handshake timeout", "handshake timeout", peer=peer)
            return
    if stream is None:
        return
    if port.kind is Listener.WEBSOCKET:
        await serve_websocket(state, stream, peer, accepted_at)
    else:
        await Connection(state, stream, peer, port.kind, accepted_at).run()
