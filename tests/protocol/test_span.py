from __future__ import annotations

from blipmq.protocol import encoder
from blipmq.protocol.span import Span
from tests.protocol.reference import read_run, read_span
from tests.protocol.streams import decoder_v2, drain


def span_of(*frames: bytes) -> Span:
    decoder = decoder_v2()
    decoder.feed(b"".join(frames))
    (span,) = drain(decoder)
    assert isinstance(span, Span)
    return span


def messages(count: int) -> list[bytes]:
    return [encoder.publish(100 + i, 0, b"t%d" % (i % 3), bytes(i)) for i in range(count)]


def test_stamping_numbers_every_message_where_its_correlation_id_was() -> None:
    span = span_of(*messages(10))

    span.stamp(2**40)

    assert span.first == 2**40
    assert list(span.correlation_ids()) == list(range(2**40, 2**40 + 10))
    assert [message.payload for message in read_span(span)] == [
        message.payload for message in read_span(span_of(*messages(10)))
    ]


def test_some_messages_are_a_span_of_their_own_that_shares_nothing() -> None:
    span = span_of(*messages(10))

    some = span.some([1, 2, 7])
    some.stamp(1)

    assert list(some.topics) == [b"t1", b"t2", b"t1"]
    assert [message.correlation_id for message in read_span(some)] == [1, 2, 3]
    assert list(span.correlation_ids()) == list(range(100, 110))


def test_runs_have_the_messages_of_each_topic_in_their_order() -> None:
    span = span_of(*messages(10))

    runs = span.runs()

    assert [run.topic for run in runs] == [b"t0", b"t1", b"t2"]
    assert [[m.correlation_id for m in read_run(run)] for run in runs] == [
        [100, 103, 106, 109],
        [101, 104, 107],
        [102, 105, 108],
    ]


def test_runs_can_be_had_of_some_messages_alone() -> None:
    runs = span_of(*messages(10)).runs([2, 4, 5])

    assert [(run.topic, list(run.correlation_ids())) for run in runs] == [
        (b"t2", [102, 105]),
        (b"t1", [104]),
    ]
