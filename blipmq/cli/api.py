"""The daemon's JSON API, as the commands ask it."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Final, TypeVar
from urllib.parse import quote, urlencode, urlsplit

import attrs
import cattrs
import h11
import trio

from blipmq.errors import BlipMQError

PREFIX: Final = "/api/v1"
PAGE: Final = 500
"""Rows that are asked for at once."""
TIMEOUT_SECONDS: Final = 20.0
_READ_BYTES: Final = 64 * 1024

T = TypeVar("T")
Json = dict[str, object]


class ApiUnreachable(BlipMQError):
    """Nobody answers at that address, or who answers is no BlipMQ daemon."""


class ApiError(BlipMQError):
    """The daemon refused a request; `status` is that of HTTP."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@attrs.frozen
class ApiRequest:
    """One request; `target` is the path with its query."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes


@attrs.frozen
class ApiResponse:
    """What came back."""

    status: int
    body: bytes


Fetch = Callable[[str, ApiRequest], Awaitable[ApiResponse]]
"""Sends a request to the server of a base URL. Raises OSError or ApiUnreachable."""


@attrs.frozen
class Api:
    """The API at a base URL; `admin_key` goes along with every request, if there is one.

    What the daemon refuses is raised as ApiError, and as ApiUnreachable what is no answer of it.
    """

    url: str
    admin_key: str | None
    fetch: Fetch

    async def get(self, path: str, **query: object) -> Json:
        return await self._ask("GET", PREFIX + path + _query(query), b"")

    async def get_debug(self, path: str, **query: object) -> Json:
        """`get` of what looks into the daemon itself: a whole path, which is no part of the API."""
        return await self._ask("GET", path + _query(query), b"")

    async def post(self, path: str, **fields: object) -> Json:
        given = {name: value for name, value in fields.items() if value is not None}
        return await self._ask("POST", PREFIX + path, json.dumps(given).encode())

    async def delete(self, path: str) -> Json:
        return await self._ask("DELETE", PREFIX + path, b"")

    async def rows(
        self, path: str, field: str, its_type: type[T], limit: int | None = None, **query: object
    ) -> AsyncGenerator[T, None]:
        """All rows of a list, or the first `limit`, page by page."""
        after: object = None
        left = limit
        while left is None or left > 0:
            size = PAGE if left is None else min(PAGE, left)
            page = await self.get(path, limit=size, after=after, **query)
            rows = page.get(field)
            if not isinstance(rows, list):
                raise self._no_daemon()
            for row in rows:
                yield self.structured(row, its_type)
            left = None if left is None else left - len(rows)
            after = page.get("next")
            if after is None:
                return

    def structured(self, row: object, its_type: type[T]) -> T:
        """A JSON object as a class. Fields that it does not know are left out."""
        try:
            return cattrs.structure(row, its_type)
        except (cattrs.BaseValidationError, TypeError, ValueError, KeyError):
            raise self._no_daemon() from None

    async def _ask(self, method: str, path: str, body: bytes) -> Json:
        headers = {"Host": urlsplit(self.url).netloc, "Accept": "application/json"}
        if body:
            headers["Content-Length"] = str(len(body))
        if self.admin_key is not None:
            headers["Authorization"] = f"Bearer {self.admin_key}"
        request = ApiRequest(method, path, headers, body)
        try:
            with trio.fail_after(TIMEOUT_SECONDS):
                response = await self.fetch(self.url, request)
        except trio.TooSlowError:
            text = f"{self.url} did not answer within {TIMEOUT_SECONDS:g} seconds"
            raise ApiUnreachable(text) from None
        except OSError as error:
            # Several addresses that were tried are in a group, as its cause.
            raise ApiUnreachable(f"{self.url} cannot be reached: {error}") from None
        return self._document(response)

    def _document(self, response: ApiResponse) -> Json:
        try:
            document = json.loads(response.body)
        except (ValueError, RecursionError):
            raise self._no_daemon() from None
        if response.status == 200 and isinstance(document, dict):
            return document
        match document:
            case {"error": {"message": str(message)}}:
                raise ApiError(response.status, message)
        raise self._no_daemon()

    def _no_daemon(self) -> ApiUnreachable:
        return ApiUnreachable(f"{self.url} answers, but not as the API of a BlipMQ daemon")


def _query(query: Mapping[str, object]) -> str:
    given = {name: str(value) for name, value in query.items() if value is not None}
    return f"?{urlencode(given, errors='surrogatepass')}" if given else ""


def path_part(value: object) -> str:
    """A value as a part of a path."""
    return quote(str(value), safe="")


async def http_fetch(url: str, request: ApiRequest) -> ApiResponse:
    """By HTTP/1.1, on a connection of its own."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    async with await trio.open_tcp_stream(parts.hostname, parts.port or 80) as stream:
        connection = h11.Connection(h11.CLIENT)
        head = h11.Request(
            method=request.method, target=request.target, headers=list(request.headers.items())
        )
        parts_sent = [head, h11.Data(data=request.body), h11.EndOfMessage()]
        try:
            data = b"".join(connection.send(part) or b"" for part in parts_sent)
            await stream.send_all(data)
            return await _response(connection, stream)
        except (h11.ProtocolError, trio.BrokenResourceError):
            raise ApiUnreachable(f"{url} does not answer as HTTP, or hung up") from None


async def _response(connection: h11.Connection, stream: trio.abc.ReceiveStream) -> ApiResponse:
    status, body = 0, bytearray()
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(bytes(await stream.receive_some(_READ_BYTES)))
        elif isinstance(event, h11.Response):
            status = event.status_code
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage):
            return ApiResponse(status, bytes(body))
        elif isinstance(event, h11.ConnectionClosed):
            raise h11.RemoteProtocolError("closed")
