"""When a publisher may send: the bounds, the schedule of a rate, and the end."""

from __future__ import annotations

import time
from collections.abc import Callable

from tools.bench.load.counters import Counters
from tools.bench.load.work import Work

_PAUSE_NS = 200_000


class Pace:
    """Of one publisher. `sent` counts what it was allowed, `confirmed` is kept by its user.

    `window` is the most that may be unconfirmed; None: any number.
    """

    def __init__(
        self,
        work: Work,
        place: int,
        counters: Counters,
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.sent = 0
        self.confirmed = 0
        self.final = work.published_by(place)
        self._clock_ns = clock_ns
        self._place = place
        self._counters = counters
        self._subscribers = [] if work.preload else counters.sharing(place)
        self._block = work.block
        self._round = len(work.publisher_topics(place))
        self._most_ahead = work.ahead - work.spare
        self.window = work.window if work.guarantee else None
        self._interval_ns = None if work.rate is None else work.publishers / work.rate * 1e9
        self._offset = place / work.publishers
        self._seconds = work.seconds
        self._began_ns = 0
        self._deadline_ns: float | None = None
        self._next_ns = 0.0

    def begin(self) -> int:
        """Start the clock; what it shows, in ns."""
        self._began_ns = self._clock_ns()
        if self._seconds is not None:
            self._deadline_ns = self._began_ns + self._seconds * 1e9
        if self._interval_ns is not None:
            self._next_ns = self._began_ns + self._offset * self._interval_ns
        return self._began_ns

    @property
    def done(self) -> bool:
        """Nothing is left to be sent; some may not be confirmed."""
        return self.sent == self.final

    @property
    def window_full(self) -> bool:
        """Only a confirm makes room."""
        return self.window is not None and self.sent - self.confirmed >= self.window

    def take(self) -> int:
        """How many messages to send now, which then count as sent; 0 to wait until `resume_ns`."""
        now = self._clock_ns()
        if self.final is None and self._deadline_ns is not None and now >= self._deadline_ns:
            # One more to each topic, so that nobody waits in vain who has had everything before.
            self.final = self._counters.final[self._place] = self.sent + self._round
        count = self._block
        if self.final is not None:
            count = min(count, self.final - self.sent)
        wanted = count
        if self.window is not None:
            count = min(count, self.window - (self.sent - self.confirmed))
        if self._interval_ns is not None:
            count = min(count, int((now - self._next_ns) // self._interval_ns) + 1)
        room = self._room() if count > 0 else 0
        if room < count:
            # Small pieces cost everybody more than waiting for room for a whole block.
            count = room if self._interval_ns is not None or room >= wanted else 0
        if count <= 0:
            return 0
        self.sent += count
        self._counters.sent[self._place] = self.sent
        return count

    def _room(self) -> int:
        if not self._subscribers:
            return self._block
        outstanding = max(self._counters.outstanding(place) for place in self._subscribers)
        return self._most_ahead - outstanding

    def stamps(self, count: int) -> list[int] | None:
        """The times at which the messages just taken should have been sent; None: now."""
        if self._interval_ns is None:
            return None
        first = self._next_ns
        self._next_ns += count * self._interval_ns
        return [int(first + at * self._interval_ns) for at in range(count)]

    @property
    def scheduled(self) -> bool:
        """There is a rate, so each message has its time."""
        return self._interval_ns is not None

    def resume_ns(self) -> int:
        """When to try again, if nothing may be sent now."""
        now = self._clock_ns()
        if self._interval_ns is not None and self._next_ns > now:
            return int(self._next_ns)
        return now + _PAUSE_NS
