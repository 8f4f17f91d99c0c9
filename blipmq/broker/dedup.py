"""The dedup window: which message ids were published to which topic of late."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING

import attrs

from blipmq.broker.context import Context
from blipmq.protocol.run import Run
from blipmq.wal.facts import Seen

if TYPE_CHECKING:
    from blipmq.broker.publication import Publisher

_ENTRY_BYTES = 250
"""What an entry costs in memory besides the message id, roughly."""


@attrs.define(eq=False)
class Pending:
    """The new messages of one publish. `waiting` are their duplicates, until they are committed."""

    committed: bool = False
    waiting: list[tuple[Publisher, Run]] = attrs.Factory(list)


@attrs.frozen
class Part:
    """Messages start to stop - 1 of a run: duplicates of those in `first`; None: new ones."""

    start: int
    stop: int
    first: Pending | None


@attrs.frozen
class _Entry:
    seen_at: float
    pending: Pending


_Ids = OrderedDict[bytes, _Entry]


@attrs.define(eq=False)
class DedupWindow:
    """Ids leave after `dedup_window_ms`, or, oldest first, when there are too many."""

    context: Context
    _topics: OrderedDict[bytes, _Ids] = attrs.Factory(OrderedDict)
    """The topic that got an id last is last."""
    _count: int = 0

    def parts(self, run: Run, own: Pending, now: float) -> list[Part]:
        """The run, cut where new messages and duplicates follow each other.

        What is new will be in `own`.
        """
        assert run.message_ids is not None
        self._expire(now)
        known = self._expire_topic(run.topic, now)
        unique = set(run.message_ids)
        if None not in unique and len(unique) == run.count and known.keys().isdisjoint(unique):
            return [Part(0, run.count, None)]
        parts: list[Part] = []
        begin, before = 0, None
        seen: set[bytes] = set()
        for index, message_id in enumerate(run.message_ids):
            first: Pending | None = None
            if message_id is not None:
                entry = known.get(message_id)
                if entry is not None:
                    first = entry.pending
                elif message_id in seen:
                    first = own
                else:
                    seen.add(message_id)
            if first is not before:
                if index > begin:
                    parts.append(Part(begin, index, before))
                begin, before = index, first
        parts.append(Part(begin, run.count, before))
        return parts

    def add(
        self, topic: bytes, message_ids: Sequence[bytes | None], pending: Pending, now: float
    ) -> None:
        """These are published."""
        ids = self._topics.setdefault(topic, OrderedDict())
        self._topics.move_to_end(topic)
        entry = _Entry(now, pending)
        before, id_bytes = len(ids), 0
        for message_id in message_ids:
            if message_id is not None and message_id not in ids:
                ids[message_id] = entry
                id_bytes += len(message_id)
        self._count_all(len(ids) - before, id_bytes)
        before, id_bytes = len(ids), 0
        for _ in range(len(ids) - self.context.retention.dedup_messages):
            message_id, _ = ids.popitem(last=False)
            id_bytes += len(message_id)
        self._count_all(len(ids) - before, -id_bytes)
        while self._count > self.context.retention.dedup_messages_total:
            name, oldest = next(iter(self._topics.items()))
            self._leave(oldest)
            if not oldest:
                del self._topics[name]

    def failed(self, topic: bytes, message_ids: Sequence[bytes | None]) -> None:
        """These were not published after all."""
        ids = self._topics.get(topic, OrderedDict())
        for message_id in message_ids:
            if message_id is not None and ids.pop(message_id, None) is not None:
                self._count_one(message_id, -1)

    def seen(self) -> tuple[Seen, ...]:
        """What the log has to know."""
        found = []
        for topic, ids in self._topics.items():
            rows = [
                (self.context.time_ms(entry.seen_at), message_id)
                for message_id, entry in ids.items()
                if entry.pending.committed
            ]
            if rows:
                found.append(Seen(topic, tuple(rows)))
        return tuple(found)

    def restore(self, topic: bytes, message_ids: Sequence[bytes | None], at: float) -> None:
        """These were published at that time, before a restart; later ones come later."""
        self.add(topic, message_ids, Pending(committed=True), at)

    def _leave(self, ids: _Ids) -> None:
        message_id, _ = ids.popitem(last=False)
        self._count_one(message_id, -1)

    def _count_one(self, message_id: bytes, sign: int) -> None:
        self._count_all(sign, sign * len(message_id))

    def _count_all(self, count: int, id_bytes: int) -> None:
        """So many more ids, of so many bytes together; less than none: fewer."""
        self._count += count
        self.context.stats.memory_bytes += count * _ENTRY_BYTES + id_bytes

    def _expire(self, now: float) -> None:
        """Forget the topics that were published to least recently, if that was long ago."""
        until = self._until(now)
        while self._topics:
            name, ids = next(iter(self._topics.items()))
            if ids and ids[next(reversed(ids))].seen_at > until:
                return
            for message_id in ids:
                self._count_one(message_id, -1)
            del self._topics[name]

    def _expire_topic(self, topic: bytes, now: float) -> _Ids:
        ids = self._topics.get(topic)
        if ids is None:
            return OrderedDict()
        until = self._until(now)
        while ids and ids[next(iter(ids))].seen_at <= until:
            self._leave(ids)
        return ids

    def _until(self, now: float) -> float:
        return now - self.context.retention.dedup_window_ms / 1000
