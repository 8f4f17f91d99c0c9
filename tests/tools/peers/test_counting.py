"""What arrives is compared with what must come: a message that is lost or doubled is found out."""

from __future__ import annotations

import pytest

from tools.bench.load.arrivals import Arrivals
from tools.bench.load.body import STAMP
from tools.bench.load.ring import bodies, stamped
from tools.bench.load.wire import Refused
from tools.bench.load.work import Guarantee, Miscounted, Work
from tools.bench.peers.counting import Expected, Lap, Strides

ASK = b"ASK\r\n"
SIZES = (16, 40, 300)


def delivered(topic: bytes, body: bytes) -> bytes:
    return b"ARRIVES %b %d\r\n%b" % (topic, len(body), body)


def work(*, topics: int = 3, sizes: tuple[int, ...] = SIZES) -> Work:
    return Work(guarantee=Guarantee.AT_MOST_ONCE, messages=1, topics=topics, sizes=sizes)


def frames(of: Work, stamp: int = 77) -> list[bytes]:
    """Two rounds of the ring as they come, with time stamps."""
    with_stamp = set(stamped(of, 0))
    found = []
    for at, (topic, body) in enumerate(bodies(of, 0)):
        content = STAMP.pack(stamp) + body[STAMP.size :] if at in with_stamp else body
        found.append(delivered(topic.encode(), content))
    return found * 2


def take(expected: Expected, arrivals: Arrivals, data: bytes, piece_bytes: int) -> None:
    """Hand it on in pieces; what is left over comes again before the next."""
    rest = b""
    for at in range(0, len(data), piece_bytes):
        buffer = bytearray(rest + data[at : at + piece_bytes])
        taken = expected.take(buffer, 0, len(buffer), arrivals)
        rest = bytes(buffer[taken:])
    assert not rest


@pytest.mark.parametrize("piece_bytes", [1, 7, 1000, 65_536, 10_000_000])
def test_messages_of_mixed_sizes_and_topics_are_counted_however_they_are_cut(
    piece_bytes: int,
) -> None:
    of = work()
    came = frames(of) if piece_bytes > 7 else frames(of)[:300]
    arrivals = Arrivals(of, 0)
    take(Expected(Lap.of(of, 0, delivered)), arrivals, b"".join(came), piece_bytes)
    assert arrivals.received == len(came)


def test_a_message_counts_only_when_it_is_whole() -> None:
    of = work()
    expected, arrivals = Expected(Lap.of(of, 0, delivered)), Arrivals(of, 0)
    data = bytearray(b"".join(frames(of)[:10])[:-1])
    expected.take(data, 0, len(data), arrivals)
    assert arrivals.received == 9


def test_the_time_of_stamped_messages_is_gathered() -> None:
    of = work()
    expected, arrivals = Expected(Lap.of(of, 0, delivered)), Arrivals(of, 0)
    arrivals.now_ns = 1077
    came = frames(of, stamp=77)
    take(expected, arrivals, b"".join(came), 100)
    found = arrivals.latencies.encoded()
    other = Arrivals(of, 0).latencies
    other.add(1000, 2 * len(stamped(of, 0)))
    assert found == other.encoded()


@pytest.mark.parametrize("fault", ["lost", "doubled", "swapped", "changed"])
def test_a_fault_in_one_message_is_found(fault: str) -> None:
    of = work()
    came = frames(of)
    if fault == "lost":
        del came[500]
    elif fault == "doubled":
        came.insert(500, came[500])
    elif fault == "swapped":
        came[500], came[501] = came[501], came[500]
    else:
        came[500] = came[500][:-1] + b"x"
    with pytest.raises(Miscounted, match=r"after 50[01] messages"):
        take(Expected(Lap.of(of, 0, delivered)), Arrivals(of, 0), b"".join(came), 65_536)


@pytest.mark.parametrize("piece_bytes", [1, 3, 65_536])
def test_an_interruption_between_messages_is_told_apart(piece_bytes: int) -> None:
    of = work()
    came = frames(of)[:40]
    came.insert(20, ASK)
    expected, arrivals = Expected(Lap.of(of, 0, delivered), (ASK,)), Arrivals(of, 0)
    take(expected, arrivals, b"".join([*came, ASK]), piece_bytes)
    assert (arrivals.received, expected.interruptions) == (40, [ASK, ASK])


def test_what_is_neither_a_message_nor_an_interruption_is_an_error() -> None:
    of = work()
    expected, arrivals = Expected(Lap.of(of, 0, delivered), (ASK,)), Arrivals(of, 0)
    with pytest.raises(Miscounted):
        take(expected, arrivals, b"".join([*frames(of)[:5], b"-ERR no\r\n"]), 65_536)


def test_a_subscriber_expects_its_own_topics_alone() -> None:
    of = Work(guarantee=Guarantee.AT_MOST_ONCE, messages=1, subscribers=2, topics=2)
    lap = Lap.of(of, 1, delivered)
    assert of.topic(1).encode() in lap.frames
    assert of.topic(0).encode() not in lap.frames


def test_several_publishers_for_one_subscriber_are_refused() -> None:
    of = Work(guarantee=Guarantee.AT_MOST_ONCE, messages=1, publishers=2)
    with pytest.raises(Refused):
        Lap.of(of, 0, delivered)


def test_equal_frames_are_counted_up_to_one_of_another_kind() -> None:
    of = work(topics=1, sizes=(64,))
    came = frames(of)[:100]
    data = bytearray(b"".join(came) + b"Z" * 500)
    arrivals = Arrivals(of, 0)
    taken = Strides(came[1], len(came[1]) - 64).take(data, 0, len(data), arrivals)
    assert (taken, arrivals.received) == (len(data) - 500, 100)


def test_a_lost_one_of_equal_frames_is_found() -> None:
    of = work(topics=1, sizes=(64,))
    came = frames(of)[:100]
    del came[50]
    data = bytearray(b"".join(came))
    with pytest.raises(Miscounted, match="after 50 messages"):
        Strides(came[1], len(came[1]) - 64).take(data, 0, len(data), Arrivals(of, 0))
