"""Asking the HTTP application of a daemon, without HTTP."""

from __future__ import annotations

import json
from typing import Any

import attrs
from hypercorn.typing import ASGIReceiveEvent, ASGISendEvent, ConnectionState, HTTPScope

from blipmq.nursery.http_app import HttpApp

ADMIN_KEY = "an admin key of some length"


@attrs.define
class Answer:
    """What came back."""

    status: int = 0
    headers: dict[bytes, bytes] = attrs.field(factory=dict)
    body: bytes = b""

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> tuple[int, str]:
        """Status and message of an error."""
        assert self.headers[b"content-type"] == b"application/json"
        error = self.json["error"]
        assert error["status"] == self.status
        return self.status, error["message"]

    async def send(self, event: ASGISendEvent) -> None:
        if event["type"] == "http.response.start":
            self.status = event["status"]
            self.headers = dict(event["headers"])
        elif event["type"] == "http.response.body":
            self.body += event["body"]
        else:
            raise AssertionError(event)


async def ask(
    app: HttpApp,
    path: str,
    method: str = "GET",
    *,
    body: object = None,
    key: str | None = None,
    authorization: bytes | None = None,
) -> Answer:
    """One request; `body` is JSON, or bytes as they are."""
    path, _, query = path.partition("?")
    data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    if key is not None:
        authorization = f"Bearer {key}".encode()
    scope: HTTPScope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [] if authorization is None else [(b"authorization", authorization)],
        "client": None,
        "server": None,
        "state": ConnectionState({}),
        "extensions": {},
    }
    events: list[ASGIReceiveEvent] = [
        {"type": "http.request", "body": data[:1000], "more_body": True},
        {"type": "http.request", "body": data[1000:], "more_body": False},
    ]

    async def receive() -> ASGIReceiveEvent:
        return events.pop(0)

    answer = Answer()
    await app(scope, receive, answer.send)
    return answer
