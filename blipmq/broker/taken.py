"""What an attachment is given: a range of messages that came together."""

from __future__ import annotations

from bisect import bisect_right

import attrs

from blipmq.protocol.run import Run
from blipmq.protocol.span import Span

Messages = Run | Span
"""Messages that were received together, and share a buffer."""


@attrs.frozen(eq=False)
class TakenRange:
    """Messages start to stop - 1, for an attachment.

    `attempt` counts their deliveries, 1 for the first; `tagged`: whether they are to be settled.
    """

    messages: Messages
    start: int
    stop: int
    attempt: int = 1
    tagged: bool = False

    @property
    def count(self) -> int:
        return self.stop - self.start

    @property
    def size(self) -> int:
        """Bytes of the frames."""
        offsets = self.messages.offsets
        return offsets[self.stop] - offsets[self.start]


def fit(messages: Messages, start: int, count: int, size: int) -> int:
    """Where a range of at most so many messages and bytes ends that has one message at least."""
    offsets = messages.offsets
    end = offsets[start] + size
    if isinstance(offsets, range):
        stop = (end - offsets.start) // offsets.step
    else:
        stop = bisect_right(offsets, end) - 1
    return max(start + 1, min(stop, start + count, messages.count))
