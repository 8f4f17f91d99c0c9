"""Frames are sent in order and again and again, stamped where a subscriber looks for it."""

from __future__ import annotations

import socket

from tools.bench.load.arrivals import Arrivals
from tools.bench.load.body import STAMP
from tools.bench.load.latencies import percentiles
from tools.bench.load.ring import Ring, bodies, stamped
from tools.bench.load.work import Guarantee, Work

SMALL = Work(guarantee=Guarantee.AT_MOST_ONCE, messages=1, sizes=(16,))


def framed(place: int, topic: str, body_bytes: int) -> tuple[bytes, bytes]:
    return b"[", b"]"


def sent(ring: Ring, *counts: int, stamps: list[int] | None = None) -> bytes:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for size in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            ours.setsockopt(socket.SOL_SOCKET, size, 1 << 20)
        data = b""
        for count in counts:
            ring.send(ours, count, stamps)
            wanted = len(data) + count * 18
            while len(data) < wanted:
                data += theirs.recv(1 << 20)
        return data


def test_what_is_sent_is_what_a_subscriber_expects_also_past_the_end() -> None:
    ring = Ring(SMALL, 0, framed)
    counts = (1, SMALL.cycle - 3, 7, SMALL.cycle)
    arrivals = Arrivals(SMALL, 0)
    data = sent(ring, *counts)
    arrivals.column(data, 1, 18, len(data) // 18)
    assert arrivals.received == sum(counts)


def test_every_sampled_message_carries_a_fresh_stamp() -> None:
    data = sent(Ring(SMALL, 0, framed), SMALL.sampled + 1)
    first, last = (STAMP.unpack_from(data, 1 + at * 18)[0] for at in (0, SMALL.sampled))
    others = {STAMP.unpack_from(data, 1 + at * 18)[0] for at in range(1, SMALL.sampled)}
    assert 0 < first <= last
    assert others == {0}


def test_the_times_of_a_schedule_are_in_the_bodies() -> None:
    asked = Work(guarantee=Guarantee.AT_MOST_ONCE, messages=1, sizes=(16,), rate=1.0)
    data = sent(Ring(asked, 0, framed), 3, stamps=[100, 200, 300])
    arrivals = Arrivals(asked, 0)
    arrivals.now_ns = 1100
    arrivals.column(data, 1, 18, 3)
    found = percentiles([arrivals.latencies.encoded()])
    assert found is not None
    assert (found.count, found.max_us) == (3, 1.0)


def test_every_topic_gets_every_size_in_turn() -> None:
    sizes = (16, 64, 256)
    asked = Work(guarantee=Guarantee.AT_MOST_ONCE, messages=1, topics=3, sizes=sizes)
    found: dict[str, set[int]] = {}
    for topic, body in bodies(asked, 0):
        found.setdefault(topic, set()).add(len(body))
    assert list(found.values()) == [set(sizes)] * 3
    assert [topic for topic, _ in bodies(asked, 0)[:4]] == [
        asked.topic(number) for number in (0, 1, 2, 0)
    ]


def test_all_topics_are_sampled() -> None:
    asked = Work(guarantee=Guarantee.AT_MOST_ONCE, messages=1, topics=3)
    assert stamped(asked, 0)[:4] == [0, 1, 2, 3 * asked.sampled]
