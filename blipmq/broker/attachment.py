"""An attachment: one member of a shared subscription, on one connection."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Protocol

import attrs

from blipmq.broker.message import Delivery, DeliveryTable
from blipmq.broker.unsent import Unsent

if TYPE_CHECKING:
    from blipmq.broker.shared import SharedSubscription


class Consumer(Protocol):
    """The connection that an attachment is on."""

    def wake(self, attachment: Attachment) -> None:
        """There may be something to deliver."""

    def detached(self, attachment: Attachment, reason: str) -> None:
        """The attachment has ended, not by the connection's own doing."""


@attrs.define(eq=False)
class Attachment:
    """`id` names it on the wire. It holds up to `prefetch` unsettled messages; 0: it is polled.

    `deliveries` are those that it was the last to receive, and that are not settled; of them
    `held` messages are out, the others fell due and were not delivered again yet. `reserved` are
    messages with keys that it holds, put aside until it has room. `unsent` is what was relayed to
    it at QoS 0.
    """

    id: int
    subscription: SharedSubscription
    consumer: Consumer
    prefetch: int
    bytes_max: int
    unsent: Unsent
    deliveries: DeliveryTable = attrs.Factory(DeliveryTable)
    held: int = 0
    held_bytes: int = 0
    reserved: deque[Delivery] = attrs.Factory(deque)

    @property
    def room(self) -> int:
        """How many messages it may be sent besides those that it holds."""
        if self.held and self.held_bytes >= self.bytes_max:
            return 0
        return max(0, self.prefetch - self.held)

    def reserve(self, delivery: Delivery) -> None:
        """Put messages aside for it, in the order of their numbers."""
        reserved = self.reserved
        at = len(reserved)
        while at and reserved[at - 1].first > delivery.first:
            at -= 1
        reserved.insert(at, delivery)
