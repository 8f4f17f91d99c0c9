"""What a command needs of the world: a loop, streams to the daemon, its input and output.

Tests put other things in these places; everything else is the real code.
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from io import FileIO, RawIOBase
from typing import BinaryIO, Final, TypeVar

import attrs
import trio
from rich.console import Console

from blipmq.cli.api import Api, Fetch, http_fetch
from blipmq.cli.target import Target
from blipmq.client.client import Client, open_client
from blipmq.client.dial import Connect, open_tcp
from blipmq.client.unwrapped import unwrapped
from blipmq.errors import ConfigError

T = TypeVar("T")
PATIENCE_SECONDS: Final = 1.0
"""What takes longer shows that it goes on."""


def run_trio(function: Callable[[], Awaitable[T]]) -> T:
    """In a loop of its own."""
    with unwrapped():
        return trio.run(function)


def _stdin() -> RawIOBase:
    """Unbuffered: a thread that is left to itself holds no lock that the exit would wait for."""
    return FileIO(sys.stdin.fileno(), closefd=False)


class Blocking:
    """Runs a blocking call without holding up the loop."""

    async def __call__(self, call: Callable[[], T]) -> T:
        """The result of `call()`; cancelled, it is left to itself."""
        return await trio.to_thread.run_sync(call, abandon_on_cancel=True)


@attrs.frozen
class Outside:
    """The real things, unless others are given."""

    run: Callable[[Callable[[], Awaitable[object]]], object] = run_trio
    connect: Connect = open_tcp
    fetch: Fetch = http_fetch
    blocking: Blocking = Blocking()
    stdin: Callable[[], RawIOBase | BinaryIO] = _stdin
    errors: Callable[[], Console] = lambda: Console(stderr=True)
    """A console on standard error."""

    @asynccontextmanager
    async def client(self, target: Target) -> AsyncIterator[Client]:
        """A client of the broker. Raises as `open_client`, and ConfigError for what is no URL."""
        try:
            opening = open_client(target.url, api_key=target.api_key, connect=self.connect)
        except ValueError as error:
            raise ConfigError(str(error)) from None
        connecting = trio.CancelScope()
        with unwrapped():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._show, f"connecting to {target.url}", connecting)
                try:
                    async with opening as client:
                        connecting.cancel()
                        yield client
                finally:
                    connecting.cancel()

    def api(self, target: Target) -> Api:
        return Api(target.api_url, target.admin_key, self.fetch)

    @asynccontextmanager
    async def waiting(self, text: str) -> AsyncIterator[None]:
        """Show on the terminal that something goes on, when it takes longer than a second."""
        scope = trio.CancelScope()
        with unwrapped():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._show, text, scope)
                try:
                    yield
                finally:
                    scope.cancel()

    async def _show(self, text: str, scope: trio.CancelScope) -> None:
        with scope:
            await trio.sleep(PATIENCE_SECONDS)
            console = self.errors()
            if console.is_terminal:
                with console.status(text):
                    await trio.sleep_forever()

    async def write(self, data: bytes) -> None:
        """To standard output, without holding up the loop; when this returns it is written.

        Raises BrokenPipeError when nobody reads it any more.
        """
        await self.blocking(partial(_write, data))


def _write(data: bytes) -> None:
    # Unbuffered, for the same reason as the input; in a test there may be nothing below a buffer.
    stream = getattr(sys.stdout.buffer, "raw", sys.stdout.buffer)
    rest = memoryview(data)
    while rest:
        rest = rest[stream.write(rest) or 0 :]


def discard_output() -> None:
    """Nobody reads standard output any more: what is buffered is not to fail at the exit."""
    try:
        number = sys.stdout.fileno()
    except (OSError, ValueError):
        return
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, number)
    os.close(null)
