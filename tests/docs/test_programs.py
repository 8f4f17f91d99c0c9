"""The programs of the README, as they stand, against a daemon."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import attrs
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from blipmq.config import load_config
from tests.docs.markdown import ROOT, Document
from tests.nursery.daemon import Daemon, new_disk, serving
from tests.nursery.timed_disk import TimedDisk

README: Final = Document.read("README.md")
RUN: Final = "\n\ntrio.run(main)\n"
PATIENCE_SECONDS: Final = 60


@attrs.define
class Terminals:
    """Where programs run that connect to 127.0.0.1:5555, and what they print."""

    daemon: Daemon | None = None
    _print: trio.MemorySendChannel[str] = attrs.field(init=False)
    _printed: trio.MemoryReceiveChannel[str] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._print, self._printed = trio.open_memory_channel[str](math.inf)

    async def open_tcp_stream(self, host: str, port: int) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        assert (host, port) == ("127.0.0.1", 5555)
        if self.daemon is None:
            raise ConnectionRefusedError("connection refused")
        return self.daemon.connect().stream

    @asynccontextmanager
    async def broker(self, disk: TimedDisk) -> AsyncIterator[None]:
        """A broker with the keys of the example configuration, which is then shut down."""
        keys = load_config(ROOT / "blipmq.example.toml", {}).allowed_api_keys
        async with serving(disk=disk, allowed_api_keys=keys) as daemon:
            self.daemon = daemon
            yield
            self.daemon = None
            daemon.signal()
            await daemon.end()

    @asynccontextmanager
    async def running(self, program: str) -> AsyncIterator[None]:
        """The program, until it ends or the block does."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.run, program)
            yield
            nursery.cancel_scope.cancel()

    async def run(self, program: str) -> None:
        source, run, rest = program.partition(RUN)
        assert run
        assert not rest
        names: dict[str, Any] = {"print": self.print}
        exec(compile(source, "README.md", "exec"), names)  # noqa: S102
        await names["main"]()

    def print(self, *values: object) -> None:
        self._print.send_nowait(" ".join(map(str, values)))

    async def until_printed(self, lines: list[str]) -> None:
        """Wait for these lines; they are all that was printed since the last time.

        What a subscriber prints it has accepted then.
        """
        with trio.fail_after(PATIENCE_SECONDS):
            for line in lines:
                assert await self._printed.receive() == line
        await trio.sleep(0.1)  # longer than settlements wait for each other
        await wait_all_tasks_blocked()
        assert self._printed.statistics().current_buffer_used == 0
        if self.daemon is not None:
            assert self.daemon.stats.inflight == 0


@pytest.fixture
def terminals(monkeypatch: pytest.MonkeyPatch) -> Terminals:
    terminals = Terminals()
    monkeypatch.setattr(trio, "open_tcp_stream", terminals.open_tcp_stream)
    return terminals


def programs() -> list[str]:
    return [block.text for block in README.blocks("python")]


def shown() -> list[str]:
    """What the README says that the subscriber prints."""
    (block,) = [block for block in README.blocks("text") if block.text.startswith("demo ")]
    return block.text.splitlines()


async def test_the_subscriber_prints_what_the_publisher_sends(
    terminals: Terminals, autojump_clock: trio.abc.Clock
) -> None:
    subscriber, publisher, _ = programs()
    async with terminals.broker(new_disk()), terminals.running(subscriber):
        await terminals.run(publisher)
        await terminals.until_printed(shown())


async def test_the_subscriber_gets_what_was_published_before_it_started(
    terminals: Terminals, autojump_clock: trio.abc.Clock
) -> None:
    subscriber, publisher, _ = programs()
    async with terminals.broker(new_disk()):
        await terminals.run(publisher)
        async with terminals.running(subscriber):
            await terminals.until_printed(shown())


async def test_the_subscriber_gets_what_it_missed_although_the_broker_restarted(
    terminals: Terminals, autojump_clock: trio.abc.Clock
) -> None:
    subscriber, publisher, _ = programs()
    disk = new_disk()
    async with terminals.broker(disk):
        async with terminals.running(subscriber):
            await terminals.run(publisher)
            await terminals.until_printed(shown())
        await terminals.run(publisher)
    async with terminals.broker(disk), terminals.running(subscriber):
        await terminals.until_printed(shown())


async def test_the_consumer_of_orders_goes_on_when_the_broker_is_back(
    terminals: Terminals, autojump_clock: trio.abc.Clock
) -> None:
    _, publisher, consumer = programs()
    orders = publisher.replace('"demo", b"hello %d"', '"orders", b"%d"')
    expected = ["order 0", "order 1", "order 2"]
    disk = new_disk()
    async with terminals.broker(disk):
        await terminals.run(orders)
    async with trio.open_nursery() as nursery:
        async with terminals.broker(disk):
            nursery.start_soon(terminals.run, consumer)
            await terminals.until_printed(expected)
        await trio.sleep(3600)
        async with terminals.broker(disk):
            await terminals.run(orders)
            await terminals.until_printed(expected)
            nursery.cancel_scope.cancel()
