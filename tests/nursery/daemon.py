"""A whole daemon on the mock clock: the real tasks, with all that is outside of them replaced."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Iterator, MutableMapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeVar
from unittest import mock

import attrs
import structlog
import trio
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from blipmq.broker.stats import Stats
from blipmq.config import Config
from blipmq.nursery import root
from blipmq.nursery.http_app import HttpApp
from blipmq.nursery.metrics import Metrics
from blipmq.nursery.outside import BlockingRunner, Outside
from blipmq.nursery.state import DaemonState
from tests.nursery.network import PORT, MemoryPeer, Network
from tests.nursery.timed_disk import TimedDisk
from tests.peer import KEY, PATIENCE_SECONDS

T = TypeVar("T")

SIGHUP = 1
SIGTERM = 15
_real_http_app = root.http_app


@attrs.define(eq=False)
class InlineRunner(BlockingRunner):
    """Carries out blocking calls on Trio's thread. As with a thread, one that began is finished.

    A call begins when `let` is set, and takes `seconds`; so a test can have a slow disk.
    """

    seconds: float = 0.0
    let: trio.Event = attrs.Factory(trio.Event)
    calls: int = 0
    """Calls that were made and are not carried out yet."""

    def __attrs_post_init__(self) -> None:
        self.let.set()

    def hold(self) -> None:
        """Let no call begin until `release`."""
        self.let = trio.Event()

    def release(self) -> None:
        self.let.set()

    async def __call__(self, call: Callable[[], T]) -> T:
        await trio.lowlevel.checkpoint_if_cancelled()
        with trio.CancelScope(shield=True):
            self.calls += 1
            await self.let.wait()
            if self.seconds:
                await trio.sleep(self.seconds)
            self.calls -= 1
        return call()


def settings(**changes: Any) -> Config:
    """The defaults of a daemon with one API key."""
    return attrs.evolve(Config(allowed_api_keys=(KEY,), wal_path="memory"), **changes)


@attrs.define(eq=False)
class Daemon:
    """A daemon that was started, and what it believes to be the world."""

    config: Config
    disk: TimedDisk
    runner: InlineRunner = attrs.Factory(InlineRunner)
    monotonic: Callable[[], float] = trio.current_time
    load: Callable[[], Config] = settings
    """What the configuration is when it is read again."""
    network: Network = attrs.Factory(Network)
    scope: trio.CancelScope = attrs.Factory(trio.CancelScope)
    ended: trio.Event = attrs.Factory(trio.Event)
    error: BaseException | None = None
    """What `serve` raised; a test that expects it takes it with `failure`."""
    lines: list[MutableMapping[str, Any]] = attrs.Factory(list)
    """What was logged."""
    spans: InMemorySpanExporter = attrs.Factory(InMemorySpanExporter)
    """What was traced, when tracing is enabled."""
    _metrics: Metrics | None = None
    _app: HttpApp | None = None
    _state: DaemonState | None = None
    _signals: trio.MemorySendChannel[int] = attrs.field(init=False)
    _receive_signals: trio.MemoryReceiveChannel[int] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._signals, self._receive_signals = trio.open_memory_channel[int](math.inf)

    @property
    def stats(self) -> Stats:
        return self.metrics.stats

    @property
    def metrics(self) -> Metrics:
        assert self._metrics is not None
        return self._metrics

    @property
    def state(self) -> DaemonState:
        assert self._state is not None
        return self._state

    @property
    def app(self) -> HttpApp:
        assert self._app is not None
        return self._app

    def events(self) -> list[str]:
        """The events that were logged."""
        return [str(line["event"]) for line in self.lines]

    def connect(
        self, *, cut: int | None = None, bounded: bool = False, port: int = PORT
    ) -> MemoryPeer:
        """As `Network.connect`."""
        return self.network.connect(cut=cut, bounded=bounded, port=port)

    async def client(self, *, cut: int | None = None, bounded: bool = False) -> MemoryPeer:
        """A peer that has authenticated."""
        peer = self.connect(cut=cut, bounded=bounded)
        await peer.greet()
        return peer

    def signal(self) -> None:
        """SIGTERM."""
        self._signals.send_nowait(SIGTERM)

    def hang_up(self, load: Callable[[], Config]) -> None:
        """SIGHUP, when `load` gives or raises what is configured now."""
        self.load = load
        self._signals.send_nowait(SIGHUP)

    async def reload(self, load: Callable[[], Config]) -> MutableMapping[str, Any]:
        """As `hang_up`, and wait until it is done; the line that is logged."""
        before = len(self.lines)
        self.hang_up(load)
        with trio.fail_after(PATIENCE_SECONDS):
            while True:
                for line in self.lines[before:]:
                    if line["event"] in ("reloaded", "reload refused"):
                        return line
                await trio.sleep(0.01)

    async def end(self) -> None:
        """Wait until `serve` has returned or raised."""
        with trio.fail_after(PATIENCE_SECONDS):
            await self.ended.wait()

    async def failure(self) -> list[BaseException]:
        """Wait until `serve` has raised; what it raised, taken out of its exception groups."""
        await self.end()
        error, self.error = self.error, None
        return [] if error is None else list(_leaves(error))

    # What `serve` is given

    @contextmanager
    def _open_signals(self) -> Iterator[AsyncIterator[int]]:
        yield self._receive_signals

    @contextmanager
    def replaced(self) -> Iterator[None]:
        """While it lasts, daemons that start serve no HTTP: the test asks `app` itself."""
        with (
            mock.patch.object(root, "http_app", self._http_app),
            mock.patch.object(root, "serve_http", self._serve_http),
        ):
            yield

    def _http_app(self, state: DaemonState, metrics: Metrics) -> HttpApp:
        self._metrics = metrics
        self._state = state
        self._app = _real_http_app(state, metrics)
        return self._app

    async def _serve_http(
        self,
        app: HttpApp,
        addr: str,
        port: int,
        *,
        task_status: trio.TaskStatus[tuple[str, int]] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        task_status.started((addr, port))
        await trio.sleep_forever()

    async def serve(
        self, *, task_status: trio.TaskStatus[root.Ready] = trio.TASK_STATUS_IGNORED
    ) -> None:
        outside = Outside(
            disk=lambda path: self.disk,
            run_blocking=self.runner,
            time_ms=lambda: int(trio.current_time() * 1000),
            time_ns=lambda: int(trio.current_time() * 1e9),
            monotonic=self.monotonic,
            salt=lambda: 1,
            signals=self._open_signals,
            load=lambda: self.load(),
            listen=self.network.listen,
            span_processor=lambda: SimpleSpanProcessor(self.spans),
        )
        try:
            with self.scope:
                await root.serve(self.config, outside=outside, task_status=task_status)
        except BaseException as error:  # noqa: BLE001, raised or looked at by the test
            self.error = error
        finally:
            self.ended.set()


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


def new_disk() -> TimedDisk:
    """A disk that notes the time of the mock clock."""
    return TimedDisk()


@asynccontextmanager
async def serving(
    *,
    disk: TimedDisk | None = None,
    runner: InlineRunner | None = None,
    monotonic: Callable[[], float] = trio.current_time,
    **changes: Any,
) -> AsyncIterator[Daemon]:
    """Start a daemon with these settings, and cancel it at the end unless it has ended itself.

    Raises what the daemon raised, unless the test took it.
    """
    daemon = Daemon(
        settings(**changes), disk or new_disk(), runner or InlineRunner(), monotonic=monotonic
    )
    with (
        daemon.replaced(),
        structlog.testing.capture_logs() as daemon.lines,
    ):
        async with trio.open_nursery() as nursery:
            await nursery.start(daemon.serve)
            yield daemon
            daemon.scope.cancel()
    if daemon.error is not None:
        raise daemon.error
