"""The machine that the daemon runs on: its lives, one after the other, and how each one ends."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from random import Random
from typing import Literal, TypeVar
from unittest import mock

import attrs
import trio

from blipmq.broker.limits import Limits, Retention
from blipmq.broker.restore import Restoration
from blipmq.broker.stats import DropReason, Stats
from blipmq.config import Config
from blipmq.config.settings import ShutdownSettings, WalSettings
from blipmq.errors import CorruptLog, LogError
from blipmq.nursery import root
from blipmq.nursery.http_app import HttpApp
from blipmq.nursery.metrics import Metrics
from blipmq.nursery.outside import BlockingRunner, Outside
from blipmq.nursery.state import DaemonState
from blipmq.wal.policy import FsyncPolicy
from blipmq.wal.scan import LogScan
from blipmq.wal.survey import survey
from tests.simulation.disk import SimulatedDisk, Weather
from tests.simulation.inode import Inode
from tests.simulation.network import Network
from tests.simulation.plan import Setup
from tests.simulation.repeatable import chance
from tests.simulation.trace import Trace
from tools.history.history import History

T = TypeVar("T")

KEY = "simulated"
PORT = 5555
LINGER_MS = 300
_real_http_app = root.http_app
_SIGTERM = 15
_EPOCH_MS = 1_700_000_000_000
_AFTER_TROUBLE = 1.0
"""So long after a disk is well again settlements may still wait."""


def config_of(setup: Setup) -> Config:
    return Config(
        port=PORT,
        wal_path="/log",
        allowed_api_keys=(KEY,),
        fsync_policy=FsyncPolicy.parse(setup.fsync),
        max_retries=setup.max_retries,
        retry_backoff_ms=setup.retry_backoff_ms,
        limits=Limits(
            heartbeat_ms=setup.heartbeat_ms,
            max_memory_bytes=setup.max_memory_bytes,
            max_backlog_bytes=setup.max_backlog_bytes,
            window_bytes=setup.window_bytes,
        ),
        retention=Retention(dedup_window_ms=setup.dedup_window_ms, dead_letters=setup.dead_letters),
        wal=WalSettings(segment_bytes=setup.segment_bytes, reserve_bytes=setup.reserve_bytes),
        shutdown=ShutdownSettings(drain_timeout_ms=300, linger_timeout_ms=LINGER_MS),
    )


@attrs.define(eq=False)
class Runner(BlockingRunner):
    """Carries out blocking calls on Trio's thread; before and after, time passes."""

    host: Host
    life: int

    async def __call__(self, call: Callable[[], T]) -> T:
        await trio.lowlevel.checkpoint_if_cancelled()
        with trio.CancelScope(shield=True):
            await self._pass_time()
            result = call()
            await self._pass_time()
        return result

    async def _pass_time(self) -> None:
        host = self.host
        most = max(host.setup.disk_delay, host.slowness)
        if most and host.life == self.life:
            await trio.sleep(host.rng.random() * most)
        else:
            await trio.lowlevel.cancel_shielded_checkpoint()


@attrs.define(eq=False)
class Host:
    """Starts the daemon again whenever it has ended, until it is to be `over`.

    `up` is set while the daemon takes connections.
    """

    setup: Setup
    seed: int
    trace: Trace
    network: Network
    history: History
    weather: Weather = attrs.Factory(Weather)
    life: int = 0
    slowness: float = 0.0
    up: trio.Event = attrs.Factory(trio.Event)
    over: bool = False
    calm: bool = False
    """Nothing goes wrong any more."""
    ended: trio.Event = attrs.Factory(trio.Event)
    clock_offset_ms: int = 0
    down_seconds: float = 0.0
    flip: bool = False
    on_life: Callable[[], None] = lambda: None
    on_drain: Callable[[], None] = lambda: None
    disk: SimulatedDisk = attrs.field(init=False)
    rng: Random = attrs.field(init=False)
    ends: list[str] = attrs.Factory(list)
    """How the lives ended."""
    _config: Config = attrs.field(init=False)
    _metrics: Metrics | None = None
    _scope: trio.CancelScope = attrs.Factory(trio.CancelScope)
    _dead: bool = False
    _how: str = ""
    _flipped: bool = False
    """In this life."""
    _damaged: Inode | None = None
    _trouble: tuple[float, float] = (math.inf, -math.inf)
    """When something was wrong with the disk last: since, until."""
    _signals: trio.MemorySendChannel[int] = attrs.field(init=False)
    _receive_signals: trio.MemoryReceiveChannel[int] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.rng = chance("host", self.seed)
        self.disk = SimulatedDisk(self.weather, chance("disk", self.seed))
        self._config = config_of(self.setup)
        self.weather.on_error = lambda: self.trouble(math.inf)

    @property
    def stats(self) -> Stats:
        assert self._metrics is not None
        return self._metrics.stats

    @property
    def held(self) -> int:
        """Messages that some subscription has not settled."""
        self._look_for_drops()
        assert self._metrics is not None
        return sum(row.messages for row in self._metrics.backlogs(1000))

    def stored(self, body: bytes) -> bool:
        """Whether a message is where it has to be when it is confirmed."""
        disk = self.disk
        return body in (disk.synced if self.setup.durable else disk.ever_written)

    # What is done to it

    def crash(self, how: Literal["kill", "power cut"]) -> None:
        """The process ends now, in the middle of whatever it does."""
        if self._dead or not self._running:
            return
        self.trace.note("crash", how)
        self._dead, self._how, self.up = True, how, trio.Event()
        self._undo_flip()
        disk, power = self.disk, how == "power cut"
        disk.dead = True
        self.disk = disk.after_power_cut() if power else disk.after_kill()
        until = self._committed_until()
        survives: Callable[[bytes], bool] | None = None
        if power and not self.setup.durable:
            until, survives = min(until, disk.synced_at), disk.synced.__contains__
        self.history.crashed(until, survives)
        self.network.killed(power=power)
        self._scope.cancel()

    @property
    def _running(self) -> bool:
        return self.life > 0 and not self.ended.is_set() and self._how == ""

    def _committed_until(self) -> float:
        """Until when all that had to be written was: a disk in trouble keeps it waiting."""
        now = trio.current_time()
        return now if self._well else min(now, self._trouble[0])

    @property
    def _well(self) -> bool:
        """Whether nothing is wrong with the disk, and was not of late."""
        return trio.current_time() > self._trouble[1] + _AFTER_TROUBLE

    def trouble(self, until: float) -> None:
        """Something is wrong with the disk until then."""
        since = trio.current_time() if self._well else self._trouble[0]
        self._trouble = since, max(self._trouble[1], until)

    def signal(self) -> None:
        """SIGTERM."""
        if self._running:
            self.trace.note("SIGTERM")
            self.on_drain()
            self._signals.send_nowait(_SIGTERM)

    def cancel(self) -> None:
        """Whoever runs the daemon's tasks cancels them."""
        if self._running:
            self.trace.note("cancel")
            self.on_drain()
            self._scope.cancel()

    # Its lives

    async def run(self) -> None:
        with (
            mock.patch.object(root, "http_app", self._http_app),
            mock.patch.object(root, "serve_http", self._serve_http),
        ):
            while not self.over:
                await self._live()
                if not self.over:
                    await trio.sleep(self.down_seconds)
                    self.down_seconds = 0.0
                self.network.back()
        self.ended.set()

    async def _live(self) -> None:
        self.life += 1
        self._dead, self._how, self._scope = False, "", trio.CancelScope()
        self._signals, self._receive_signals = trio.open_memory_channel[int](math.inf)
        self._flip_a_bit()
        self.trace.note("life", self.life, *self.disk.names())
        disk = self.disk
        outside = Outside(
            disk=lambda path: disk,
            run_blocking=Runner(self, self.life),
            time_ms=self._time_ms,
            monotonic=trio.current_time,
            salt=lambda: int(self.rng.getrandbits(32)),
            signals=self._open_signals,
            listen=self.network.listen,
        )
        error: BaseException | None = None
        try:
            with self._scope:
                await root.serve(self._config, outside=outside, task_status=_Status(self))
        except BaseException as raised:  # noqa: BLE001, raised again unless it is expected
            error = raised
        self.up = trio.Event()
        if not self._dead:
            self._has_ended(error)
            disk.locked = False
        self._undo_flip()
        self._look_for_drops()
        self.ends.append(self._how)
        self.trace.note("ended", self._how)

    def _has_ended(self, error: BaseException | None) -> None:
        """By itself, or by an exception."""
        leaves = [] if error is None else list(_leaves(error))
        self.network.killed(power=False)
        if error is None and not self._scope.cancelled_caught:
            self._how = "stopped"
            if self._well:
                self.history.stopped()
            else:
                self.history.crashed(self._committed_until())
            return
        self.history.crashed(self._committed_until())
        self._how = "cancelled"
        if error is None:
            return
        self._how = "; ".join(sorted({f"{type(leaf).__name__}: {leaf}" for leaf in leaves}))
        expected = all(isinstance(leaf, LogError) for leaf in leaves)
        if any(isinstance(leaf, CorruptLog) for leaf in leaves):
            expected = self._flipped
        elif expected:
            expected = not self._well
        if not expected:
            raise error
        self.weather.heal()
        self._trouble = self._trouble[0], trio.current_time()
        self.down_seconds = max(self.down_seconds, 0.2)

    def _flip_a_bit(self) -> None:
        """Damage a file of the log, if that is asked for."""
        self._flipped = False
        names = [name for name in self.disk.names() if name.endswith(".wal")]
        if not self.flip or not names:
            return
        self.flip = False
        inode = self.disk.inodes[self.rng.choice(names)]
        if not inode.content:
            return
        at = self.rng.randrange(len(inode.content))
        inode.damage(at)
        self._damaged, self._flipped = inode, True
        self.trace.note("flip", at)

    def _undo_flip(self) -> None:
        """The operator has a good copy."""
        if self._damaged is not None:
            self._damaged.mend()
            self._damaged = None

    def _look_for_drops(self) -> None:
        """Dead letters may be dropped when there are too many, if that is counted."""
        if self._metrics is not None:
            dropped = self._metrics.stats.dropped
            if dropped[DropReason.BACKLOG] or dropped[DropReason.DEAD_LETTER]:
                self.history.dead_letters = False

    def ready(self) -> None:
        self.up.set()
        self.trace.note("ready")
        self.verify()
        self.on_life()

    def verify(self) -> None:
        """As `blipmq wal verify`: what recovery, or a shutdown, leaves is whole."""
        found = survey(LogScan.of(self.disk), Restoration())
        if found.damages:
            self.history.violation(f"the log is damaged: {found.damages}")
        if found.torn_bytes:
            self.history.violation(f"the log has a torn tail of {found.torn_bytes} bytes")

    # What the daemon is given

    def _time_ms(self) -> int:
        return _EPOCH_MS + self.clock_offset_ms + int(trio.current_time() * 1000)

    @contextmanager
    def _open_signals(self) -> Iterator[AsyncIterator[int]]:
        yield self._receive_signals

    def _http_app(self, state: DaemonState, metrics: Metrics) -> HttpApp:
        self._metrics = metrics
        return _real_http_app(state, metrics)

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


@attrs.frozen
class _Status:
    host: Host

    def started(self, value: root.Ready | None = None) -> None:
        self.host.ready()


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error
