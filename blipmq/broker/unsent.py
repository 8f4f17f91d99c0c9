"""What was relayed to a QoS 0 attachment and was not sent to its client yet."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import attrs

from blipmq.broker.context import Context
from blipmq.broker.message import NEVER
from blipmq.broker.stats import DropReason
from blipmq.broker.taken import Messages, TakenRange, fit


@attrs.define(eq=False)
class Unsent:
    """Ranges of messages in the order of publishing, no more than `limits.qos0_window_bytes`, but
    for what came last in one go.

    From half of that on publishers are to wait, for a while, until a quarter is left.
    """

    context: Context
    messages: int = 0
    bytes: int = 0
    full_until: float | None = None
    """Until when publishers wait for it, or waited in vain; None: there is no need."""
    _waiting: deque[tuple[TakenRange, float]] = attrs.Factory(deque)
    """With when they arrived."""
    _paused: list[Callable[[], None]] = attrs.Factory(list)

    def __bool__(self) -> bool:
        return bool(self._waiting)

    @property
    def oldest_arrived(self) -> float:
        """When the oldest of them arrived; `NEVER` without one."""
        return self._waiting[0][1] if self._waiting else NEVER

    def add(self, messages: Messages, now: float) -> None:
        """Take messages in; where they are too many, the oldest go, counted."""
        self._waiting.append((TakenRange(messages, 0, messages.count), now))
        self.messages += messages.count
        self.bytes += messages.size
        window = self.context.limits.qos0_window_bytes
        if self.bytes > window // 2 and self.full_until is None:
            self.full_until = now + self.context.limits.slow_consumer_wait_ms / 1000
        while self.bytes > window and len(self._waiting) > 1:
            dropped = self._next(self.bytes - window, self.messages)
            self.context.stats.dropped[DropReason.QOS0_WINDOW] += dropped.count

    def take(self, count: int, size: int) -> TakenRange:
        """The oldest that come together: so many messages and bytes at most, one at least."""
        taken = self._next(size, count)
        self.context.stats.delivered[0] += taken.count
        if self.full_until is not None and self.bytes <= self.context.limits.qos0_window_bytes // 4:
            self._resume()
        return taken

    def _next(self, size: int, count: int) -> TakenRange:
        oldest, arrived = self._waiting.popleft()
        stop = fit(oldest.messages, oldest.start, count, size)
        if stop < oldest.stop:
            rest = TakenRange(oldest.messages, stop, oldest.stop)
            self._waiting.appendleft((rest, arrived))
            oldest = TakenRange(oldest.messages, oldest.start, stop)
        self.messages -= oldest.count
        self.bytes -= oldest.size
        return oldest

    def pause(self, resume: Callable[[], None], now: float) -> float | None:
        """Until when a publisher should wait, if at all; `resume` is called when it need not."""
        if self.full_until is None or self.full_until <= now:
            return None
        self._paused.append(resume)
        return self.full_until

    def drop(self, reason: DropReason) -> int:
        """Count what the attachment will not get; returns how many messages that is."""
        dropped = self.messages
        self.context.stats.dropped[reason] += dropped
        self._waiting.clear()
        self.messages = self.bytes = 0
        self._resume()
        return dropped

    def _resume(self) -> None:
        self.full_until = None
        paused, self._paused = self._paused, []
        for resume in paused:
            resume()
