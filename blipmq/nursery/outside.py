"""What is not the daemon's own: disk, threads, time of day, random numbers, signals, sockets.

Tests put other things in these places; everything else is the real code.
"""

from __future__ import annotations

import os
import secrets
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import attrs
import trio

from blipmq.config import Config, load_config
from blipmq.wal.disk import Disk

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor
    from outcome import Outcome

T = TypeVar("T")


class BlockingRunner:
    """Runs a blocking call, which may take its time, without holding up the tasks.

    In a thread of Trio's cache, but with none of what `trio.to_thread.run_sync` adds for calls that
    come back into Trio or are many: that doubles the time until a short call has returned.
    """

    @trio.lowlevel.enable_ki_protection
    async def __call__(self, call: Callable[[], T]) -> T:
        """The result of `call()`, which runs to its end even when this is cancelled."""
        await trio.lowlevel.checkpoint_if_cancelled()
        task, token = trio.lowlevel.current_task(), trio.lowlevel.current_trio_token()

        def deliver(result: Outcome[T]) -> None:
            """In the thread."""
            token.run_sync_soon(trio.lowlevel.reschedule, task, result)

        trio.lowlevel.start_thread_soon(call, deliver)
        result: T = await trio.lowlevel.wait_task_rescheduled(_wait_on)
        return result


def _wait_on(_: object) -> trio.lowlevel.Abort:
    return trio.lowlevel.Abort.FAILED


def _signals() -> AbstractContextManager[AsyncIterator[int]]:
    return trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


async def _listen(host: str, port: int) -> list[trio.SocketListener]:
    return await trio.open_tcp_listeners(port, host=host)


@attrs.frozen
class Outside:
    """The real things, unless others are given.

    `time_ms` is the time of day in milliseconds since the epoch, `time_ns` in nanoseconds,
    `monotonic` seconds of a clock for measuring how long something took, `salt` a random number of
    32 bits. `load` reads the configuration again, in a thread. `span_processor` takes the spans;
    None: what the settings say.
    """

    disk: Callable[[Path], Disk] = Disk
    run_blocking: BlockingRunner = BlockingRunner()
    time_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000
    time_ns: Callable[[], int] = time.time_ns
    monotonic: Callable[[], float] = time.perf_counter
    salt: Callable[[], int] = lambda: secrets.randbits(32)
    signals: Callable[[], AbstractContextManager[AsyncIterator[int]]] = _signals
    load: Callable[[], Config] = partial(load_config, None, os.environ)
    listen: Callable[[str, int], Awaitable[list[trio.SocketListener]]] = _listen
    span_processor: Callable[[], SpanProcessor] | None = None
