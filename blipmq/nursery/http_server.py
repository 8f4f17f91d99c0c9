"""The HTTP connections of the daemon's operator: bounded, and each fails alone.

The HTTP is hypercorn's, connection by connection: its own accept loop sets no bound on the number
of connections, lets one that fails (a path that is not ASCII is enough) take the others down, and
sends shielded from cancellation, so that a client which does not read could keep the daemon from
stopping.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import Final

import attrs
import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ASGIFramework, ConnectionState

from blipmq.errors import ConfigError

CONNECTIONS_MAX: Final = 32
"""HTTP connections open at once; one more is closed as soon as it is accepted."""
CONNECTION_SECONDS: Final = 15.0
"""From the accepted connection to the end of its one response; what takes longer is closed."""
REQUEST_SECONDS: Final = 5
"""From the accepted connection to the end of the request's headers."""
REQUEST_BYTES: Final = 16 * 1024
"""The largest head of a request."""

_logger = logging.getLogger(__name__)


def _http_config() -> Config:
    config = Config()
    config.accesslog = None
    config.errorlog = None
    config.include_server_header = False
    config.h11_max_incomplete_size = REQUEST_BYTES
    config.keep_alive_timeout = REQUEST_SECONDS
    config.keep_alive_max_requests = 0  # one request to a connection, so none is pipelined
    return config


@attrs.frozen
class HttpServer:
    """Answers HTTP connections; each is bounded in number, size and time, and fails alone."""

    _app: ASGIWrapper
    _config: Config = attrs.field(init=False, factory=_http_config)
    _context: WorkerContext = attrs.field(init=False, factory=partial(WorkerContext, None))
    _slots: trio.Semaphore = attrs.field(
        init=False, factory=partial(trio.Semaphore, CONNECTIONS_MAX)
    )

    async def serve_connection(self, stream: trio.SocketStream) -> None:
        """Answers the request of this connection and closes it. Whatever the client does, it ends
        within `CONNECTION_SECONDS`, and at once when it is cancelled."""
        try:
            self._slots.acquire_nowait()
        except trio.WouldBlock:
            await trio.aclose_forcefully(stream)
            return
        try:
            with trio.move_on_after(CONNECTION_SECONDS):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_close_when_cancelled, stream)
                    await TCPServer(
                        self._app,
                        self._config,
                        self._context,
                        ConnectionState({}),
                        stream,  # type: ignore[arg-type]  # annotated for TLS, and takes both
                    ).run()
                    nursery.cancel_scope.cancel()
        except* Exception:
            # What a client can send must not end more than its own connection.
            _logger.debug("HTTP connection failed", exc_info=True)
        finally:
            self._slots.release()


async def _close_when_cancelled(stream: trio.SocketStream) -> None:
    """hypercorn shields what it sends from cancellation, but not from a socket that is closed."""
    try:
        await trio.sleep_forever()
    finally:
        stream.socket.close()


async def serve_http(
    app: ASGIFramework,
    addr: str,
    port: int,
    *,
    task_status: trio.TaskStatus[tuple[str, int]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serves until cancelled; reports the address and port that it listens on, once it does.

    Raises `ConfigError` when it cannot listen there. Port 0 takes a free one.
    """
    try:
        listeners = await trio.open_tcp_listeners(port, host=addr)
    except (OSError, UnicodeError) as error:  # UnicodeError: what cannot be a host name
        raise ConfigError(
            f"metrics_addr, metrics_port: cannot listen on {addr}:{port} ({error}); "
            "expected an address of this machine and a free port, or 0 for any"
        ) from error
    server = HttpServer(ASGIWrapper(app))
    bound_addr, bound_port = listeners[0].socket.getsockname()[:2]
    task_status.started((bound_addr, bound_port))
    await trio.serve_listeners(server.serve_connection, listeners)
