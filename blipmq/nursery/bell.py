"""A bell: something may have happened, have a look."""

from __future__ import annotations

import attrs
import trio


@attrs.define(eq=False)
class Bell:
    """One task waits, anyone rings. A ring while nobody waits is not lost; several are as one."""

    _event: trio.Event = attrs.Factory(trio.Event)

    def ring(self) -> None:
        self._event.set()

    async def wait(self) -> None:
        """Return once it has rung since the last return. A cancelled wait takes no ring away."""
        await self._event.wait()
        self._event = trio.Event()
