"""A span: consecutive QoS 0 PUBLISH frames of several topics, as the bytes they came in.

What would be many runs of a message or two is numbered and sent on as one stretch of bytes, where
all of it goes the same way. Like the bytes of a run, those of a span are written once more after
they were received, by `stamp`, and never again.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from itertools import accumulate

import attrs

from blipmq.protocol.frames import CORRELATION_ID_AT, U64
from blipmq.protocol.run import Run
from blipmq.protocol.speed import stamp_offsets


@attrs.define(eq=False)
class Span:
    """`count` messages; message i is `buffer[offsets[i]:offsets[i + 1]]`, of topic `topics[i]`.

    `first` is the number of the first message once `stamp` has given them one, the others follow
    without a gap; 0 before.
    """

    buffer: bytearray
    offsets: array[int]
    topics: Sequence[bytes]
    first: int = 0
    charge: object = None
    """Whatever is to live as long as the span does."""

    @property
    def qos(self) -> int:
        return 0

    @property
    def count(self) -> int:
        return len(self.topics)

    @property
    def size(self) -> int:
        """Bytes of all frames."""
        return self.offsets[-1] - self.offsets[0]

    def data(self, start: int = 0, stop: int | None = None) -> memoryview:
        """The frames of messages start to stop - 1, end to end, without a copy."""
        offsets = self.offsets
        return memoryview(self.buffer)[offsets[start] : offsets[-1 if stop is None else stop]]

    def at_qos0(self, start: int, stop: int) -> memoryview:
        """As `data`: that is what they are."""
        return self.data(start, stop)

    def stamp(self, first: int) -> None:
        """Number the messages from `first` on, in the place of their correlation ids."""
        self.first = first
        stamp_offsets(self.buffer, self.offsets, first)

    def correlation_ids(self) -> array[int]:
        """What the publisher called each message, in order; of a stamped span, the numbers."""
        buffer, unpack_from = self.buffer, U64.unpack_from
        offsets = self.offsets[:-1]
        return array("Q", (unpack_from(buffer, at + CORRELATION_ID_AT)[0] for at in offsets))

    def some(self, indices: Sequence[int]) -> Span:
        """A copy of some of the messages."""
        topics = self.topics
        return Span(*self._copied(indices), [topics[index] for index in indices])

    def runs(self, indices: Iterable[int] | None = None) -> list[Run]:
        """These messages, or all, as copied runs, one for each topic, in the order of topics."""
        by_topic: dict[bytes, list[int]] = {}
        for index in range(self.count) if indices is None else indices:
            by_topic.setdefault(self.topics[index], []).append(index)
        return [Run(*self._copied(some), topic, 0) for topic, some in by_topic.items()]

    def _copied(self, indices: Sequence[int]) -> tuple[bytearray, array[int]]:
        view, offsets = memoryview(self.buffer), self.offsets
        frames = [view[offsets[index] : offsets[index + 1]] for index in indices]
        return bytearray().join(frames), array("I", accumulate(map(len, frames), initial=0))
