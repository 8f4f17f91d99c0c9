"""Publishes at QoS 1 that the broker has not confirmed yet, across connections.

Publishes are numbered in the order in which they are sent; a number is the correlation id, and,
behind the client's own prefix, the message id. So the very bytes of a frame can be sent again on
another connection, and the broker's dedup window makes them once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Protocol

import attrs

from blipmq.client.waiters import Waiters
from blipmq.errors import ClientError, Refused


class Owner(Protocol):
    """Who sent publishes, and hears what became of them. Nothing here waits.

    It numbers its publishes from 0.
    """

    @property
    def sent(self) -> int:
        """The number of the publish that it is sending."""
        ...

    def confirmed(self, count: int, size: int) -> None:
        """So many of them, of so many bytes together, are committed."""

    def refused(self, number: int, size: int, error: Refused) -> None:
        """The broker's NACK to one of them."""

    def lost(self, number: int, count: int, size: int, error: ClientError) -> None:
        """Whether these, from that number on, are published will not be known."""

    def wake(self) -> None:
        """Whoever waits for one of them to be settled may want to look at the connection."""


@attrs.define(eq=False)
class Group:
    """Publishes of one owner with consecutive numbers from `first` on. None: was refused."""

    owner: Owner
    first: int
    frames: list[bytes | None]
    number: int
    """Its owner's number of the first of them."""
    refused: int = 0

    @property
    def end(self) -> int:
        return self.first + len(self.frames)

    def size(self, count: int) -> int:
        """Bytes of the first `count` of them that were not refused."""
        return sum(map(len, filter(None, self.frames[:count])))

    def stretches(self) -> Iterator[tuple[int, list[bytes]]]:
        """Those that follow each other and were not refused, with the owner's number."""
        stretch: list[bytes] = []
        for number, frame in enumerate([*self.frames, None], self.number):
            if frame is not None:
                stretch.append(frame)
            elif stretch:
                yield number - len(stretch), stretch
                stretch = []

    def cut(self, count: int) -> None:
        """The first `count` of them are settled."""
        refused = self.frames[:count].count(None) if self.refused else 0
        size = self.size(count)
        del self.frames[:count]
        self.first += count
        self.number += count
        self.refused -= refused
        if count > refused:
            self.owner.confirmed(count - refused, size)


@attrs.define(eq=False)
class Unconfirmed:
    """The publishes of a client, oldest first.

    Those that a broker which shuts down has refused are postponed: they are sent again, too.
    """

    next_id: int = attrs.field(default=1, init=False)
    _groups: deque[Group] = attrs.field(factory=deque, init=False)
    _postponed: list[tuple[int, bytes, Owner, int]] = attrs.field(factory=list, init=False)
    _waiters: Waiters = attrs.field(factory=Waiters, init=False)

    def __bool__(self) -> bool:
        return bool(self._groups or self._postponed)

    def add(self, owner: Owner, frame: bytes) -> None:
        """The frame whose correlation id is `next_id` is on its way."""
        groups = self._groups
        last = groups[-1] if groups else None
        id_ = self.next_id
        if last is not None and last.owner is owner and last.first + len(last.frames) == id_:
            last.frames.append(frame)
        else:
            groups.append(Group(owner, id_, [frame], owner.sent))
        self.next_id = id_ + 1

    def add_all(self, owner: Owner, frames: list[bytes]) -> None:
        """As `add` for each; the owner's number is that of the first."""
        self.add(owner, frames[0])
        self._groups[-1].frames += frames[1:]
        self.next_id += len(frames) - 1

    def confirm(self, id_: int) -> None:
        """All up to this number are committed, but for those that were refused."""
        groups = self._groups
        while groups and groups[0].first <= id_:
            group = groups[0]
            if group.end <= id_ + 1:
                groups.popleft()
                group.cut(len(group.frames))
            else:
                group.cut(id_ + 1 - group.first)
        self._trim()

    async def settled(self, before: int) -> None:
        """Waits until none with a lower number is on its way; what is postponed is not."""
        while self._groups and self._groups[0].first < before:
            await self._waiters.wait()

    def refuse(self, id_: int, error: Refused, *, postpone: bool = False) -> bool:
        """One was refused; False if none with this number is known."""
        if id_ >= self.next_id:
            return False
        for group in self._groups:
            if group.first <= id_ < group.end:
                at = id_ - group.first
                frame = group.frames[at]
                if frame is None:
                    return False
                group.frames[at] = None
                group.refused += 1
                if postpone:
                    self._postponed.append((id_, frame, group.owner, group.number + at))
                else:
                    group.owner.refused(group.number + at, len(frame), error)
                self._trim()
                return True
        return False

    def _trim(self) -> None:
        """Something was settled: drop what is over, and wake those who wait for it."""
        groups = self._groups
        while groups and groups[0].refused == len(groups[0].frames):
            groups.popleft()
        self._waiters.wake()

    def wake(self) -> None:
        """Wakes the owners."""
        for group in self._groups:
            group.owner.wake()

    def again(self, before: int) -> bytes:
        """The frames with lower numbers than `before`, in order, to be sent once more.

        What was postponed is expected to be confirmed from now on, like the others.
        """
        if self._postponed:
            self._resume()
        return b"".join(self._frames(before))

    def _resume(self) -> None:
        everything = list(self._postponed)
        for group in self._groups:
            for id_, frame in enumerate(group.frames, group.first):
                if frame is not None:
                    number = group.number + id_ - group.first
                    everything.append((id_, frame, group.owner, number))
        everything.sort(key=lambda each: each[0])
        self._postponed.clear()
        self._groups.clear()
        for id_, frame, owner, number in everything:
            last = self._groups[-1] if self._groups else None
            if last is not None and last.owner is owner and last.end == id_:
                last.frames.append(frame)
            else:
                self._groups.append(Group(owner, id_, [frame], number))

    def _frames(self, before: int) -> Iterator[bytes]:
        for group in self._groups:
            if group.end <= before:
                yield from filter(None, group.frames)
            else:
                yield from filter(None, group.frames[: max(0, before - group.first)])

    def lose(self, error: ClientError) -> None:
        """None of them will be heard of again."""
        if self._postponed:
            self._resume()
        groups, self._groups = self._groups, deque()
        for group in groups:
            for number, frames in group.stretches():
                group.owner.lost(number, len(frames), sum(map(len, frames)), error)
        self._waiters.wake()
