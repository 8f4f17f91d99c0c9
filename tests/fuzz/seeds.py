"""The inputs that the corpus began with: `python -m tests.fuzz.seeds` writes them.

They are made of recorded exchanges and of what the encoder says, so that a fuzzer begins where
something happens. What was found since stands beside them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from blipmq.protocol import encoder
from blipmq.protocol.attach_properties import (
    AttachProperties,
    Start,
    StartKind,
    encode_attach_properties,
)
from blipmq.protocol.frames import (
    HEADER_BYTES,
    TYPES_V2,
)
from blipmq.protocol.properties import DeadLetter, MessageProperties, encode_message_properties
from tests.fuzz.http import METHODS, PATHS
from tests.fuzz.targets import corpus, keep
from tests.fuzz.tracing import SAMPLED
from tests.fuzz.websocket import HANDSHAKE
from tests.golden.player import scenarios

COMMIT, FAIL, PASS_TIME, RESTART, LEAVE = 0x30, 0x34, 0x36, 0x3A, 0x3B
_PLACES = {type_: place for place, type_ in enumerate(sorted(TYPES_V2))}
_MESSAGES = [
    MessageProperties(),
    MessageProperties(ttl_ms=50, key=b"k", headers=(("n", b"v"), ("m", b""))),
    MessageProperties(delay_ms=100, message_id=b"id", reply_to=b"r"),
    MessageProperties(content_type="text", trace_context="00-1", timestamp_ms=1),
]
_ATTACHMENTS = [
    AttachProperties(prefetch=2),
    AttachProperties(name=b"n", prefetch=3, ack_wait_ms=100, max_attempts=2),
    AttachProperties(pattern=True, prefetch=9, start=Start(StartKind.EARLIEST)),
    AttachProperties(name=b"n", start=Start(StartKind.TAG, 1)),
]


def recorded() -> Iterator[bytes]:
    """What clients of version 1 sent in each of the recorded exchanges."""
    for scenario in scenarios():
        sent = "".join(step.send for step in scenario.steps if "<" not in step.send)
        data = bytes.fromhex(sent)
        if 0 < len(data) <= 2_000:
            yield data


def version_2_frames() -> list[bytes]:
    """What an authenticated client may send, in an order in which it comes to something."""
    frames = [encoder.attach(1, b"t", 1, encode_attach_properties(p)) for p in _ATTACHMENTS]
    frames += [
        encoder.message(2 + i, 1, b"t", encode_message_properties(p), b"body")
        for i, p in enumerate(_MESSAGES)
    ]
    frames += [encoder.publish(9 + i, i % 2, b"tu"[i % 2 :], b"x" * i) for i in range(9)]
    frames += [encoder.subscribe(30, b"t", 1), encoder.poll(31, 9), encoder.ack(3, 9)]
    frames += [encoder.settle(1, [(outcome, 1, 9, 0)]) for outcome in range(5)]
    return [*frames, encoder.detach(40, 1, delete=True), encoder.ping(41)]


def _decoding() -> Iterator[bytes]:
    for stream in (
        *recorded(),
        b"".join(version_2_frames()),
        encoder.publish(1, 1, b"t", b"x") * 20,
    ):
        for flags in (0, 1, 0x15):
            yield bytes((flags, 1, 0, 6, 0xFF, 0xFF)) + stream


def _properties() -> Iterator[bytes]:
    yield from (b"\0" + encode_message_properties(properties) for properties in _MESSAGES)
    letter = DeadLetter("rejected", b"t", 7, b"n")
    dead = MessageProperties(attempt=3, dead_letter=letter)
    yield b"\1" + encode_message_properties(dead)
    yield from (b"\2" + encode_attach_properties(properties) for properties in _ATTACHMENTS)
    yield from (b"\3" + frame[HEADER_BYTES:] for frame in version_2_frames())


def step(frame: bytes, client: int = 0) -> bytes:
    """A frame as a step of a session."""
    payload = frame[HEADER_BYTES:]
    return bytes((_PLACES[frame[4]] | client << 6, frame[12], len(payload))) + payload


def _raw(data: bytes, client: int = 0) -> Iterator[bytes]:
    for at in range(0, len(data), 200):
        piece = data[at : at + 200]
        yield bytes((0x20 | client << 6, len(piece))) + piece


def _session() -> Iterator[bytes]:
    for data in recorded():
        for flags in (0, 1):
            yield bytes((flags, *b"".join((*_raw(data), bytes((COMMIT,))))))
    steps = [step(frame, i % 3) for i, frame in enumerate(version_2_frames())]
    often = [part for each in steps for part in (each, bytes((COMMIT,)))]
    waits = [part for each in steps for part in (each, bytes((PASS_TIME, 0, 20)))]
    for flags in (0b1110110, 0b1110111, 0b0101111, 0b0001011):
        head = bytes((flags,))
        yield head + b"".join(steps)
        yield head + b"".join(often)
        yield head + b"".join(waits)
        yield head + b"".join([*often, bytes((RESTART, 3)), *often, bytes((RESTART, 6)), *waits])
        yield head + b"".join([*steps, bytes((FAIL,)), bytes((LEAVE, 2)), *steps])
        yield head + _exchange([1, 2, 3]) + _exchange([4, 5, 6])


def _exchange(tags: Sequence[int]) -> bytes:
    """A named subscription, messages and their settlement, by two members."""
    named = encode_attach_properties(AttachProperties(name=b"n", prefetch=2))
    steps = [step(encoder.attach(1, b"t", 1, named), client) for client in (0, 1)]
    steps += [step(encoder.publish(tag, 1, b"t", b"x" * 100), 2) for tag in tags]
    steps.append(bytes((COMMIT,)))
    for subscription in range(1, 6):
        for client in (0, 1):
            rows = [(tag % 5, tag, tag, 10) for tag in tags]
            steps.append(step(encoder.settle(subscription, rows), client))
    return b"".join(steps)


def _recovery() -> Iterator[bytes]:
    for segment in range(3):
        for kind in range(10):
            for at in (b"\0\4", b"\0\x30", b"\1\x20"):
                yield bytes((segment, kind)) + at + b"\4\1\2\3\4"
    for cut in range(40, 400, 40):
        yield bytes((1, 3, *cut.to_bytes(2, "big"), 0))
    yield bytes((0, 9, 0, 0, 1, 12, 1, 9, 0, 1, 2, 6, 1))


def _repair() -> Iterator[bytes]:
    opened, published, settled = b"\5\0\1", b"\0\0\3\x5e", b"\7\1\1\1\2\2"
    rolled, moved, synced, restarted = b"\x0e\0\1", b"\x0a\0\1\2\x41", b"\x0d\0", b"\x0f\0"
    segment = [opened, published, moved, synced, published, settled, published]
    steps = [*segment, rolled, *segment, restarted, *segment]
    log = b"\0" + bytes((len(steps),)) + b"".join(steps)
    for kind in range(12):
        for which in (0, 1, 5, 2):
            one = bytes((kind, which)) + b"\x60\0\x40"
            yield log + b"\0" + one
            yield log + b"\2" + one + bytes((kind * 5 % 12, 1)) + b"\x20\0\xff\0\2\x10\0\1"
            yield log + b"\0" + one + log + b"\2"


def _config() -> Iterator[bytes]:
    toml = b'port = 1\nwal_path = "w"\n[limits]\nmax_topics = 5\n[wal]\nsegment_bytes = 65536\n'
    yaml = b"port: 1\nallowed_api_keys: [a, b]\nlimits: {max_topics: 5}\nwal:\n  reserve_bytes: 0\n"
    yield b"\0" + toml
    yield b"\1" + yaml
    yield b"\1a: &a [1]\nb: *a\n<<: {c: 1}\n? x\n: 2001-01-01\n"
    for text in (b"!!int ''", b"!!bool 7", b"!!timestamp 7", b"!!float ''", b"!!set {a}", b".inf"):
        yield b"\1port: " + text
    for text in (b'wal_path: "\\ud800"', b"limits: {max_topics: 0x" + b"f" * 40 + b"}"):
        yield b"\1" + text
    yield b'\0[tracing]\nendpoint = "http://["'
    for variable in range(8):
        yield bytes((0x80, variable, 1)) + b"7" + toml


def _tracing() -> Iterator[bytes]:
    for kind in range(0, 256, 37):
        yield bytes((kind, 3)) + b"abc" + bytes((1, 4)) + b"abcd" + bytes((6, 20, 0x30, 0))
        yield bytes((3, 55)) + SAMPLED.encode() + bytes((kind, 1, 2, 0x41))


def _http() -> Iterator[bytes]:
    paths = [(path, b"\1" * ("{}" in PATHS[path])) for path in range(len(PATHS))]
    for method in range(len(METHODS)):
        for asked in (b"\0", b"\1\0\0", b"\2\4\3\x10\1"):
            plain = [bytes((method, path)) + id_ + asked for path, id_ in paths]
            yield b"".join(each + b"\0\0" for each in plain)
            yield b"".join(each + b"\2\0\0\1\1\0" for each in plain)
    yield b"\xc0\0\7/api/\xff\0\3a=%\0\0"
    yield b"\x21\x0a\0\4[[[[\0"


def _websocket() -> Iterator[bytes]:
    greeted = b"\x82\x40"
    for head in (0x82, 0x81, 0x02, 0x80, 0x88, 0x89, 0x8A, 0xC2, 0x8F):
        for how in (0, 4, 8, 0x10, 0x20, 0x80):
            one = bytes((head, how, 2, 3, 0xE8)) + b"\7" * (how == 0x20)
            yield b"\0\2" + greeted + one + b"\x0c\1" + one
    for at in range(0, len(HANDSHAKE), 10):
        yield bytes((1, at, 2, 2)) + b"\xff:\1" + greeted


def main() -> None:
    """Add them to what is kept."""
    made = {
        "decoding": _decoding(),
        "properties": _properties(),
        "session": _session(),
        "recovery": _recovery(),
        "repair": _repair(),
        "config": _config(),
        "tracing": _tracing(),
        "http": _http(),
        "websocket": _websocket(),
    }
    for target, inputs in made.items():
        keep(target, [*corpus(target), *inputs])


if __name__ == "__main__":
    main()
