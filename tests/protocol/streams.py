"""Byte streams as clients might send them, and ways to cut them and to read them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import cycle

from hypothesis import strategies as st

from blipmq.errors import FramingError
from blipmq.protocol import encoder
from blipmq.protocol.decoder import Decoder
from blipmq.protocol.frames import PUBLISH, TYPES, Frame
from blipmq.protocol.run import Run

MAXIMAL_TOPIC = "ü".encode() * 32_767 + b"x"
TOPICS = [b"t", b"u", b"topic/with/levels", "täglich".encode(), MAXIMAL_TOPIC]

correlation_ids = st.integers(0, 2**64 - 1)
_READS_MAX = 1_000

topics = st.sampled_from(TOPICS)
qualities = st.integers(0, 1)
bodies = st.one_of(st.just(b""), st.binary(max_size=40), st.integers(0, 5_000).map(bytes))


@st.composite
def equal_frames(draw: st.DrawFn, most: int = 300) -> bytes:
    """Messages of one topic, QoS and size, enough of them to be compared column by column."""
    topic, qos = draw(topics), draw(qualities)
    body = draw(st.binary(max_size=30))
    count = draw(st.integers(1, 3 if topic is MAXIMAL_TOPIC else most))
    first = draw(correlation_ids)
    return b"".join(
        encoder.publish((first + i) % 2**64, qos, topic, body[i % 7 :] + body[: i % 7])
        for i in range(count)
    )


messages = st.builds(encoder.publish, correlation_ids, qualities, topics, bodies)
malformed_messages = st.builds(
    encoder.frame,
    st.just(PUBLISH),
    correlation_ids,
    st.one_of(
        st.binary(max_size=12),
        st.binary(max_size=9).map(lambda body: b"\0\0\0" + body),
        st.binary(max_size=9).map(lambda body: b"\x02\0\1t" + body),
        st.binary(max_size=9).map(lambda body: b"\1\0\1\xff" + body),
        st.binary(max_size=9).map(lambda body: b"\0\0\x0a" + body),
    ),
)
other_frames = st.builds(
    encoder.frame,
    st.sampled_from(sorted(set(TYPES) - {PUBLISH})),
    correlation_ids,
    st.binary(max_size=40),
)
streams = st.lists(
    st.one_of(equal_frames(), messages, malformed_messages, other_frames), max_size=12
).map(b"".join)

read_sizes = st.one_of(
    st.just([1]),
    st.lists(st.integers(1, 100), min_size=1, max_size=10),
    st.lists(st.integers(1, 8_000), min_size=1, max_size=10),
    st.lists(st.integers(10_000, 200_000), min_size=1, max_size=4),
)
"""How many bytes come with each read, over and over."""


def _by_feed(decoder: Decoder, data: bytes) -> None:
    decoder.feed(data)


def _by_room(decoder: Decoder, data: bytes) -> None:
    while data:
        room = decoder.room()
        assert len(room) >= 1024
        count = min(len(room), len(data))
        room[:count] = data[:count]
        decoder.filled(count)
        data = data[count:]


ways = st.sampled_from([_by_feed, _by_room])
"""How received bytes come into a decoder."""


def cut(data: bytes, sizes: list[int]) -> Iterator[bytes]:
    """The data in reads of these sizes; of some multiple of them where that were too many."""
    few_enough = 1 + len(data) * len(sizes) // (_READS_MAX * sum(sizes))
    at = 0
    for size in cycle(sizes):
        if at >= len(data):
            return
        yield data[at : at + size * few_enough]
        at += size * few_enough


def drain(decoder: Decoder) -> Iterator[Run | Frame]:
    """Everything that can be made of what was received so far."""
    while (item := decoder.next()) is not None:
        yield item


def decode(
    decoder: Decoder,
    pieces: Iterable[bytes],
    put: Callable[[Decoder, bytes], None] = _by_feed,
) -> tuple[list[Run | Frame], bool]:
    """What a decoder makes of the pieces, and whether a framing error ended it."""
    items: list[Run | Frame] = []
    try:
        for piece in pieces:
            put(decoder, piece)
            items.extend(drain(decoder))
    except FramingError:
        return items, True
    return items, False


def decode_run(*frames: bytes) -> Run:
    """The one run that these frames make when they come in one read."""
    decoder = Decoder()
    decoder.feed(b"".join(frames))
    (run,) = drain(decoder)
    assert isinstance(run, Run)
    return run
