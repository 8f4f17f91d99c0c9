"""What waits to be sent on a connection."""

from __future__ import annotations

import attrs

from blipmq.broker.stats import Stats
from blipmq.protocol.run import Run

_COPY_BYTES_MAX = 4096
"""A message that is longer is sent from where it is, and its run held until it was sent."""

Sendable = bytes | memoryview


@attrs.define(eq=False)
class Output:
    """Replies in their order, until they were sent. Copies count as memory, as runs do anyway.

    `bytes` is the size of all that was added and not taken yet.
    """

    stats: Stats
    bytes: int = 0
    _frames: list[Sendable] = attrs.Factory(list)
    _runs: list[Run] = attrs.Factory(list)
    _copied_bytes: int = 0
    _sending_bytes: int = 0
    _sending_runs: list[Run] = attrs.Factory(list)

    def __bool__(self) -> bool:
        return bool(self._frames)

    def add(self, frame: Sendable) -> None:
        """A frame of its own."""
        self._frames.append(frame)
        self.bytes += len(frame)
        self._copied_bytes += len(frame)
        self.stats.memory_bytes += len(frame)

    def add_message(self, run: Run, index: int) -> None:
        """One message of a run, with its number as delivery tag."""
        view = run.data(index, index + 1)
        if len(view) <= _COPY_BYTES_MAX:
            self.add(bytes(view))
        else:
            self._add_shared(run, view)

    def add_reply(self, run: Run, index: int, correlation_id: int) -> None:
        """One message of a run, as a QoS 0 answer to the request with this correlation id."""
        head, rest = run.reply(index, correlation_id)
        if len(rest) <= _COPY_BYTES_MAX:
            self.add(head + rest)
        else:
            self.add(head)
            self._add_shared(run, rest)

    def _add_shared(self, run: Run, view: memoryview) -> None:
        self._frames.append(view)
        self._runs.append(run)
        self.bytes += len(view)

    def take(self) -> list[Sendable]:
        """Everything, to be sent now; `sent` says when it was, or that it never will be."""
        assert not self._sending_bytes
        frames, self._frames, self.bytes = self._frames, [], 0
        self._sending_bytes, self._copied_bytes = self._copied_bytes, 0
        self._sending_runs, self._runs = self._runs, []
        return frames

    def sent(self) -> None:
        """What was taken is sent."""
        self.stats.memory_bytes -= self._sending_bytes
        self._sending_bytes = 0
        self._sending_runs = []

    def drop(self) -> None:
        """Nothing more is sent."""
        self.sent()
        self.take()
        self.sent()
