"""The broker's own code, on memory streams: topics, subscriptions, sessions, its scheduler.

Left out is what needs a machine: sockets, signals, metrics, and, unless it is asked for, the log on
disk. Without it, what is published is committed at once, and gone with the broker.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Final, TypeVar

import attrs
import trio
import trio.testing

from blipmq.broker.stats import Stats
from blipmq.client.client import Client, open_client
from blipmq.client.tracing import CurrentContext
from blipmq.client.unwrapped import unwrapped
from blipmq.client.url import Address
from blipmq.config import Config
from blipmq.config.settings import TracingSettings
from blipmq.nursery import root
from blipmq.nursery.connection import Connection
from blipmq.nursery.metrics import Metrics
from blipmq.nursery.outside import BlockingRunner, Outside
from blipmq.nursery.scheduler import run_scheduler
from blipmq.nursery.state import DaemonState
from blipmq.testing.faults import FaultyStream

T = TypeVar("T")

KEY: Final = "test-key"
URL: Final = "blipmq://in-process"


@attrs.define(eq=False)
class InProcessBroker:
    """A broker, from `open_broker`. `api_key` is the one that it knows."""

    api_key: str
    _config: Config
    _nursery: trio.Nursery
    _state: DaemonState
    wrap: Callable[[trio.abc.Stream], trio.abc.Stream] = attrs.field(
        default=lambda stream: stream, init=False
    )
    """Put around the client's end of each new connection; see `FaultyStream`."""
    reachable: bool = attrs.field(default=True, init=False)
    """While it is not, connecting raises ConnectionRefusedError."""
    _closed: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot, init=False)
    _drawn: int = attrs.field(default=0, init=False)
    _streams: set[FaultyStream] = attrs.field(factory=set, init=False)
    """The broker's ends of the connections."""
    _ended: trio.Event = attrs.field(factory=trio.Event, init=False)
    _tasks: trio.Nursery | None = attrs.field(default=None, init=False)

    @property
    def stats(self) -> Stats:
        """What the broker counts."""
        return self._state.stats

    @property
    def connections(self) -> int:
        """Connections that are open."""
        return len(self._state.connections)

    async def connect(self, address: Address | None = None) -> trio.abc.Stream:
        """A stream to the broker, on which nothing was said yet; `open_client(connect=...)`."""
        await trio.lowlevel.checkpoint()
        if not self.reachable:
            raise ConnectionRefusedError("connection refused")
        ours, theirs = trio.testing.memory_stream_pair()
        assert self._tasks is not None
        self._tasks.start_soon(self._serve, FaultyStream(theirs))
        return self.wrap(ours)

    def client(
        self,
        *,
        close_timeout_ms: int = 2_000,
        reconnect: bool = True,
        reconnect_timeout: float = 60.0,
        full_window_timeout: float = 5.0,
        entropy: Callable[[int], bytes] | None = None,
        ssl_context: ssl.SSLContext | None = None,
        trace_context: CurrentContext | None = None,
    ) -> AbstractAsyncContextManager[Client]:
        """A client of it, for an `async with` block; the options are those of `open_client`.

        Unless `entropy` is given nothing is left to chance: clients of one broker differ, and
        wait their full time between attempts to connect.
        """
        return open_client(
            URL,
            api_key=self.api_key,
            close_timeout_ms=close_timeout_ms,
            reconnect=reconnect,
            reconnect_timeout=reconnect_timeout,
            full_window_timeout=full_window_timeout,
            entropy=entropy or self._count,
            ssl_context=ssl_context,
            connect=self.connect,
            trace_context=trace_context,
        )

    def _count(self, size: int) -> bytes:
        self._drawn += 1
        return b"\xff" + self._drawn.to_bytes(size - 1, "big")

    async def hang_up(self) -> None:
        """Breaks all connections, as a network does. Clients may connect again."""
        for stream in list(self._streams):
            await stream.reset()

    async def drain(self) -> None:
        """Shuts down gracefully, as SIGTERM does, and returns when all connections are closed.

        Clients cannot connect from then on, until `restart`.
        """
        self.reachable = False
        state = self._state
        state.stop("draining")
        for connection in list(state.connections):
            connection.session.tell_info()
        await root.drain(state)
        for connection in list(state.connections):
            connection.stop()
        with trio.move_on_after(self._config.shutdown.linger_timeout_ms / 1000):
            while state.connections:
                await self._closed.park()

    async def restart(self) -> None:
        """Breaks all connections, and begins anew, with what is in its log, if it has one."""
        await self.hang_up()
        assert self._tasks is not None
        self._tasks.cancel_scope.cancel()
        await self._ended.wait()
        self._state = new_state(self._config)
        await self._nursery.start(self.run)
        self.reachable = True

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """What the broker does by itself, until it is cancelled."""
        state, self._ended = self._state, trio.Event()
        try:
            async with trio.open_nursery() as outermost:
                try:
                    async with trio.open_nursery() as self._tasks:
                        metrics = Metrics(state.stats, lambda _: [], state.readiness, 0)
                        await root.start_log(state, metrics, outermost, self._tasks)
                        state.unready = None
                        self._tasks.start_soon(run_scheduler, state)
                        task_status.started()
                finally:
                    if state.queue is not None:
                        state.queue.close(state.broker.handoff())
        finally:
            self._ended.set()

    async def _serve(self, stream: FaultyStream) -> None:
        self._streams.add(stream)
        try:
            await Connection(self._state, stream, "in-process").run()
        finally:
            self._streams.discard(stream)
            self._closed.unpark_all()


class _Inline(BlockingRunner):
    """Carries out what blocks on Trio's own thread: a log of a test is small."""

    async def __call__(self, call: Callable[[], T]) -> T:
        await trio.lowlevel.checkpoint_if_cancelled()
        result = call()
        await trio.lowlevel.cancel_shielded_checkpoint()
        return result


def new_state(config: Config) -> DaemonState:
    outside = Outside(
        run_blocking=_Inline(),
        time_ms=lambda: round(trio.current_time() * 1000),
        monotonic=trio.current_time,
    )
    return root.new_state(config, outside)


@asynccontextmanager
async def open_broker(
    *, api_key: str = KEY, config: Config | None = None, wal_path: Path | None = None
) -> AsyncIterator[InProcessBroker]:
    """A broker for an `async with` block, at whose end its connections break.

    It has a log only if `wal_path` says where. Of `config`, that, tracing and all addresses
    are left out, and `api_key` is the one key.
    """
    log = "" if wal_path is None else str(wal_path)
    config = attrs.evolve(
        config or Config(), allowed_api_keys=(api_key,), wal_path=log, tracing=TracingSettings()
    )
    with unwrapped():
        async with trio.open_nursery() as nursery:
            broker = InProcessBroker(api_key, config, nursery, new_state(config))
            await nursery.start(broker.run)
            try:
                yield broker
            finally:
                broker.reachable = False
                nursery.cancel_scope.cancel()
