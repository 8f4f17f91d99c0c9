"""What waits to be sent on a connection."""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from blipmq.broker.stats import Stats
from blipmq.broker.taken import Messages, TakenRange
from blipmq.protocol.encoder import deliver_head
from blipmq.protocol.frames import CORRELATION_ID_AT, U64
from blipmq.protocol.run import Run

_COPY_BYTES_MAX = 4096
"""A message that is longer is sent from where it is, and its run held until it was sent."""
DELIVER_BYTES_MAX = 256 * 1024 - 64
"""What the messages in one DELIVER take, unless one alone takes more."""

Sendable = bytes | memoryview


def _frames_of(taken: list[TakenRange]) -> Iterator[tuple[Messages | None, Sendable]]:
    """Whole frames of what was taken, in stretches; with their run where they are shared."""
    for part in taken:
        run = part.messages
        if not part.tagged:
            yield run, run.at_qos0(part.start, part.stop)
        elif part.attempt > 1 and isinstance(run, Run):
            for index in range(part.start, part.stop):
                yield None, run.redelivery(index, part.attempt)
        else:
            yield run, run.data(part.start, part.stop)


@attrs.define(eq=False)
class Output:
    """Replies in their order, until they were sent. Copies count as memory, as runs do anyway.

    `bytes` is the size of all that was added and not taken yet.
    """

    stats: Stats
    bytes: int = 0
    closed: bool = False
    """Whether nothing more is sent: what is added is forgotten."""
    _frames: list[Sendable] = attrs.Factory(list)
    _runs: list[Messages] = attrs.Factory(list)
    _copied_bytes: int = 0
    _sending_bytes: int = 0
    _sending_runs: list[Messages] = attrs.Factory(list)

    def __bool__(self) -> bool:
        return bool(self._frames)

    def add(self, frame: Sendable) -> None:
        """A frame of its own."""
        if self.closed:
            return
        self._frames.append(frame)
        self.bytes += len(frame)
        self._copied_bytes += len(frame)
        self.stats.memory_bytes += len(frame)

    def add_message(self, run: Run, index: int) -> None:
        """One message of a run as version 1 has it, with its number as delivery tag."""
        self._add_parts(run, *run.plain(index))

    def add_reply(self, run: Run, index: int, correlation_id: int) -> None:
        """One message of a run, as a QoS 0 answer to the request with this correlation id."""
        self._add_parts(run, *run.reply(index, correlation_id))

    def add_polled(self, taken: TakenRange, correlation_id: int) -> None:
        """A message for an attachment that asked for it with this correlation id."""
        run, index = taken.messages, taken.start
        if not taken.tagged:
            frame = bytearray(run.at_qos0(index, index + 1))
            U64.pack_into(frame, CORRELATION_ID_AT, correlation_id)
            self.add(bytes(frame))
        elif taken.attempt > 1 and isinstance(run, Run):
            self.add(run.redelivery(index, taken.attempt))
        else:
            self._add_parts(run, b"", run.data(index, index + 1))

    def add_deliver(self, subscription: int, taken: list[TakenRange]) -> None:
        """Messages for an attachment, in as many DELIVER frames as their sizes ask for."""
        parts: list[tuple[Messages | None, Sendable]] = []
        size = 0
        for run, frames in _frames_of(taken):
            if parts and size + len(frames) > DELIVER_BYTES_MAX:
                self._add_deliver(subscription, parts, size)
                parts, size = [], 0
            parts.append((run, frames))
            size += len(frames)
        if parts:
            self._add_deliver(subscription, parts, size)

    def _add_deliver(
        self, subscription: int, parts: list[tuple[Messages | None, Sendable]], size: int
    ) -> None:
        self.add(deliver_head(subscription, size))
        for run, frames in parts:
            if run is None:
                self.add(frames)
            else:
                self._add_shared(run, frames)

    def _add_parts(self, run: Messages, head: Sendable, rest: memoryview) -> None:
        if len(rest) <= _COPY_BYTES_MAX:
            self.add(b"".join((head, rest)))
        else:
            if head:
                self.add(head)
            self._add_shared(run, rest)

    def _add_shared(self, run: Messages, view: Sendable) -> None:
        if self.closed:
            return
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
        self.closed = True
        self.sent()
        self.take()
        self.sent()
