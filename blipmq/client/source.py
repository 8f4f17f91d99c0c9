"""What a program asks of a subscription, and where its messages come from."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Literal, Protocol

import attrs

from blipmq.client.message import Message
from blipmq.client.outgoing import milliseconds
from blipmq.client.topic import checked_qos, encoded
from blipmq.protocol.attach_properties import NAME_BYTES_MAX, Start, StartKind

StartAt = Literal["new", "earliest"] | int | datetime


@attrs.frozen
class Wanted:
    """A subscription, as its caller describes it."""

    topic: str
    qos: int
    pattern: bool
    name: str | None
    prefetch: int | None
    """None: as the protocol version has it."""
    start: Start | None
    ack_wait_ms: int | None
    max_attempts: int | None


class Source(Protocol):
    """Messages of one subscription. All but `open` and `arrival` are synchronous."""

    steps: int
    """So many messages are received between two trips through the scheduler."""
    prefetch: int
    dropped: int

    @property
    def ready(self) -> Iterator[Message]:
        """The first messages of those that wait; what `take` returns comes behind them."""
        ...

    async def open(self) -> None:
        """Returns when messages published from now on will come. To be called once.

        Cancelled, or with an exception, the subscription is as if it had never been asked for.
        """

    def close(self) -> None:
        """The program has left; whoever waits in `arrival` is woken."""

    def take(self) -> Message | None:
        """The oldest message that waits. Raises why there will be none any more."""

    def alive(self, message: Message) -> bool:
        """Whether a message that was taken before can still be settled."""
        ...

    async def arrival(self) -> None:
        """Waits until `take` is worth another look."""


def wanted(
    topic: str,
    *,
    qos: int,
    name: str | None,
    pattern: bool | None,
    prefetch: int | None,
    start: StartAt | None,
    ack_wait: float | None,
    max_attempts: int | None,
) -> Wanted:
    """Raises `ValueError` for what cannot be."""
    encoded(topic)
    qos = checked_qos(qos)
    if prefetch is not None and not 1 <= prefetch < 1 << 32:
        raise ValueError(f"prefetch {prefetch!r}; expected 1 or more")
    if name is not None and not 0 < len(name.encode()) <= NAME_BYTES_MAX:
        raise ValueError(f"name {name!r}; expected 1 to {NAME_BYTES_MAX} bytes")
    if name is not None and not qos:
        raise ValueError("a named subscription has QoS 1")
    if max_attempts is not None and not 0 <= max_attempts < 1 << 16:
        raise ValueError(f"max_attempts {max_attempts!r}; expected 0 (no limit) to 65535")
    ack_wait_ms = None if ack_wait is None else milliseconds(ack_wait, "ack_wait")
    if ack_wait_ms is not None and not 0 < ack_wait_ms < 1 << 32:
        raise ValueError(f"ack_wait {ack_wait!r}; expected seconds, more than 0")
    if pattern is None:
        pattern = is_pattern(topic)
    return Wanted(topic, qos, pattern, name, prefetch, _start(start), ack_wait_ms, max_attempts)


def is_pattern(topic: str) -> bool:
    """Whether a level of it is `*`, or the last one `>`."""
    levels = topic.split(".")
    return "*" in levels or levels[-1] == ">"


def _start(start: StartAt | None) -> Start | None:
    if start is None:
        return None
    if start == "new":
        return Start(StartKind.NEW)
    if start == "earliest":
        return Start(StartKind.EARLIEST)
    if isinstance(start, datetime):
        return Start(StartKind.TIME, milliseconds(start.timestamp(), "start"))
    if not 0 <= start < 1 << 64:
        raise ValueError(f'start {start!r}; expected "new", "earliest", a tag or a datetime')
    return Start(StartKind.TAG, start)
