"""What a connection published at QoS 1 and has no answer to yet, in the order of sending."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import attrs

from blipmq.protocol.run import Run


@attrs.define(eq=False)
class Unconfirmed:
    """One run as it was sent, whose last correlation id is `last`; it may be answered in parts.

    It is the `Publisher` of its parts: `failed` is told of each one that was not published.
    """

    last: int
    failed: Callable[[Run, str], None]
    progress: Callable[[], None]
    outstanding: int = 0

    def on_committed(self, run: Run) -> None:
        """As `Publisher`."""
        self.outstanding -= 1
        self.progress()

    def on_failed(self, run: Run, reason: str) -> None:
        """As `Publisher`."""
        self.outstanding -= 1
        self.failed(run, reason)
        self.progress()


@attrs.define(eq=False)
class Confirms:
    """CONFIRM is cumulative: it goes as far as everything before is answered."""

    _waiting: deque[Unconfirmed] | None = None
    """Only a connection that publishes has one: an empty one is large."""
    _confirmed: int | None = None

    def __len__(self) -> int:
        """Runs that are not answered yet."""
        self._advance()
        return len(self._waiting or ())

    def add(self, unconfirmed: Unconfirmed) -> None:
        if self._waiting is None:
            self._waiting = deque()
        self._waiting.append(unconfirmed)

    def take(self) -> int | None:
        """The correlation id up to which everything is answered, if that has moved on."""
        self._advance()
        confirmed, self._confirmed = self._confirmed, None
        return confirmed

    def __bool__(self) -> bool:
        """Whether `take` has something to give."""
        self._advance()
        return self._confirmed is not None

    def _advance(self) -> None:
        while self._waiting and not self._waiting[0].outstanding:
            self._confirmed = self._waiting.popleft().last
