"""The modes of `python -m tools.bench`: what each one measures unless options say otherwise."""

from __future__ import annotations

from enum import Enum

import attrs

from tools.bench.load.work import Guarantee

MIXED_SIZES = (16, 64, 256, 1024, 4096)


class Shape(Enum):
    """How a mode measures."""

    FLOW = "as much as goes through"
    TRIPS = "one message at a time, from publish to receive"
    CONFIRMS = "one message at a time, from publish to confirm"
    ECHO = "one request at a time, of a bare Trio server"
    POLLS = "one POLL and ACK at a time, of messages published before"


@attrs.frozen(kw_only=True)
class Mode:
    """What a mode has counts unless an option says otherwise.

    `messages` is for wire clients; a library is given a share of it. `fsync_policy` None: no log.
    """

    says: str
    guarantee: Guarantee
    messages: int
    shape: Shape = Shape.FLOW
    publishers: int = 1
    subscribers: int = 1
    topics: int = 1
    sizes: tuple[int, ...] = (256,)
    fsync_policy: str | None = None


MODES = {
    "qos0": Mode(
        says="at most once, 1 to 1",
        guarantee=Guarantee.AT_MOST_ONCE,
        messages=2_000_000,
    ),
    "qos1": Mode(
        says="confirmed and acknowledged, no log, 1 to 1",
        guarantee=Guarantee.AT_LEAST_ONCE,
        messages=500_000,
    ),
    "durable": Mode(
        says="confirmed and acknowledged, in the log, 1 to 1",
        guarantee=Guarantee.AT_LEAST_ONCE,
        messages=300_000,
        fsync_policy="always",
    ),
    "scaled": Mode(
        says="at most once, 4 publishers to 4 subscribers on 4 topics",
        guarantee=Guarantee.AT_MOST_ONCE,
        messages=2_000_000,
        publishers=4,
        subscribers=4,
        topics=4,
    ),
    "fanout": Mode(
        says="at most once, 1 publisher to 8 subscribers",
        guarantee=Guarantee.AT_MOST_ONCE,
        messages=400_000,
        subscribers=8,
    ),
    "mixed": Mode(
        says="at most once, 100 topics interleaved, bodies of 16 to 4096 bytes",
        guarantee=Guarantee.AT_MOST_ONCE,
        messages=100_000,
        topics=100,
        sizes=MIXED_SIZES,
    ),
    "named": Mode(
        says="ten named subscriptions on one topic, confirmed and acknowledged, no log",
        guarantee=Guarantee.AT_LEAST_ONCE,
        messages=100_000,
        subscribers=10,
    ),
    "latency": Mode(
        says="publish to receive, one at a time, at most once",
        guarantee=Guarantee.AT_MOST_ONCE,
        messages=5_000,
        shape=Shape.TRIPS,
    ),
    "confirm": Mode(
        says="publish to confirm, one at a time, in the log",
        guarantee=Guarantee.AT_LEAST_ONCE,
        messages=3_000,
        shape=Shape.CONFIRMS,
        subscribers=0,
        fsync_policy="always",
    ),
    "poll": Mode(
        says="version 1, POLL and ACK one at a time, no log",
        guarantee=Guarantee.AT_LEAST_ONCE,
        messages=30_000,
        shape=Shape.POLLS,
    ),
    "echo": Mode(
        says="a bare Trio server that sends a publish back, one at a time",
        guarantee=Guarantee.AT_MOST_ONCE,
        messages=5_000,
        shape=Shape.ECHO,
    ),
}
LIBRARY_SHARE = 10
"""A library is given so much less to do."""
