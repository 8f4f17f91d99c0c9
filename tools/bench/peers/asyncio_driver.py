"""Clients of asyncio libraries, which hand messages to callbacks and swallow what those raise."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod

from tools.bench.load.driver import Consuming, Publishing, RoundTrips
from tools.bench.load.server import Address


class AsyncioDriver(ABC):
    """A driver whose programs are coroutines; each has an event loop of its own."""

    def publish(self, address: Address, publishing: Publishing) -> None:
        asyncio.run(self._publish(address, publishing))

    def consume(self, address: Address, consuming: Consuming) -> None:
        asyncio.run(self._consume(address, consuming))

    def round_trips(self, address: Address, trips: RoundTrips) -> None:
        asyncio.run(self._round_trips(address, trips))

    @abstractmethod
    async def _publish(self, address: Address, publishing: Publishing) -> None: ...

    @abstractmethod
    async def _consume(self, address: Address, consuming: Consuming) -> None: ...

    @abstractmethod
    async def _round_trips(self, address: Address, trips: RoundTrips) -> None: ...


class Callbacks:
    """What callbacks come to: the last message, or a failure, of which there may be more later."""

    def __init__(self) -> None:
        self._ended = asyncio.Event()
        self._failures: list[Exception] = []

    def end(self) -> None:
        """Everything was taken."""
        self._ended.set()

    def fail(self, error: Exception) -> None:
        self._failures.append(error)
        self._ended.set()

    async def ended(self) -> None:
        await self._ended.wait()

    def check(self) -> None:
        """Raise the first failure so far, if there is one."""
        for failure in self._failures:
            raise failure
