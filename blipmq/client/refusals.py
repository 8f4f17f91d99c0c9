"""The NACKs that no call waits for."""

from __future__ import annotations

import logging

import attrs

from blipmq.errors import Refused

log = logging.getLogger("blipmq.client")


@attrs.define(eq=False)
class Refusals:
    """Counts of what the broker refused after the call that asked for it had returned.

    Each is also logged, to the logger `blipmq.client`, at level WARNING for a publish and
    DEBUG for an acceptance, which is refused in the normal course of a redelivery.
    """

    publishes: int = 0
    """Messages published at QoS 0, or by a publish() that was cancelled."""
    accepts: int = 0
    """Deliveries that were settled already, or that the broker knows no more."""
    stale: int = 0
    """Settlements of messages whose connection or subscription was gone: they come again."""
    last: Refused | None = None
    """The latest one."""

    def publish(self, error: Refused) -> None:
        self.publishes += 1
        self.last = error
        log.warning("publish refused: %s", error)

    def accept(self, error: Refused) -> None:
        self.accepts += 1
        self.last = error
        log.debug("accept refused: %s", error)
