"""The simulation finds bugs: each of these is planted, and found within so many seeds."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio

from blipmq.broker.broker import Batch, Broker
from blipmq.broker.dedup import DedupWindow
from blipmq.broker.message import Delivery
from blipmq.broker.shared_cursor import SharedCursor
from blipmq.nursery.wal_writer import WalWriter
from blipmq.wal.facts import Checkpoint, Settled
from blipmq.wal.log import Log
from blipmq.wal.recovery import Recovery
from tests.simulation.generate import plan
from tests.simulation.run import simulate
from tests.simulation.shrink import kind, shrink

Plant = Callable[[pytest.MonkeyPatch], None]


def confirm_before_commit(patch: pytest.MonkeyPatch) -> None:
    """Publishers are told before the log is written."""
    write = WalWriter._write

    async def early(self: WalWriter, batch: Batch) -> None:
        self.state.broker.committed(batch, trio.current_time())
        await write(self, batch)
        batch.publications.clear()

    patch.setattr(WalWriter, "_write", early)


def settlements_lost_at_a_checkpoint(patch: pytest.MonkeyPatch) -> None:
    """What is settled while a checkpoint is written is taken to be in it."""
    checkpointed = Broker.checkpointed

    def forgetful(self: Broker, checkpoint: Checkpoint) -> None:
        checkpointed(self, checkpoint)
        journal = self.context.journal
        if journal is not None:
            journal[:] = [fact for fact in journal if not isinstance(fact, Settled)]

    patch.setattr(Broker, "checkpointed", forgetful)


def torn_tail_off_by_one(patch: pytest.MonkeyPatch) -> None:
    """The last byte of the last good record is cut off with the torn one."""
    cut = Recovery._cut

    def too_much(self: Recovery, sequence: int, end: int) -> None:
        cut(self, sequence, end - 1 if self.torn_bytes else end)

    patch.setattr(Recovery, "_cut", too_much)


def forgotten_retry(patch: pytest.MonkeyPatch) -> None:
    """What nobody settles does not come back."""

    def forget(self: SharedCursor, delivery: Delivery, now: float) -> None:
        pass

    patch.setattr(SharedCursor, "_fall_due", forget)


def dedup_window_lost_at_a_restart(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(DedupWindow, "restore", lambda *_: None)


def fsync_left_out(patch: pytest.MonkeyPatch) -> None:
    """A commit does not wait for the disk."""
    patch.setattr(Log, "sync", lambda self: None)


PLANTED: dict[Plant, tuple[int, str]] = {
    confirm_before_commit: (5, "before it was committed"),
    fsync_left_out: (15, "before it was committed"),
    settlements_lost_at_a_checkpoint: (150, "and came back"),
    torn_tail_off_by_one: (150, "CorruptLog"),
    forgotten_retry: (20, "is lost"),
    dedup_window_lost_at_a_restart: (150, "was published twice"),
}
"""Within how many seeds each is found, and what is said of it."""


@pytest.mark.parametrize("plant", PLANTED, ids=[plant.__name__ for plant in PLANTED])
def test_a_planted_bug_is_found(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    seeds, text = PLANTED[plant]
    plant(monkeypatch)
    for seed in range(1, seeds + 1):
        found = simulate(plan(seed)).violations
        if any(text in violation for violation in found):
            return
    pytest.fail(f"{plant.__name__} was not found by {seeds} seeds")


def test_what_is_found_is_shortened(monkeypatch: pytest.MonkeyPatch) -> None:
    forgotten_retry(monkeypatch)
    asked, found = next(
        (asked, found)
        for asked, found in ((plan(seed), simulate(plan(seed))) for seed in range(1, 21))
        if found.violations
    )

    shorter, result = shrink(asked, found)

    assert kind(found.violations[0]) in map(kind, result.violations)
    assert (shorter.faults, shorter.messages) == ((), 1)
    assert simulate(shorter).digest == result.digest
