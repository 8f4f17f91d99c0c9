"""The ASGI application that the daemon's operator talks to: requests, answers, and which is whose.

Knows no path of its own: `metrics` and `api` bring theirs. A path under `/api/` or
`/debug/` answers its errors as JSON, any other as text.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Final
from urllib.parse import parse_qsl

import attrs
from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, HTTPScope, Scope

TEXT: Final = b"text/plain; charset=utf-8"
JSON: Final = b"application/json"
BODY_BYTES_MAX: Final = 64 * 1024
"""The largest body that a request may have."""
_JSON_PATHS: Final = ("/api/", "/debug/")

_logger = logging.getLogger(__name__)


class HttpError(Exception):
    """A request that is answered by an error; `headers` go along with it."""

    def __init__(
        self, status: int, message: str, headers: Iterable[tuple[bytes, bytes]] = ()
    ) -> None:
        super().__init__(status, message)
        self.status = status
        self.message = message
        self.headers = tuple(headers)


@attrs.frozen
class Response:
    """One answer, whole."""

    status: int
    body: bytes
    content_type: bytes = TEXT
    more_headers: tuple[tuple[bytes, bytes], ...] = ()

    def headers(self) -> list[tuple[bytes, bytes]]:
        return [
            (b"content-type", self.content_type),
            (b"content-length", b"%d" % len(self.body)),
            (b"cache-control", b"no-store"),
            *self.more_headers,
        ]


def json_response(document: object, status: int = 200) -> Response:
    """A JSON document; what text it holds that is not Unicode is replaced."""
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    return Response(status, text.encode("utf-8", "replace"), JSON)


@attrs.frozen
class Request:
    """One request. `parameters` are the parts of its path that stand for `{}` in its route."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[bytes, bytes]
    parameters: tuple[str, ...]
    _receive: ASGIReceiveCallable

    async def body(self) -> bytes:
        """The whole body. Raises HttpError 413 for one that is too large, and reads no more."""
        body = bytearray()
        while True:
            event = await self._receive()
            if event["type"] != "http.request":
                raise HttpError(400, "the request ended before its body did")
            body += event["body"]
            if len(body) > BODY_BYTES_MAX:
                raise HttpError(413, f"the body is longer than {BODY_BYTES_MAX} bytes")
            if not event["more_body"]:
                return bytes(body)


Handler = Callable[[Request], Awaitable[Response]]
Routes = Mapping[str, Mapping[str, Handler]]
"""Handlers by path and method. A part `{}` of a path stands for anything; HEAD goes with GET."""


def together(*tables: Routes) -> Routes:
    """All of these routes; of a path that several have, each brings other methods."""
    routes: dict[str, Mapping[str, Handler]] = {}
    for table in tables:
        for path, handlers in table.items():
            routes[path] = {**routes.get(path, {}), **handlers}
    return routes


@attrs.frozen
class HttpApp:
    """The ASGI application. The body of a request is read by the handler that wants it, if any."""

    routes: Routes

    async def __call__(
        self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable
    ) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000, "reason": None})
        else:
            await self._answer(scope, receive, send)

    async def _live(self, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        while True:
            event = await receive()
            if event["type"] == "lifespan.startup":
                await send({"type": "lifespan.startup.complete"})
            elif event["type"] == "lifespan.shutdown":
                await send({"type": "lifespan.shutdown.complete"})
                return

    async def _answer(
        self, scope: HTTPScope, receive: ASGIReceiveCallable, send: ASGISendCallable
    ) -> None:
        path, method = scope["path"], scope["method"]
        try:
            response = await self._respond(scope, receive)
        except HttpError as error:
            response = _error(path, error)
        except Exception:
            _logger.exception("HTTP request failed")
            response = _error(path, HttpError(500, "internal error"))
        await send(
            {
                "type": "http.response.start",
                "status": response.status,
                "headers": response.headers(),
            }
        )
        body = b"" if method == "HEAD" else response.body
        await send({"type": "http.response.body", "body": body, "more_body": False})

    async def _respond(self, scope: HTTPScope, receive: ASGIReceiveCallable) -> Response:
        path, method = scope["path"], scope["method"]
        handlers, parameters = self._find(path)
        handler = handlers.get("GET" if method == "HEAD" else method)
        if handler is None:
            allowed = [*handlers, "HEAD"] if "GET" in handlers else list(handlers)
            allow = ", ".join(allowed).encode()
            raise HttpError(405, "method not allowed", [(b"allow", allow)])
        query = scope["query_string"].decode("latin-1")
        request = Request(
            method,
            path,
            dict(parse_qsl(query, keep_blank_values=True, errors="replace")),
            {name.lower(): value for name, value in scope["headers"]},
            parameters,
            receive,
        )
        return await handler(request)

    def _find(self, path: str) -> tuple[Mapping[str, Handler], tuple[str, ...]]:
        if path in self.routes:
            return self.routes[path], ()
        parts = path.split("/")
        for route, handlers in self.routes.items():
            pattern = route.split("/")
            if "{}" not in pattern or len(pattern) != len(parts):
                continue
            pairs = list(zip(pattern, parts, strict=True))
            if all(wanted in ("{}", part) for wanted, part in pairs):
                return handlers, tuple(part for wanted, part in pairs if wanted == "{}")
        raise HttpError(404, "not found")


def _error(path: str, error: HttpError) -> Response:
    if not path.startswith(_JSON_PATHS):
        return Response(error.status, error.message.encode(), more_headers=error.headers)
    document = {"error": {"status": error.status, "message": error.message}}
    return attrs.evolve(json_response(document, error.status), more_headers=error.headers)
