"""The whole command `blipmq` against a whole daemon, in one process, in memory, on the mock clock.

The command runs in a thread, as it is; what it awaits is carried out in the test's own loop, where
the daemon is.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from itertools import count
from typing import Any, TypeVar

import attrs
import pytest
import trio
from trio.testing import MockClock

from blipmq.cli import blipmq
from blipmq.cli.api import ApiRequest, ApiResponse, Fetch
from blipmq.cli.outside import Blocking, Outside
from blipmq.client.client import Client, connect_stream
from blipmq.client.url import Address
from blipmq.config import AdminSettings
from tests.nursery.asking import ADMIN_KEY, ask
from tests.nursery.daemon import Daemon, serving
from tests.peer import KEY

T = TypeVar("T")
_drawn = count(1)


class Inline(Blocking):
    """Carries out blocking calls in the loop: its clock must not jump while a thread works."""

    async def __call__(self, call: Callable[[], T]) -> T:
        await trio.lowlevel.checkpoint()
        return call()


@attrs.define(eq=False)
class Shell:
    """Runs commands; `out` and `err` are what the last one wrote."""

    daemon: Daemon
    capsys: pytest.CaptureFixture[str]
    monkeypatch: pytest.MonkeyPatch
    reachable: bool = True
    out: str = ""
    err: str = ""
    fetch: Fetch | None = None
    """In place of the daemon's API."""
    asked: list[ApiRequest] = attrs.Factory(list)

    def __attrs_post_init__(self) -> None:
        self.set(
            BLIPMQ_CLIENT_URL="blipmq://broker",
            BLIPMQ_CLIENT_API="http://broker:9100",
            BLIPMQ_CLIENT_API_KEY=KEY,
            BLIPMQ_CLIENT_ADMIN_KEY=ADMIN_KEY,
        )

    def set(self, **environment: str) -> None:
        for name, value in environment.items():
            self.monkeypatch.setenv(name, value)

    async def __call__(self, *arguments: str | object, stdin: bytes = b"") -> int:
        """Its exit status."""
        outside = Outside(
            run=self._run,
            connect=self._connect,
            fetch=self.fetch or self.fetch_in_memory,
            blocking=Inline(),
            stdin=lambda: io.BytesIO(stdin),
        )
        call = partial(blipmq.run, [*map(str, arguments)], outside)
        self._clock.autojump_threshold = math.inf
        try:
            status = await trio.to_thread.run_sync(call)
        finally:
            self._clock.autojump_threshold = 0
        self.out, self.err = self.capsys.readouterr()
        return status

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The output as JSON Lines."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def _clock(self) -> MockClock:
        clock = trio.lowlevel.current_clock()
        assert isinstance(clock, MockClock)
        return clock

    def _run(self, function: Callable[[], Awaitable[T]]) -> T:
        return trio.from_thread.run(self._with_time, function)

    async def _with_time(self, function: Callable[[], Awaitable[T]]) -> T:
        """Time goes by while the command waits, and not while its thread is at work."""
        self._clock.autojump_threshold = 0
        try:
            return await function()
        finally:
            self._clock.autojump_threshold = math.inf

    async def _connect(self, address: Address) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        if not self.reachable:
            raise ConnectionRefusedError(111, "Connection refused")
        return self.daemon.connect().stream

    async def fetch_in_memory(self, url: str, request: ApiRequest) -> ApiResponse:
        if not self.reachable:
            raise ConnectionRefusedError(111, "Connection refused")
        self.asked.append(request)
        authorization = request.headers.get("Authorization")
        answer = await ask(
            self.daemon.app,
            request.target,
            request.method,
            body=request.body,
            authorization=None if authorization is None else authorization.encode(),
        )
        return ApiResponse(answer.status, answer.body)

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        """A client of the daemon, beside the command."""
        stream = self.daemon.connect().stream
        async with connect_stream(
            stream, api_key=KEY, entropy=lambda size: next(_drawn).to_bytes(size, "big")
        ) as connected:
            yield connected

    async def reject(self, topic: str, *bodies: bytes, name: str = "worker") -> None:
        """Have these messages in the dead letters of the topic."""
        async with self.client() as connected:
            async with connected.subscribe(topic, name=name) as subscription:
                for body in bodies:
                    await connected.publish(topic, body)
                for _ in bodies:
                    await (await subscription.receive()).reject()
            await connected.ping()
        await trio.sleep(1)  # until the settlements are in the log


@asynccontextmanager
async def opened(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, **settings: Any
) -> AsyncIterator[Shell]:
    """A shell whose commands find a daemon with these settings."""
    settings.setdefault("admin", AdminSettings((ADMIN_KEY,)))
    async with serving(**settings) as daemon:
        yield Shell(daemon, capsys, monkeypatch)
