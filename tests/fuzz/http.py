"""Whatever is asked over HTTP is answered: what the API knows as it says, all else by an error.

An input is a row of requests to a daemon that has a subscription, kept messages and dead letters:
method, path, query, key and body are each one that means something, or any bytes.
"""

from __future__ import annotations

import json
from typing import Final
from urllib.parse import quote

import trio
from trio.testing import MockClock

from blipmq.config import AdminSettings
from blipmq.protocol import encoder
from blipmq.protocol.attach_properties import AttachProperties, encode_attach_properties
from tests.fuzz.choices import Choices
from tests.nursery.asking import ADMIN_KEY, Answer, ask
from tests.nursery.daemon import Daemon, serving
from tests.peer import KEY

METHODS: Final = ("GET", "POST", "DELETE", "HEAD", "PUT")
PATHS: Final = (
    "/metrics",
    "/healthz",
    "/readyz",
    "/debug/tasks",
    "/api/v1/overview",
    "/api/v1/topics",
    "/api/v1/subscriptions",
    "/api/v1/subscriptions/{}",
    "/api/v1/connections",
    "/api/v1/dead-letters",
    "/api/v1/topics/purge",
    "/api/v1/subscriptions/{}/purge",
    "/api/v1/dead-letters/messages",
    "/api/v1/dead-letters/resend",
    "/api/v1/dead-letters/drop",
)
NAMES: Final = ("topic", "subscription", "numbers", "after", "limit", "order", "contains", "x")
VALUES: Final[tuple[object, ...]] = (
    "t",
    1,
    0,
    2**64 - 1,
    2**64,
    -1,
    True,
    None,
    [1],
    [],
    {},
    "backlog",
    "",
    "\ud800",
    1.5,
    "kept",
)
_REQUESTS_MAX: Final = 30


def check(data: bytes) -> None:
    """Raises for what is not answered as it must be."""
    trio.run(_ask_all, Choices(data), clock=MockClock(autojump_threshold=0))


async def _ask_all(choices: Choices) -> None:
    async with serving(admin=AdminSettings((ADMIN_KEY,))) as daemon:
        await _use(daemon)
        for _ in range(_REQUESTS_MAX):
            if not choices:
                break
            await _ask(daemon, choices)
        assert (await ask(daemon.app, "/healthz")).status == 200
        daemon.signal()
        await daemon.end()


async def _use(daemon: Daemon) -> None:
    """Have something that can be asked for: of `t` one message, and one that was given up."""
    peer = daemon.connect()
    named = encode_attach_properties(AttachProperties(name=b"n", prefetch=1))
    await peer.send(encoder.hello(1, 2), encoder.auth(2, KEY.encode()))
    await peer.send(encoder.attach(3, b"t", 1, named))
    await peer.send(
        *(encoder.publish(4 + i, 1, topic, b"x") for i, topic in enumerate((b"t", b"t", b"kept")))
    )
    await trio.sleep(1)
    await peer.send(encoder.settle(1, [(2, 0, 2**64 - 1, 0)]))
    await trio.sleep(1)


async def _ask(daemon: Daemon, choices: Choices) -> None:
    kind = choices.number()
    method = METHODS[kind % len(METHODS)]
    path = PATHS[choices.number() % len(PATHS)]
    path = path.replace("{}", str(choices.number() % 8))
    if kind & 0x80:
        path = "/" + _text(choices)
    query = "&".join(f"{name}={_quoted(value)}" for name, value in _fields(choices).items())
    if kind & 0x40:
        query = _text(choices)
    body = json.dumps(_fields(choices)).encode()
    if kind & 0x20:
        body = choices.take(choices.number())
    key = (ADMIN_KEY, None, "wrong")[choices.number() % 3]
    answer = await ask(daemon.app, f"{path}?{query}" if query else path, method, body=body, key=key)
    _hold(path, method, answer)


def _quoted(value: object) -> str:
    return quote(str(value), errors="surrogatepass")


def _text(choices: Choices) -> str:
    return choices.take(choices.number()).decode("latin-1")


def _fields(choices: Choices) -> dict[str, object]:
    names = [NAMES[choices.number() % len(NAMES)] for _ in range(choices.number() % 4)]
    return {name: VALUES[choices.number() % len(VALUES)] for name in names}


def _hold(path: str, method: str, answer: Answer) -> None:
    assert answer.status in {200, 400, 401, 403, 404, 405, 409, 413, 503}, (path, answer)
    length = int(answer.headers[b"content-length"])
    assert length == len(answer.body) or (method == "HEAD" and not answer.body)
    if answer.body and answer.headers[b"content-type"] == b"application/json":
        assert isinstance(answer.json, dict)
