"""What the daemon's tasks share."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Final

import attrs
import structlog
import trio
from structlog.typing import FilteringBoundLogger

from blipmq.auth import KeyRing
from blipmq.broker.broker import Batch, Broker
from blipmq.broker.stats import Stats
from blipmq.config import Config
from blipmq.logs import RateLimited
from blipmq.nursery.bell import Bell
from blipmq.nursery.outside import Outside
from blipmq.nursery.wal_queue import WalQueue
from blipmq.wal.reading import LogReader

if TYPE_CHECKING:
    from blipmq.nursery.certificate import Certificate
    from blipmq.nursery.connection import Connection
    from blipmq.nursery.console import TaskConsole
    from blipmq.nursery.tracing import Tracing
    from blipmq.nursery.writer import Writer

_AT_ONCE_CONNECTIONS: Final = 16
_AT_ONCE_BYTES: Final = 512 * 1024
"""What the end of one step sends, about, before others have their turn."""


def _logger() -> FilteringBoundLogger:
    logger: FilteringBoundLogger = structlog.get_logger("blipmq")
    return logger


def _not_at_once(batch: Batch) -> bool:
    return False


@attrs.define(eq=False)
class DaemonState:
    """One daemon. `queue` is None when there is no log."""

    config: Config
    outside: Outside
    broker: Broker
    keys: KeyRing
    admin_keys: KeyRing
    queue: WalQueue | None
    reader: LogReader | None = None
    """Reads messages for an operator, once the log is recovered; None without one."""
    log: FilteringBoundLogger = attrs.Factory(_logger)
    tracing: Tracing | None = None
    """Makes spans; None when that is off."""
    certificate: Certificate | None = None
    """What proves to clients of TLS who this is."""
    console: TaskConsole | None = None
    """Watches the daemon's tasks, when that is configured."""
    connections: set[Connection] = attrs.Factory(set)
    openings: set[trio.CancelScope] = attrs.Factory(set)
    """Clients that have TLS or a WebSocket to agree on before they are connections."""
    connection_ids: Iterator[int] = attrs.Factory(partial(count, 1))
    commit_at_once: Callable[[Batch], bool] = _not_at_once
    """Puts a batch into the log in the step that it comes of; False: it has to go by the queue."""
    in_step: bool = False
    unsent: dict[Writer, None] = attrs.Factory(dict)
    """Connections that may have got something to send in the step that is being made."""
    changed: Bell = attrs.Factory(Bell)
    """Rung when the scheduler may have to wake earlier than it meant to."""
    reload: Bell = attrs.Factory(Bell)
    """Rung when the configuration is to be read again."""
    stopping: trio.Event = attrs.Factory(trio.Event)
    hurry: trio.Event = attrs.Factory(trio.Event)
    settled: trio.Event = attrs.Factory(trio.Event)
    unready: str | None = "starting"
    wakes_at: float = 0.0
    flush_at: float | None = None
    _warnings: RateLimited = attrs.field()

    @_warnings.default
    def _rate_limited(self) -> RateLimited:
        return RateLimited(self.log)

    def authenticate(self, key: bytes) -> str | None:
        """The key id of an API key that is allowed now, else None."""
        return self.keys.authenticate(key)

    @property
    def stats(self) -> Stats:
        return self.broker.stats

    def readiness(self) -> str | None:
        """None when messages are taken, else why not."""
        return self.unready

    @contextmanager
    def opening(self, deadline: float) -> Iterator[trio.CancelScope]:
        """Around what comes before a connection; cancelled at the deadline and by a shutdown."""
        scope = trio.CancelScope(deadline=deadline)
        self.openings.add(scope)
        try:
            with scope:
                if self.stopping.is_set():
                    scope.cancel()
                yield scope
        finally:
            self.openings.discard(scope)

    def warn(self, key: Hashable, event: str, **values: object) -> None:
        """Log what a stranger can provoke, at a bounded rate for each key."""
        if not self._warnings.warning(key, event, now=trio.current_time(), **values):
            self.stats.log_lines_suppressed += 1

    def stop(self, reason: str) -> None:
        """Begin the shutdown: no new publishes, no new connections."""
        self.broker.draining = True
        self.unready = reason
        self.stopping.set()
        self.look()

    async def reserve(self) -> None:
        """Wait for a place in the log's queue, for a step that publishes; `hand_on` uses it."""
        if self.queue is not None:
            await self.queue.reserve()

    def try_reserve(self) -> bool:
        """Take a place if one is free. A step without one may do all but publish at QoS 1."""
        return self.queue is None or self.queue.try_reserve()

    def hand_on(self, reserved: bool, *, everything: bool = False) -> None:
        """End of a step: what publishers wait for goes to the log now, the rest before long.

        The rest goes along with it, or at once if `everything` is to go. Without a place that was
        reserved all of it waits.
        """
        assert reserved or not self.broker.has_publications
        if self.queue is not None and reserved:
            flush = everything or self.broker.has_publications
            batch = self.broker.handoff() if flush else None
            if batch is None or self.commit_at_once(batch):
                self.queue.release()
            else:
                self.queue.put(batch)
        self.look()

    def begin_step(self) -> None:
        """From here to the next `look`, without an await, connections get something to send."""
        self.in_step = True

    def look(self) -> None:
        """Something changed, and the step that did it is at its end: what came of it is sent.

        Wakes the scheduler if it has work earlier than it thinks.
        """
        if self.in_step:
            self.in_step = False
            self._send()
        broker = self.broker
        if self.flush_at is None and broker.has_facts:
            self.flush_at = trio.current_time() + self.config.wal.settle_flush_ms / 1000
        if broker.draining and not self.stats.inflight:
            self.settled.set()
        deadline = self.deadline
        if deadline is not None and deadline < self.wakes_at:
            self.changed.ring()

    def _send(self) -> None:
        """Send at once, within bounds; what is beyond them is left to tasks."""
        unsent, self.unsent = self.unsent, {}
        connections = size = 0
        for writer in unsent:
            if connections < _AT_ONCE_CONNECTIONS and size < _AT_ONCE_BYTES:
                connections += 1
                size += writer.send_at_once()
            else:
                writer.ring()

    @property
    def deadline(self) -> float | None:
        """When the scheduler has something to do, if ever."""
        due, flush = self.broker.next_deadline, self.flush_at
        if due is None or flush is None:
            return flush if due is None else due
        return min(due, flush)
