"""How many messages a subscription asks for at once, and when.

A QoS 1 message that waits here is already running towards its redelivery at the broker, so
asking ahead must not outrun the consumer; and asking for one at a time costs a round trip each.
So the pace follows what it sees: rounds that come back full grow, up to what the consumer,
as fast as it took the last messages, takes within `HORIZON_S`.
"""

from __future__ import annotations

from typing import Final

import attrs

from blipmq.client.polling.round import POLLS_MAX

HORIZON_S: Final = 0.025
"""A quarter of the shortest usual retry backoff."""
PAUSE_MIN_S: Final = 0.001
PAUSE_MAX_S: Final = 0.1


@attrs.define(eq=False)
class Pace:
    """Pure decisions; times are seconds of any one clock.

    At most `prefetch` messages wait here; at QoS 1 no more than fit the horizon, or one.
    """

    prefetch: int
    qos: int
    _polls: int = attrs.field(default=1, init=False)
    _pause_s: float = attrs.field(default=0.0, init=False)
    _since: float = attrs.field(default=0.0, init=False)
    """When the last round was over."""
    _taken: int = attrs.field(default=0, init=False)
    """Messages that were consumed since."""

    def took(self) -> None:
        """A consumer has taken a message."""
        self._taken += 1

    def low(self, waiting: int) -> bool:
        """Whether so few messages wait that it may be time to ask for more."""
        return waiting == 0 or (self._polls > 1 and waiting <= self._polls // 2)

    def polls(self, now: float, waiting: int, starved: bool) -> int:
        """How many to ask for now; 0: not yet. `starved`: a consumer waits for a message."""
        ahead = self._within_horizon(now)
        if starved and not waiting:
            return max(1, min(self._polls, ahead))
        if self._polls == 1 or not self.low(waiting):
            return 0
        return max(0, min(self._polls, ahead - waiting))

    def _within_horizon(self, now: float) -> int:
        elapsed = now - self._since
        if self.qos == 0 or elapsed <= 0:
            return self.prefetch
        return int(min(self.prefetch, self._taken * HORIZON_S / elapsed))

    def over(self, now: float, asked: int, got: int) -> float:
        """A round is over. Returns how long to pause before the next one, in seconds."""
        self._since, self._taken = now, 0
        if got == 0:
            self._polls = 1
            self._pause_s = min(max(PAUSE_MIN_S, 2 * self._pause_s), PAUSE_MAX_S)
            return self._pause_s
        self._polls = min(2 * asked, self.prefetch, POLLS_MAX) if got == asked else got
        self._pause_s = 0.0
        return 0.0
