"""Redis as the load engine speaks to it, byte for byte and without a server."""

from __future__ import annotations

import pytest

from tools.bench.load.arrivals import Arrivals
from tools.bench.load.body import body
from tools.bench.load.wire import Refused
from tools.bench.load.work import Guarantee, Miscounted, Work
from tools.bench.peers.redis_pubsub import PubSubPublisher, PubSubSubscriber
from tools.bench.peers.redis_streams import StreamPublisher, StreamSubscriber
from tools.bench.peers.redis_wire import bulk, command

PUBSUB = Work(guarantee=Guarantee.AT_MOST_ONCE, messages=1, sizes=(16,), topic_prefix="bench")
STREAM = Work(guarantee=Guarantee.AT_LEAST_ONCE, messages=1, sizes=(16,), topic_prefix="bench")


def entry_id(number: int) -> bytes:
    return b"1700000000000-%d" % number


def reply(*numbers: int) -> bytes:
    """What XREADGROUP answers."""
    entries = [
        b"*2\r\n" + bulk(entry_id(number)) + command(b"b", body(16, 0, number))
        for number in numbers
    ]
    return b"*1\r\n*2\r\n" + bulk(b"bench.0") + b"*%d\r\n" % len(entries) + b"".join(entries)


def test_a_publish_is_a_request_of_three_strings() -> None:
    before, after = PubSubPublisher().enclose(0, "bench.0", 2)
    assert before + b"ab" + after == command(b"PUBLISH", b"bench.0", b"ab")


def test_an_entry_is_added_with_one_field() -> None:
    before, after = StreamPublisher().enclose(0, "bench.0", 2)
    assert before + b"ab" + after == command(b"XADD", b"bench.0", b"*", b"b", b"ab")


@pytest.mark.parametrize("data", [b"-OOM no memory\r\n", b":1\r\n-OOM no memory\r\n"])
def test_an_error_among_the_answers_is_refused(data: bytes) -> None:
    with pytest.raises(Refused, match="OOM no memory"):
        PubSubPublisher().confirmed(data)


def test_an_id_with_a_minus_is_no_error() -> None:
    publisher = StreamPublisher()
    assert publisher.confirmed(bulk(entry_id(0)) + bulk(entry_id(1))[:-1]) == (27, 1)


@pytest.mark.parametrize("piece_bytes", [1, 11, 1000])
def test_ids_confirm_however_they_are_cut(piece_bytes: int) -> None:
    publisher = StreamPublisher()
    data = b"".join(bulk(entry_id(number)) for number in range(95, 105))
    rest, total = b"", 0
    for at in range(0, len(data), piece_bytes):
        rest += data[at : at + piece_bytes]
        taken, confirmed = publisher.confirmed(rest)
        rest, total = rest[taken:], total + confirmed
    assert (total, rest) == (10, b"")


def test_messages_are_counted_up_to_the_answer_to_the_barrier() -> None:
    subscriber, arrivals = PubSubSubscriber(PUBSUB, 0), Arrivals(PUBSUB, 0)
    assert subscriber.barrier() == command(b"PING")
    came = [command(b"message", b"bench.0", body(16, 0, number)) for number in (0, 1)]
    data = bytearray(b"".join(came) + command(b"pong", b""))
    assert subscriber.take(data, 0, len(data), arrivals) == len(data)
    assert (arrivals.received, subscriber.settled) == (2, True)


@pytest.mark.parametrize("piece_bytes", [1, 50, 1000])
def test_a_reply_is_acknowledged_as_a_whole_with_the_next_request(piece_bytes: int) -> None:
    subscriber, arrivals = StreamSubscriber(STREAM, 0), Arrivals(STREAM, 0)
    request = subscriber.begin()
    data = reply(0, 1, 2)
    rest, answers = b"", b""
    for at in range(0, len(data), piece_bytes):
        assert answers == b""
        buffer = bytearray(rest + data[at : at + piece_bytes])
        rest = bytes(buffer[subscriber.take(buffer, 0, len(buffer), arrivals) :])
        answers += subscriber.answer()
    acks = command(b"XACK", b"bench.0", b"group0", *(entry_id(number) for number in range(3)))
    assert (arrivals.received, answers) == (3, acks + request)
    assert not subscriber.settled


def test_entries_are_settled_when_the_server_has_acknowledged_them_all() -> None:
    subscriber, arrivals = StreamSubscriber(STREAM, 0), Arrivals(STREAM, 0)
    data = bytearray(reply(0, 1, 2) + b":3\r\n")
    assert subscriber.take(data, 0, len(data), arrivals) == len(data)
    assert subscriber.settled


def test_an_entry_that_comes_twice_is_found() -> None:
    data = bytearray(reply(0, 0))
    with pytest.raises(Miscounted):
        StreamSubscriber(STREAM, 0).take(data, 0, len(data), Arrivals(STREAM, 0))


def test_an_error_instead_of_a_reply_is_refused() -> None:
    data = bytearray(b"-NOGROUP no such key\r\n")
    with pytest.raises(Refused, match="NOGROUP"):
        StreamSubscriber(STREAM, 0).take(data, 0, len(data), Arrivals(STREAM, 0))
