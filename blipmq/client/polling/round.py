"""One question to the broker for messages: some POLLs of one subscription, and a PING.

A POLL that finds nothing has no answer. The PING behind the POLLs has one always, and answers
come in the order of their requests, so its PONG says that the round is over. And so every
PUBLISH between two PONGs belongs to a known round, and through it to a known subscription,
though at QoS 1 the frame itself names neither.
"""

from __future__ import annotations

from typing import Final, Protocol

import attrs
import trio

from blipmq.client.polling.delivery import Delivery
from blipmq.errors import ClientError, FramingError, Refused
from blipmq.protocol import encoder

POLLS_MAX: Final = 256
"""POLLs in one round."""


class Sink(Protocol):
    """Where the messages of a subscription go. Nothing here waits."""

    def deliver(self, delivery: Delivery) -> None: ...

    def refused(self, error: Refused) -> None:
        """The broker refuses to be polled for this subscription."""

    def lost(self, error: ClientError) -> None:
        """The connection has ended."""


@attrs.define(eq=False)
class Round:
    """POLLs with the correlation ids from `first_id` on, `asked` of them, then the PING."""

    sink: Sink
    first_id: int
    asked: int
    got: int = attrs.field(default=0, init=False)
    over: trio.Event = attrs.field(factory=trio.Event, init=False)

    @property
    def ping_id(self) -> int:
        return self.first_id + self.asked

    def holds(self, correlation_id: int) -> bool:
        """Whether this is the correlation id of one of its POLLs."""
        return self.first_id <= correlation_id < self.ping_id

    def frames(self, subscription_id: int) -> bytes:
        polls = (encoder.poll(id_, subscription_id) for id_ in range(self.first_id, self.ping_id))
        return b"".join((*polls, encoder.ping(self.ping_id)))

    def deliver(self, delivery: Delivery) -> None:
        """Hands a message on. Raises `FramingError` for one that no POLL of it asked for."""
        if self.got == self.asked:
            raise FramingError("more messages than POLLs")
        if delivery.tag is None and not self.holds(delivery.correlation_id):
            raise FramingError("a QoS 0 message for a POLL that is not due")
        self.got += 1
        self.sink.deliver(delivery)
