"""The task that writes the log: everything that waits goes out with one write.

While it has nothing to do, a small batch need not wait for its turn: it is written, and committed,
at the end of the step that it comes of.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Final

import attrs
import trio

from blipmq.broker.broker import Batch
from blipmq.errors import LogError
from blipmq.nursery.inline_writes import InlineWrites
from blipmq.nursery.metrics import Metrics
from blipmq.nursery.state import DaemonState
from blipmq.nursery.wal_queue import WalQueue
from blipmq.wal.facts import Fact, run_in
from blipmq.wal.log import Log
from blipmq.wal.policy import FsyncPolicy
from blipmq.wal.room import NoRoom

COMMITS_BEFORE_PREPARING: Final = 256
"""A daemon that hardly writes does not write zeros, either."""
_PREPARING_PAUSE_SECONDS: Final = 0.01
_FACT_BYTES: Final = 64
"""What a fact takes besides messages, about."""
_QUIET_SECONDS: Final = 1.0
"""So long after the last write the log is looked through for what nobody wants any more."""


@attrs.define(eq=False)
class WalWriter:
    """Commits batches until the channel is closed and empty, then syncs and closes the log.

    A log that fails stops the daemon: all further batches fail, and the error is raised at the
    end, when everybody has been told.
    """

    state: DaemonState
    log: Log
    metrics: Metrics
    queue: WalQueue
    _failure: LogError | None = None
    _commits: int = 0
    _looked_through: bool = True
    """Whether nothing was written since the log was looked through."""
    _unsynced_messages: int = 0
    _prepare: trio.Event = attrs.Factory(trio.Event)
    _dirty: trio.Event = attrs.Factory(trio.Event)
    _enough: trio.Event = attrs.Factory(trio.Event)
    _syncing: trio.Lock = attrs.Factory(trio.Lock)
    _inline: InlineWrites = attrs.Factory(InlineWrites)
    _waits: bool = False
    """Whether the task waits for a batch."""
    _not_inline: bool = False
    """Whether the next write has to make up for one that failed."""

    @property
    def policy(self) -> FsyncPolicy:
        return self.state.config.fsync_policy

    async def run(self) -> None:
        try:
            async with trio.open_nursery() as nursery:
                self.state.commit_at_once = self._commit_at_once
                if self.policy.kind in ("every_n", "interval_ms"):
                    nursery.start_soon(self._sync_now_and_then)
                if self.policy.kind == "always":
                    nursery.start_soon(self._prepare_segments)
                async with self.queue.receive:
                    while await self._commit_next():
                        pass
                error = await self._log_the_rest()
                if error is not None:
                    text = f"the last settlements are not in the log: {error}"
                    self._fail(LogError(text))
                nursery.cancel_scope.cancel()
        finally:
            with trio.CancelScope(shield=True):
                await self._close()
        if self._failure is not None:
            raise self._failure

    async def _commit_next(self) -> bool:
        """Commit what comes next; False when nothing more comes.

        When nothing has come for a while after settlements, segments that they left behind go.
        """
        batch: Batch | None = None
        commits = self._commits
        with trio.move_on_after(math.inf if self._looked_through else _QUIET_SECONDS):
            self._waits = True
            try:
                batch = await self.queue.receive.receive()
            except trio.EndOfChannel:
                return False
            finally:
                self._waits = False
        if batch is None and (self._commits != commits or self.queue.unfinished):
            return True
        self._looked_through = batch is None
        if batch is not None:
            await self._commit([batch, *self._waiting()])
        elif self._failure is None and self.log.settled_bytes(*self._wanted()):
            await self._roll()
        return True

    def _waiting(self) -> list[Batch]:
        batches: list[Batch] = []
        try:
            while True:
                batches.append(self.queue.receive.receive_nowait())
        except (trio.WouldBlock, trio.EndOfChannel):
            return batches

    async def _commit(self, batches: list[Batch]) -> None:
        state, broker = self.state, self.state.broker
        batch = _together(batches)
        try:
            await self._write(batch)
        except LogError as error:
            # What was handed on meanwhile fails, too: its facts may not be logged before these.
            batches += self._waiting()
            broker.failed(_together(batches), str(error), trio.current_time())
            self._tell(error)
            await self._log_the_rest()
        else:
            state.begin_step()
            broker.committed(batch, trio.current_time())
        self.queue.finish(len(batches))
        state.look()

    def _commit_at_once(self, batch: Batch) -> bool:
        """Commit a batch now, if that takes no time to speak of and nothing is before it."""
        if not (self._waits and not self.queue.unfinished and batch.publications):
            return False
        if self._looked_through or self._failure is not None:
            return False
        if self.log.full or self.state.broker.needs_checkpoint:
            return False
        if not self._append_at_once(batch, self._time_ms()):
            return False
        self._appended(batch)
        self.state.broker.committed(batch, trio.current_time())
        return True

    async def _log_the_rest(self) -> LogError | None:
        """What found no room, but for the publishes that were refused: settlements and such first.

        They may have the reserve. What finds no room again is tried with the next batch; then the
        error is returned.
        """
        broker = self.state.broker
        batch = broker.handoff()
        if batch is None or self._failure is not None:
            return None
        failure = None
        for part in _settlements_first(batch):
            try:
                await self._write(part)
            except LogError as error:
                failure = error
                broker.failed(part, str(error), trio.current_time())
                self._tell(error)
            else:
                broker.committed(part, trio.current_time())
        told = Batch([], [], batch.next_number, batch.told)
        if failure is None:
            broker.committed(told, trio.current_time())
        else:
            broker.failed(told, str(failure), trio.current_time())
        return failure

    async def _write(self, batch: Batch) -> None:
        """Write a batch; with the policy `always`, also sync. Raises LogError.

        On a full disk segments that nobody wants any more make room, if there are any.
        """
        if self._failure is not None:
            raise self._failure
        if self.log.full or self.state.broker.needs_checkpoint:
            await self._roll()
        if not batch.facts:
            return
        time_ms = self._time_ms()
        if not self._append_at_once(batch, time_ms):
            self._not_inline = False
            call = partial(self._append, batch.facts, batch.next_number, time_ms)
            try:
                await self.state.outside.run_blocking(call)
            except NoRoom:
                if not self.log.worth_rolling(*self._wanted()) or not await self._roll():
                    raise
                await self.state.outside.run_blocking(call)
        self._appended(batch)

    def _appended(self, batch: Batch) -> None:
        stats = self.state.stats
        stats.wal_appends = self.log.appended_records
        stats.wal_bytes = self.log.appended_bytes
        self._commits += 1
        if self._commits >= COMMITS_BEFORE_PREPARING and self.log.wants_next:
            self._prepare.set()
        self._unsynced_messages += sum(publication.run.count for publication in batch.publications)
        self._dirty.set()
        if self.policy.kind == "every_n" and self._unsynced_messages >= self.policy.value:
            self._enough.set()

    def _time_ms(self) -> int:
        """The time of day as it was at the start, and what has passed since: it never jumps."""
        return self.state.broker.context.time_ms(trio.current_time())

    def _append_at_once(self, batch: Batch, time_ms: int) -> bool:
        """Whether the batch was written on this thread, because that takes no time to speak of.

        A sync that is under way may hold up a write, and one that follows needs a thread anyway.
        """
        if self.policy.kind == "always" or self._syncing.locked() or self._not_inline:
            self._not_inline = False
            return False
        size = sum(publication.run.size for publication in batch.publications)
        if not self._inline.allow(size + _FACT_BYTES * len(batch.facts)):
            return False
        monotonic = self.state.outside.monotonic
        start = monotonic()
        done = self.log.append_at_once(batch.facts, batch.next_number, time_ms)
        self._inline.took(monotonic() - start)
        self._not_inline = not done
        return done

    def _append(self, facts: list[Fact], next_number: int, time_ms: int) -> None:
        """In a thread."""
        monotonic = self.state.outside.monotonic
        start = monotonic()
        self.log.append(facts, next_number, time_ms)
        self._inline.took_in_thread(monotonic() - start)
        if self.policy.kind == "always":
            self._sync()

    def _sync(self) -> None:
        """In a thread."""
        start = self.state.outside.monotonic()
        self.log.sync()
        self.metrics.observe_fsync(self.state.outside.monotonic() - start)

    async def _roll(self) -> bool:
        """Begin a new segment, and say whether there was room; without the old one grows on."""
        broker = self.state.broker
        checkpoint, next_number = broker.checkpoint(), broker.context.next_number
        call = partial(self.log.roll, checkpoint, next_number, *self._wanted())
        try:
            async with self._syncing:
                await self.state.outside.run_blocking(call)
        except NoRoom as error:
            self.state.warn("no room", "no room for a new segment", error=str(error))
            return False
        broker.checkpointed(checkpoint)
        self.state.stats.wal_segments = self.log.segments
        return True

    def _wanted(self) -> tuple[Callable[[bytes], int | None], int | None]:
        """What the log is to keep: from which number of a topic on, and from which time on."""
        broker, settled_ms = self.state.broker, self.state.config.retention.settled_ms
        wanted = {name: broker.wanted_from(name) for name in self.log.topics}
        retained_from_ms = self._time_ms() - settled_ms if settled_ms else None
        return wanted.get, retained_from_ms

    async def _prepare_segments(self) -> None:
        """Have a file for the next segment into which an fsync is quicker: confirms wait for it."""
        while True:
            await self._prepare.wait()
            self._prepare = trio.Event()
            more = True
            while more:
                more = await self.state.outside.run_blocking(self.log.prepare)
                await trio.sleep(_PREPARING_PAUSE_SECONDS)

    async def _sync_now_and_then(self) -> None:
        """The fsyncs of the policies that confirm before them."""
        interval = math.inf
        if self.policy.kind == "interval_ms":
            interval = self.policy.value / 1000
        else:
            interval = self.state.config.wal.fsync_max_delay_ms / 1000
        while True:
            await self._dirty.wait()
            with trio.move_on_after(interval):
                await self._enough.wait()
            self._dirty, self._enough, self._unsynced_messages = trio.Event(), trio.Event(), 0
            try:
                async with self._syncing:
                    await self.state.outside.run_blocking(self._sync)
            except LogError as error:
                self._fail(error)
                return

    def _tell(self, error: LogError) -> None:
        if isinstance(error, NoRoom):
            self.state.warn("no room", "the log cannot grow", error=str(error))
        else:
            self._fail(error)

    def _fail(self, error: LogError) -> None:
        """The log cannot be trusted any more: nothing more is confirmed, the daemon ends."""
        if self._failure is None:
            self._failure = error
            self.state.log.error("log failed", error=str(error))
            self.state.hurry.set()
            self.state.stop("log failed")

    async def _close(self) -> None:
        try:
            await self.state.outside.run_blocking(self.log.close)
        except LogError as error:
            if self._failure is None:
                self._failure = error


def _settlements_first(batch: Batch) -> list[Batch]:
    """The batch as two: all facts without messages, then the others. The order does not matter."""
    others = [fact for fact in batch.facts if run_in(fact) is None]
    runs = [fact for fact in batch.facts if run_in(fact) is not None]
    parts = [
        Batch(others, [], batch.next_number),
        Batch(runs, batch.publications, batch.next_number),
    ]
    return [part for part in parts if part.facts]


def _together(batches: list[Batch]) -> Batch:
    """One batch of all, in their order."""
    if len(batches) == 1:
        return batches[0]
    return Batch(
        [fact for batch in batches for fact in batch.facts],
        [publication for batch in batches for publication in batch.publications],
        batches[-1].next_number,
        [told for batch in batches for told in batch.told],
    )
