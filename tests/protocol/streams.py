"""Byte streams as clients might send them, and ways to cut them and to read them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import cycle

from hypothesis import strategies as st

from blipmq.errors import FramingError
from blipmq.protocol import encoder
from blipmq.protocol.decoder import Decoder, Item
from blipmq.protocol.frames import PUBLISH, TYPES, TYPES_V2
from blipmq.protocol.run import Run
from tests.protocol.reference import property_bytes

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
alternating = st.lists(
    st.builds(encoder.publish, correlation_ids, st.just(0), topics, bodies), max_size=30
).map(b"".join)
"""QoS 0 messages whose topics take turns."""
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
    st.one_of(equal_frames(), messages, alternating, malformed_messages, other_frames), max_size=12
).map(b"".join)


# Version 2

_durations = st.sampled_from([bytes(8), bytes(7) + b"\x05", (2**53).to_bytes(8, "big")])
_VALUES: dict[int, st.SearchStrategy[bytes]] = {
    1: _durations,
    2: _durations,
    3: st.sampled_from([b"m", b"n", b"message id", b"m" * 128]),
    4: st.sampled_from([b"", b"k", b"l", b"k" * 1024]),
    5: st.just(b"reply"),
    6: st.sampled_from([b"", b"text", "täxt".encode()]),
    7: st.sampled_from([b"00-1", b"00-2", "ü".encode()]),
    8: st.sampled_from([b"\0", b"\1n", b"\1nvalue", b"\1nother"]),
    9: st.sampled_from([bytes(8), bytes(7) + b"\1"]),
    64: st.binary(max_size=3),
}
_wrong_values = st.sampled_from(
    [
        (1, bytes(7)),
        (2, (2**53 + 1).to_bytes(8, "big")),
        (3, b""),
        (3, bytes(129)),
        (5, b"\xff"),
        (7, b"\xff"),
        (8, b"\x02n"),
        (16, b"\0\2"),
        (63, b""),
    ]
)
_values = st.sampled_from(sorted(_VALUES)).flatmap(
    lambda id_: st.tuples(st.just(id_), _VALUES[id_])
)


def _encoded(values: list[tuple[int, bytes]]) -> bytes:
    return b"".join(property_bytes(*value) for value in values)


properties = st.lists(_values, max_size=4, unique_by=lambda value: value[0]).map(_encoded)
odd_properties = st.one_of(
    st.lists(_values | _wrong_values, max_size=4).map(_encoded),
    st.binary(max_size=9),
)
"""Many of them malformed."""

property_messages = st.builds(
    encoder.message, correlation_ids, qualities, topics, properties | odd_properties, bodies
)


@st.composite
def equal_property_messages(draw: st.DrawFn) -> bytes:
    """Messages of one topic, QoS and size, enough of them to be compared column by column.

    One or two properties vary, among values of one size; sometimes one that is odd is among them.
    """
    topic = draw(st.sampled_from(TOPICS[:-1]))
    qos = draw(st.sampled_from([0, 1, 1, 1]))
    shapes = [
        [(3, b"id%04d"), (7, b"00-%07d")],
        [(3, b"id%04d")],
        [(1, bytes(7) + b"\5"), (3, b"id%04d"), (4, b"key%03d")],
        [(4, b"key%03d"), (9, b"%08d")],
        [(8, b"\1n%03d"), (8, b"\2nn%03d"), (7, b"%03d")],
        [(2, bytes(7) + b"\5"), (6, b"text")],
        [(5, b"reply"), (64, b"%03d")],
        [(64, b"any")],
        [],
    ]
    shape = draw(st.sampled_from(shapes))
    count = draw(st.integers(1, 300))
    modulus = draw(st.sampled_from([1, 2, 1000]))
    frames = []
    for i in range(count):
        values = [(id_, v % (i % modulus) if b"%" in v else v) for id_, v in shape]
        frames.append(bytearray(encoder.message(i, qos, topic, _encoded(values), b"body")))
    if draw(st.booleans()):
        odd = draw(st.integers(0, count - 1))
        place = draw(st.integers(13, len(frames[0]) - 1))
        frames[odd][place] = draw(st.sampled_from([0, 1, 3, 4, 0x20, 0xC3, 0xFF]))
    return b"".join(frames)


v2_frames = st.builds(
    encoder.frame,
    st.sampled_from(sorted(set(TYPES_V2) - {PUBLISH})),
    correlation_ids,
    st.binary(max_size=40),
)
streams_v2 = st.lists(
    st.one_of(
        equal_frames(most=60),
        equal_property_messages(),
        messages,
        alternating,
        property_messages,
        malformed_messages,
        v2_frames,
    ),
    max_size=12,
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


def _by_release(decoder: Decoder, data: bytes) -> None:
    """The buffer is given back before each read, and others write to it if they get it."""
    decoder.release()
    if not decoder.allocated:
        room = decoder.room()
        room[:] = b"\xff" * len(room)
        decoder.release()
    room = decoder.room(len(data))
    if len(room) < len(data):
        _by_room(decoder, data)
        return
    room[: len(data)] = data
    decoder.filled(len(data))


ways = st.sampled_from([_by_feed, _by_room, _by_release])
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


def drain(decoder: Decoder) -> Iterator[Item]:
    """Everything that can be made of what was received so far."""
    while (item := decoder.next()) is not None:
        yield item


def decode(
    decoder: Decoder,
    pieces: Iterable[bytes],
    put: Callable[[Decoder, bytes], None] = _by_feed,
) -> tuple[list[Item], bool]:
    """What a decoder makes of the pieces, and whether a framing error ended it."""
    items: list[Item] = []
    try:
        for piece in pieces:
            put(decoder, piece)
            items.extend(drain(decoder))
    except FramingError:
        return items, True
    return items, False


def decoder_v2(properties_max: int = 65_535) -> Decoder:
    decoder = Decoder()
    decoder.version = 2
    decoder.properties_max = properties_max
    return decoder


def decode_run(*frames: bytes) -> Run:
    """The one run that these frames make when they come in one read."""
    decoder = decoder_v2()
    decoder.feed(b"".join(frames))
    (run,) = drain(decoder)
    assert isinstance(run, Run)
    return run
