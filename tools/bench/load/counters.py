"""Counters that all client processes see; each has one writer."""

from __future__ import annotations

import ctypes
from multiprocessing import RawArray

from tools.bench.load.work import Work, of_round

_UNKNOWN = -1


class Counters:
    """`sent` and `final` have a place for each publisher, `received` for each subscriber.

    `final` is what a publisher will have sent in the end; it is known before its last message goes.
    """

    def __init__(self, work: Work) -> None:
        self._work = work
        self.sent = RawArray(ctypes.c_int64, work.publishers)
        self.final = RawArray(ctypes.c_int64, work.publishers)
        self.received = RawArray(ctypes.c_int64, max(1, work.subscribers))
        for place in range(work.publishers):
            published = work.published_by(place)
            self.final[place] = _UNKNOWN if published is None else published
        self._common = [
            [work.common(publisher, subscriber) for publisher in range(work.publishers)]
            for subscriber in range(work.subscribers)
        ]
        self._sources = [
            [publisher for publisher, common in enumerate(each) if common] for each in self._common
        ]
        self._lengths = [len(work.publisher_topics(place)) for place in range(work.publishers)]

    def goal(self, subscriber: int) -> int | None:
        """How many messages that subscriber gets in all; None while it is not known.

        Only publishers that share a topic with it count: with the last message of those it would
        wait in vain for another.
        """
        if any(self.final[publisher] == _UNKNOWN for publisher in self._sources[subscriber]):
            return None
        return self._due(subscriber, list(self.final))

    def outstanding(self, subscriber: int) -> int:
        """Messages sent for that subscriber and not received yet."""
        return self._due(subscriber, list(self.sent)) - self.received[subscriber]

    def _due(self, subscriber: int, sent: list[int]) -> int:
        due = 0
        for count, length, common in zip(
            sent, self._lengths, self._common[subscriber], strict=True
        ):
            if len(common) == length:
                due += count
            else:
                due += sum(of_round(count, length, place) for place in common)
        return due

    def sharing(self, publisher: int) -> list[int]:
        """The subscribers that get anything from that publisher."""
        return [
            subscriber
            for subscriber in range(self._work.subscribers)
            if self._common[subscriber][publisher]
        ]

    def snapshot(self) -> tuple[int, ...]:
        """Differs from an earlier one when anything was sent or received meanwhile."""
        return (*self.sent, *self.received)
