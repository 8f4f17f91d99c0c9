"""Publishing on asyncio with many messages unconfirmed, for libraries that give a future each."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial

from tools.bench.load.driver import Publishing

Send = Callable[[str, bytes], Awaitable["asyncio.Future[object]"]]
"""Hands a message to the library; the future is done when it is confirmed."""


async def publish_all(publishing: Publishing, send: Send) -> None:
    """Publish as it says, and return when all is confirmed. What a future raises is raised."""
    room = asyncio.Event()
    failures: list[BaseException] = []

    def confirmed(sent_ns: int, future: asyncio.Future[object]) -> None:
        if failure := future.exception():
            failures.append(failure)
        publishing.confirm(1, sent_ns)
        room.set()

    while not publishing.finished and not failures:
        messages = () if publishing.done else publishing.next()
        for topic, body in messages:
            sent_ns = time.monotonic_ns()
            future = await send(topic, body)
            future.add_done_callback(partial(confirmed, sent_ns))
        if messages:
            continue
        if publishing.done or publishing.window_full:
            room.clear()
            await room.wait()
        else:
            await asyncio.sleep(publishing.pause_seconds())
    for failure in failures:
        raise failure


async def send_all(publishing: Publishing, send: Callable[[str, bytes], Awaitable[object]]) -> None:
    """Publish what nobody confirms."""
    while not publishing.done:
        messages = publishing.next()
        for topic, body in messages:
            await send(topic, body)
        if not messages:
            await asyncio.sleep(publishing.pause_seconds())
