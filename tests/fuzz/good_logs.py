"""Logs that are whole, written by the log itself as a row of choices says.

Every message has a body of its own, so that one can be told from another wherever it turns up.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Final

import attrs

from blipmq.broker.restore import Restoration
from blipmq.protocol import encoder
from blipmq.wal.facts import (
    DELAYED_ID,
    DELAYED_TOPIC,
    Attempted,
    Checkpoint,
    Closed,
    Fact,
    Moved,
    Opened,
    RunRecord,
    Settled,
    SubscriptionState,
    UnsettledRange,
)
from blipmq.wal.log import Log
from blipmq.wal.survey import states
from tests.fuzz.choices import Choices
from tests.wal.logs import TIME_MS
from tests.wal.memory_disk import MemoryDisk

_TOPICS: Final = (b"demo", b"news", b"x.y", b"x.z")
_STEPS_MAX: Final = 40
_SEGMENT_BYTES: Final = 1 << 20
_RESERVE: Final = 1 << 10
"""So many numbers a checkpoint reserves."""
_DELAYED: Final = SubscriptionState(DELAYED_ID, "", DELAYED_TOPIC, 0)


def good_log(choices: Choices, mark: bytes = b"") -> MemoryDisk:
    """What a daemon left that was killed after it had done what the choices say.

    Another `mark` makes it another log: its messages begin with it, and its salts are others.
    """
    writer = _Writer.begin(choices.number(), mark)
    for _ in range(choices.number() % _STEPS_MAX):
        writer.step(choices)
    return writer.disk.after_kill()


@attrs.define(eq=False)
class _Writer:
    """Writes facts that fit each other, and knows what they come to."""

    disk: MemoryDisk
    log: Log
    salt: Callable[[], int]
    state: Restoration = attrs.Factory(Restoration)
    mark: bytes = b""
    number: int = 1
    """The next to be given out."""
    time_ms: int = TIME_MS

    @classmethod
    def begin(cls, seed: int, mark: bytes) -> _Writer:
        first = zlib.crc32(mark, seed)
        numbers = iter(range(first, 1 << 40, 0x0101_0101))
        disk = MemoryDisk()

        def salt() -> int:
            return next(numbers) & 0xFFFF_FFFF

        writer = cls(disk, Log.open(disk, _SEGMENT_BYTES, salt), salt, mark=mark)
        writer.log.recover()
        writer.state.apply(0, Checkpoint(0, (), (_DELAYED,)))
        writer.roll()
        return writer

    def step(self, choices: Choices) -> None:
        kind, topic = choices.number(), _TOPICS[choices.number() % len(_TOPICS)]
        match kind % 16:
            case 0 | 1 | 2 | 3 | 4:
                self.append(self.run(topic, 1 + choices.number() % 4, choices.number()))
            case 5 | 6:
                self.open(topic, choices.number())
            case 7 | 8:
                facts = [
                    self.settled(choices.number(), choices.number()) for _ in range(1 + kind % 3)
                ]
                self.append(*facts)
            case 9:
                settled = self.settled(choices.number(), choices.number())
                range_ = settled.subscription, settled.first, settled.last
                self.append(Attempted(*range_, 1 + choices.number() % 5))
            case 10:
                settled = self.settled(choices.number(), choices.number())
                dead = self.run(b"$dead." + topic, 1, choices.number())
                self.append(Moved(settled.subscription, settled.first, settled.last, dead))
            case 11:
                self.append(self.run(DELAYED_TOPIC, 1, choices.number(), topic))
            case 12:
                id_ = self.subscription(choices.number())
                if id_ != DELAYED_ID:
                    self.append(Closed(id_, self.number))
            case 13:
                self.log.sync()
            case 14:
                self.roll(retain=choices.number() % 4 == 0)
            case _:
                self.restart()

    def run(self, topic: bytes, count: int, size: int, named: bytes = b"") -> RunRecord:
        first, self.number = self.number, self.number + count
        frames = [
            encoder.publish(number, 1, named or topic, self.body(number, size))
            for number in range(first, first + count)
        ]
        return RunRecord(topic, first, count, b"".join(frames))

    def open(self, topic: bytes, kind: int) -> None:
        id_, self.number = self.number, self.number + 1
        name = b"n%d" % id_ if kind & 1 else b""
        unsettled = (UnsettledRange(1, id_ - 1),) if kind & 2 and id_ > 1 else ()
        state = SubscriptionState(id_, "key", topic, id_, unsettled, bool(name), False, name)
        self.append(Opened(state))

    def settled(self, which: int, where: int) -> Settled:
        """Some subscription is done with a few numbers."""
        first = max(1, self.number - 1 - (where & 15))
        return Settled(self.subscription(which), first, min(self.number - 1, first + (where >> 5)))

    def subscription(self, which: int) -> int:
        ids = sorted(self.state.subscriptions)
        return ids[which % len(ids)]

    def append(self, *facts: Fact) -> None:
        self.time_ms += 1
        self.log.append(facts, self.number, self.time_ms)
        for fact in facts:
            self.state.apply(self.number, fact)

    def roll(self, *, retain: bool = False) -> None:
        topics = {*_TOPICS, *(b"$dead." + topic for topic in _TOPICS)}
        kept = tuple((topic, self.state.kept_from(topic)) for topic in sorted(topics))
        checkpoint = Checkpoint(
            max(self.state.reserved, self.number + _RESERVE), (), tuple(states(self.state)), kept
        )
        self.log.roll(checkpoint, self.number, self.wanted_from, 0 if retain else None)
        self.state.apply(self.number, checkpoint)

    def wanted_from(self, topic: bytes) -> int | None:
        """The lowest number that anybody wants, or that is kept."""
        holders = [s for s in self.state.subscriptions.values() if s.topic == topic]
        if not holders:
            return self.state.kept_from(topic)
        return min(min([s.cursor, *(first for first, _, _ in s.unsettled)]) for s in holders)

    def restart(self) -> None:
        """The daemon is killed and starts again; numbers that were reserved are left out."""
        self.disk = self.disk.after_kill()
        self.log = Log.open(self.disk, _SEGMENT_BYTES, self.salt)
        self.log.recover()
        for _ in self.log.runs():
            pass
        self.number = max(self.number, self.state.reserved)
        self.roll()

    def body(self, number: int, size: int) -> bytes:
        """Some are of zeros for a sector and more, as an unwritten one would be."""
        filling = b"\0" if size & 1 else b"%d," % number
        return self.mark + b"<%d>" % number + filling * (size << 2 if size & 2 else size >> 4)
