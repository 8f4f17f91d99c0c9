"""How long to wait before the next attempt to connect."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import attrs

FIRST_S: Final = 0.1
LONGEST_S: Final = 5.0


@attrs.define
class Backoff:
    """Doubles from one attempt to the next. `entropy` gives so many random bytes.

    Each wait is anything up to the full one ("full jitter"), so that the clients of a broker that
    comes back do not all come at once.
    """

    _entropy: Callable[[int], bytes]
    _wait_s: float = attrs.field(default=FIRST_S, init=False)

    def next(self) -> float:
        """In seconds."""
        share = int.from_bytes(self._entropy(4), "big") / (1 << 32)
        wait_s, self._wait_s = self._wait_s, min(2 * self._wait_s, LONGEST_S)
        return share * wait_s
