"""A bell: something may have happened, have a look."""

from __future__ import annotations

import attrs
import trio


@attrs.define(eq=False)
class Bell:
    """One task waits, anyone rings. A ring while nobody waits is not lost; several are as one."""

    _rung: bool = False
    _waiting: trio.Event | None = None

    def ring(self) -> None:
        self._rung = True
        if self._waiting is not None:
            self._waiting.set()

    async def wait(self) -> None:
        """Return once it has rung since the last return. A cancelled wait takes no ring away."""
        if self._rung:
            await trio.lowlevel.checkpoint()
        else:
            self._waiting = trio.Event()
            try:
                await self._waiting.wait()
            finally:
                self._waiting = None
        self._rung = False
