"""What the daemon sends on one connection, read where it leaves the daemon."""

from __future__ import annotations

from collections.abc import Callable

import attrs

from blipmq.client.polling import delivery
from blipmq.client.splitter import Splitter
from blipmq.protocol.frames import ACK, DELIVER, PUBLISH, TYPES_V2, U64, Frame
from blipmq.protocol.properties import parse_message_properties
from tests.deliver import inner_frames
from tests.simulation.trace import Trace
from tools.history.history import History
from tools.history.subscription import Holder, Subscription

BODY_BYTES = 6
"""A message is known by so many bytes at the beginning of its body."""


@attrs.define(eq=False)
class Tap:
    """On a connection of a subscriber; `subscription` is given the id that the broker has.

    A publisher's connection has a tap only for the trace.
    """

    history: History
    trace: Trace
    name: str
    holder: Holder
    subscription: Callable[[int], Subscription] | None = None
    watched: Callable[[], None] = lambda: None
    found: Subscription | None = None
    _splitter: Splitter = attrs.field(factory=lambda: Splitter(TYPES_V2))

    def __call__(self, data: bytes) -> None:
        self.watched()
        self.trace.note(self.name, "<-", len(data), data[4:5].hex())
        for frame in self._splitter.split(data):
            if self.subscription is not None:
                self._take(frame, self.subscription)

    def _take(self, frame: Frame, subscription: Callable[[int], Subscription]) -> None:
        if frame.type == ACK:
            (id_,) = U64.unpack(frame.payload)
            if id_:
                self.found = subscription(id_)
        elif frame.type == DELIVER:
            for inner in inner_frames(frame.payload):
                attempt = 1
                if inner.properties is not None:
                    parsed = parse_message_properties(inner.properties, from_client=False)
                    attempt = parsed.attempt
                self._sent(inner.tag, inner.body, inner.topic, inner.qos, attempt)
        elif frame.type == PUBLISH:
            found = delivery.parse(frame)
            self._sent(found.correlation_id, found.body, found.topic, found.qos, 1)

    def _sent(self, tag: int, body: bytes, topic: bytes, qos: int, attempt: int) -> None:
        assert self.found is not None
        name = body[:BODY_BYTES]
        self.trace.note(self.name, "<=", name.decode(), tag, attempt)
        self.history.sent(self.found, self.holder, tag, name, topic.decode(), qos, attempt)
