"""The daemon: which task lives in which nursery, and so the order in which they end.

From the outermost in: the WAL writer; scheduler, metrics and signals; connections; listeners. What
is innermost ends first.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import ExitStack, nullcontext
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import trio

from blipmq.auth import KeyRing
from blipmq.broker.broker import Broker
from blipmq.broker.context import Context
from blipmq.broker.stats import Backlog, Listener, Stats
from blipmq.broker.traced import TracedBroker
from blipmq.config import Config
from blipmq.config.settings import TracingSettings
from blipmq.errors import ConfigError, LogError
from blipmq.nursery.admin import admin_routes
from blipmq.nursery.api import read_routes
from blipmq.nursery.backlog import read_backlogs
from blipmq.nursery.certificate import open_certificate
from blipmq.nursery.console import open_console
from blipmq.nursery.debug import debug_routes
from blipmq.nursery.http_app import HttpApp, together
from blipmq.nursery.http_server import serve_http
from blipmq.nursery.listener import address_text, open_ports, serve_connections
from blipmq.nursery.metrics import Metrics, metrics_routes
from blipmq.nursery.outside import Outside
from blipmq.nursery.reload import run_reloads
from blipmq.nursery.scheduler import run_scheduler
from blipmq.nursery.state import DaemonState
from blipmq.nursery.wal_queue import WalQueue
from blipmq.nursery.wal_writer import WalWriter
from blipmq.wal.facts import RunRecord
from blipmq.wal.log import Log, UnusablePath

if TYPE_CHECKING:
    from blipmq.nursery.tracing import Tracing

_PROGRESS_SECONDS = 1.0
_RECOVERING = "recovering"


@attrs.frozen
class Ready:
    """Where a daemon listens: (host, port) of each socket; those of what is off are empty."""

    addresses: tuple[tuple[str, int], ...]
    metrics: tuple[str, int]
    tls: tuple[tuple[str, int], ...] = ()
    websocket: tuple[tuple[str, int], ...] = ()


async def serve(
    config: Config,
    *,
    outside: Outside | None = None,
    task_status: trio.TaskStatus[Ready] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run a broker until SIGINT or SIGTERM, then shut down gracefully and return.

    Reports through `task_status` when clients can connect. When it is cancelled it ends at once,
    with the log synced. Raises ConfigError when an address, a file or a directory cannot be used
    and LogError when the log cannot; errors of its tasks come in exception groups.
    """
    outside = outside or Outside()
    state = new_state(config, outside)
    try:
        await _serve(config, state, task_status)
    finally:
        if state.tracing is not None:
            with trio.CancelScope(shield=True):
                await outside.run_blocking(state.tracing.close)
    state.log.info("stopped")


async def _serve(config: Config, state: DaemonState, task_status: trio.TaskStatus[Ready]) -> None:
    state.certificate = open_certificate(config.tls)
    metrics = Metrics(
        state.stats,
        partial(_backlogs, state),
        state.readiness,
        config.metrics.max_labelled_subscriptions,
    )
    with ExitStack() as watching:
        if config.enable_trio_console:
            state.console = watching.enter_context(open_console(state.outside.monotonic))
        await _run(state, metrics, task_status)


async def _run(state: DaemonState, metrics: Metrics, task_status: trio.TaskStatus[Ready]) -> None:
    config, app = state.config, http_app(state, metrics)
    async with trio.open_nursery() as outermost:
        try:
            async with trio.open_nursery() as services:
                metrics_address = await services.start(
                    serve_http, app, config.metrics_addr, config.metrics_port
                )
                await services.start(_obey_signals, state)
                await start_log(state, metrics, outermost, services)
                if not state.stopping.is_set():
                    await _serve_clients(state, services, metrics_address, task_status)
                services.cancel_scope.cancel()
        finally:
            if state.queue is not None:
                state.queue.close(state.broker.handoff())


def http_app(state: DaemonState, metrics: Metrics) -> HttpApp:
    """What the operator is served."""
    return HttpApp(
        together(
            metrics_routes(metrics), read_routes(state), admin_routes(state), debug_routes(state)
        )
    )


async def start_log(
    state: DaemonState, metrics: Metrics, outermost: trio.Nursery, services: trio.Nursery
) -> None:
    """Recover what is in the log, if there is to be one, and start its tasks. Raises LogError."""
    log = await _recover(state)
    if log is not None and state.queue is not None:
        outermost.start_soon(WalWriter(state, log, metrics, state.queue).run)
        services.start_soon(read_backlogs, state, log.reader())
        state.reader = log.reader()


def _backlogs(state: DaemonState, limit: int) -> list[Backlog]:
    """Not while a thread fills the broker from the log."""
    if state.unready == _RECOVERING:
        return []
    return state.broker.backlogs(limit, trio.current_time())


def new_state(config: Config, outside: Outside) -> DaemonState:
    """A daemon that does nothing yet."""
    durable = bool(config.wal_path)
    context = Context.create(config.limits, config.retention, config.retries, durable=durable)
    context.epoch_ms = outside.time_ms() - trio.current_time() * 1000
    tracing = _open_tracing(config.tracing, context.stats, outside)
    broker = Broker(context) if tracing is None else TracedBroker(context, tracer=tracing)
    queue = WalQueue(config.wal.queue_batches) if durable else None
    return DaemonState(
        config,
        outside,
        broker,
        KeyRing(config.allowed_api_keys),
        KeyRing(config.admin.allowed_keys),
        queue,
        tracing=tracing,
    )


def _open_tracing(settings: TracingSettings, stats: Stats, outside: Outside) -> Tracing | None:
    """Raises ConfigError when it is to be on, and OpenTelemetry is not there."""
    if not settings.enabled:
        return None
    try:
        from blipmq.nursery.tracing import open_tracing
    except ImportError as error:
        if (error.name or "").partition(".")[0] != "opentelemetry":
            raise
        raise ConfigError(
            "tracing.enabled: expected OpenTelemetry to be installed: pip install 'blipmq[otel]'"
        ) from None
    return open_tracing(settings, stats, outside)


async def _serve_clients(
    state: DaemonState,
    services: trio.Nursery,
    metrics_address: tuple[str, int],
    task_status: trio.TaskStatus[Ready],
) -> None:
    services.start_soon(run_scheduler, state)
    services.start_soon(run_reloads, state)
    async with trio.open_nursery() as connections:
        async with trio.open_nursery() as listening:
            bound: dict[Listener, tuple[tuple[str, int], ...]] = {}
            for port in await open_ports(state):
                listening.start_soon(serve_connections, state, port, connections)
                bound[port.kind] = port.addresses
            ready = Ready(
                bound[Listener.TCP],
                metrics_address,
                bound.get(Listener.TLS, ()),
                bound.get(Listener.WEBSOCKET, ()),
            )
            state.unready = None
            others = {"tls": ready.tls, "websocket": ready.websocket}
            state.log.info(
                "ready",
                address=_text(ready.addresses),
                metrics=address_text(metrics_address),
                version=version("blipmq"),
                **{name: _text(addresses) for name, addresses in others.items() if addresses},
            )
            task_status.started(ready)
            await state.stopping.wait()
            for connection in list(state.connections):
                connection.session.tell_info()
            for opening in list(state.openings):
                opening.cancel()
            listening.cancel_scope.cancel()
        await drain(state)
        for connection in list(state.connections):
            connection.stop()


def _text(addresses: tuple[tuple[str, int], ...]) -> str:
    return ", ".join(map(address_text, addresses))


async def drain(state: DaemonState) -> None:
    """Let clients settle what they hold, for a while."""
    state.log.info("draining", unsettled=state.stats.inflight, connections=len(state.connections))
    with trio.move_on_after(state.config.shutdown.drain_timeout_ms / 1000):
        async with trio.open_nursery() as nursery:
            for event in (state.settled, state.hurry):
                nursery.start_soon(_wait_and_cancel, event, nursery.cancel_scope)


async def _wait_and_cancel(event: trio.Event, scope: trio.CancelScope) -> None:
    await event.wait()
    scope.cancel()


async def _obey_signals(
    state: DaemonState, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """The first signal begins the shutdown, the second skips the wait for settlements.

    SIGHUP has the configuration loaded again, once clients are served.
    """
    with state.outside.signals() as signals:
        task_status.started()
        async for number in signals:
            if number == signal.SIGHUP:
                state.reload.ring()
                continue
            if state.stopping.is_set():
                state.hurry.set()
            state.stop("draining")


async def _recover(state: DaemonState) -> Log | None:
    """Open the log, read what is in it, and begin a segment. Raises LogError.

    Returns None when there is to be no log, or when the daemon was told to stop meanwhile.
    """
    if state.queue is None:
        return None
    state.unready = _RECOVERING
    # Both clocks are read at the same moment: reading the log may take long.
    call = partial(_open_log, state, trio.current_time(), state.outside.time_ms())
    with nullcontext() if state.tracing is None else state.tracing.recovery():
        return await state.outside.run_blocking(call)


class _Stopped(Exception):
    """The daemon was told to stop while it read its log."""


def _open_log(state: DaemonState, now: float, time_ms: int) -> Log | None:
    """In a thread, while no other task uses the broker. `time_ms` is the time of day at `now`."""
    config, outside, broker = state.config, state.outside, state.broker
    disk = outside.disk(Path(config.wal_path))
    try:
        log = Log.open(disk, config.wal.segment_bytes, outside.salt, config.wal.reserve_bytes)
    except UnusablePath as error:
        raise ConfigError(
            f"wal_path: {error}; expected a directory to write to, or one that can be made"
        ) from None
    try:
        facts, next_number = log.recover()
        runs = _with_progress(state, log)
        broker.restore(facts, runs, next_number, now, time_ms)
        checkpoint = broker.checkpoint()
        settled_ms = config.retention.settled_ms
        retained_from_ms = time_ms - settled_ms if settled_ms else None
        number = broker.context.next_number
        try:
            log.roll(checkpoint, number, broker.wanted_from, retained_from_ms)
        except LogError as error:
            raise LogError(f"{config.wal_path}: {error}") from None
        broker.checkpointed(checkpoint)
    except _Stopped:
        log.close()
        return None
    except BaseException:
        log.close()
        raise
    stats = state.stats
    stats.wal_torn_tails = 1 if log.torn_bytes else 0
    stats.wal_segments = log.segments
    if log.torn_bytes:
        state.log.warning("torn tail cut off", bytes=log.torn_bytes, path=config.wal_path)
    if stats.wal_replayed_messages:
        state.log.info("recovered", messages=stats.wal_replayed_messages)
    return log


def _with_progress(state: DaemonState, log: Log) -> Iterator[RunRecord]:
    """The runs of the log; every second it is logged how far they were read.

    Raises _Stopped when the daemon was told to stop.
    """
    monotonic = state.outside.monotonic
    told = monotonic()
    for run in log.runs():
        if state.stopping.is_set():
            raise _Stopped
        yield run
        if monotonic() - told >= _PROGRESS_SECONDS:
            told = monotonic()
            percent = 100 * log.scanned_bytes // max(1, log.total_bytes)
            state.log.info("recovering", percent=percent, mebibytes=log.total_bytes >> 20)
