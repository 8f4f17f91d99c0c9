"""Where the runs of each topic are in one segment: enough not to look through all of it.

An entry stands for the runs of its topic that begin within `granule` bytes of it, and every run
lies within that of one entry. So a topic costs an entry for each stretch of the segment in which it
has messages, whatever their number; and an index that grew too large is made coarser.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterator
from typing import Final

import attrs

GRANULE_BYTES: Final = 1 << 12
SEGMENT_ENTRIES_MAX: Final = 1 << 19
"""Of one segment, if its topics are not more; 16 bytes each."""
LOG_ENTRIES_MAX: Final = 1 << 21
"""Of all segments together."""
_COARSER_MIN: Final = 4


@attrs.define(eq=False)
class SegmentIndex:
    """Offsets of runs, by topic. `entries` is how many it has of all topics.

    One thread may read while another one notes: it sees at least what was noted before.
    """

    granule: int = GRANULE_BYTES
    entries: int = 0
    _end: int = 0
    _topics: dict[bytes, array[int]] = attrs.Factory(dict)
    """Of each topic by turns the first number of a run, and its offset; both ascend."""

    def note(self, topic: bytes, first: int, offset: int) -> None:
        """A run with this first number begins here, behind all that was noted before."""
        places = self._topics.get(topic)
        self._end = offset
        if places is None:
            self._topics[topic] = array("Q", (first, offset))
        elif offset >= places[-1] + self.granule:
            places.extend(array("Q", (first, offset)))
        else:
            return
        self.entries += 1

    def first_number(self, topic: bytes) -> int | None:
        """The lowest number of the topic, if the segment has any."""
        places = self._topics.get(topic)
        return None if places is None else places[0]

    def spans(self, topic: bytes, first: int, offset: int) -> Iterator[tuple[int, int]]:
        """From where to where runs of the topic may begin that hold `first` or a later number.

        Not before `offset`, which is where a record begins; so is the start of every span. They
        ascend and do not overlap.
        """
        places = self._topics.get(topic)
        if places is None:
            return
        entries = range(len(places) // 2)
        by_number = bisect_right(entries, first, key=lambda i: places[2 * i])
        by_offset = bisect_right(entries, offset, key=lambda i: places[2 * i + 1])
        for i in entries[max(by_number - 1, by_offset - 1, 0) :]:
            start = places[2 * i + 1]
            stop = start + self.granule
            if i + 1 in entries:
                stop = min(stop, places[2 * i + 3])
            if stop > offset:
                yield max(start, offset), stop

    def coarser(self, entries: int) -> SegmentIndex:
        """The same with a larger granule and no more entries than this and one for each topic."""
        needed = len(self._topics) * self._end // max(entries, 1) + self.granule
        granule = max(self.granule * _COARSER_MIN, needed)
        index = SegmentIndex(granule, end=self._end)
        for topic, places in self._topics.items():
            kept = places[:2]
            for first, offset in zip(places[2::2], places[3::2], strict=True):
                if offset + self.granule > kept[-1] + granule:
                    kept.extend((first, offset))
            index._topics[topic] = kept
            index.entries += len(kept) // 2
        return index

    @property
    def can_be_coarser(self) -> bool:
        """Whether any topic has several entries."""
        return self.entries > len(self._topics)
