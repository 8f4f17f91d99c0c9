"""What happened in a simulated run, line by line, each with its virtual time."""

from __future__ import annotations

from hashlib import sha256

import attrs
import trio


@attrs.define(eq=False)
class Trace:
    """`lines` in order; equal traces have equal digests."""

    lines: list[str] = attrs.Factory(list)

    def note(self, *what: object) -> None:
        self.lines.append(f"{trio.current_time():.6f} {' '.join(map(str, what))}")

    @property
    def digest(self) -> str:
        return sha256("\n".join(self.lines).encode()).hexdigest()
