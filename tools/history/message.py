"""A message as its publisher knows it."""

from __future__ import annotations

import math

import attrs


@attrs.frozen
class Source:
    """One client that publishes: what it sends to a topic is to be kept in order.

    `connections` says how many connections it has made so far.
    """

    name: str
    life: int = 0


@attrs.define(eq=False)
class Message:
    """One message, however often it was sent. Times are in seconds of any one clock."""

    body: bytes
    """What it is known by; like no other."""
    topic: str
    qos: int
    source: Source
    place: int
    """The how-manieth of its source it is."""
    asked_at: float
    connections: int = 0
    """How many connections its source had made when it was sent first."""
    key: bytes | None = None
    ttl: float = math.inf
    delay: float = 0.0
    confirmed_at: float | None = None
    refused: bool = False
    of_several: bool = False
    """Another source has sent it as well."""
    may_be_doubled: bool = False
    """Nothing keeps the broker from publishing it twice."""
    excused: bool = False
    """It may be lost: a power cut has taken what was not synced."""
    tags: dict[str, list[int]] = attrs.Factory(dict)
    """By the topic that it came on, which may be one of dead letters."""

    @property
    def committed(self) -> bool:
        """Whether the broker said so, or showed it."""
        return self.confirmed_at is not None or bool(self.tags)
