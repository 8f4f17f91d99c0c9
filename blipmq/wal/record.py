"""What a record of the log is, in bytes, and the facts that records hold.

A segment is a file: a header of 32 bytes, then records end to end, then nothing or zeros.
All integers of the format are little-endian, but for the frames inside a run, which are kept as
they are on the wire.

Segment header:

    8 bytes  magic "BLIPWAL" NUL
    u32      format version, 2
    u32      salt: what the checksums of this segment start from
    u64      sequence number of the segment; the file is named after it
    u32      reserved, 0
    u32      CRC32 of the 28 bytes before

Record:

    u64      id: the number of the first message of a run; of every other kind, the next number
             that the broker was about to give out
    u32      length of the payload
    u32      CRC32, started from the salt, of id, length and payload
    payload: u8 kind, the fact, and a last byte 0xFF

The last byte of a record that was written in part is zero or missing, so an incomplete record
is told from one that was damaged. The salt keeps a message from looking like a record.

Facts, by kind:

    1 run           u64 ms since the epoch, u16 n, n bytes of topic, u32 count, the frames
    2 settled       one or more of: u64 subscription, u64 first number, u64 last number
    3 opened        one older subscription; read, no longer written
    4 closed        u64 subscription, u64 next number
    5 checkpoint    u64 reserved number, u32 n, n times u64 segment, u32 n, n older
                    subscriptions, u32 n, n times kept; read, no longer written
    6 attempted     u64 subscription, u64 first number, u64 last number, u16 attempts
    7 synced        u64 segment, u64 size: so much of that segment outlives a power cut
    8 moved         u64 subscription, u64 first number, u64 last number, then as a run
   10 opened        one subscription
   11 checkpoint    u64 reserved number, u32 n, n times: u64 segment, u32 its salt,
                    u32 n, n subscriptions, u32 n, n times kept, u32 n, n times seen
   12 continued     u64 next segment, u32 its salt; the last record of a segment

    subscription    u8 flags (1 shared, 2 pattern), u64 id, u64 parent, u64 cursor,
                    u64 ack wait in ms, u32 attempts at most, u8 n, n bytes of owner,
                    u16 n, n bytes of topic, u16 n, n bytes of name,
                    u32 n, n times: u64 first, u64 last, u16 attempts
    older           u64 id, u64 cursor, u8 n, n bytes of owner, u16 n, n bytes of topic,
                    u32 n, n times: u64 first, u64 last, u16 attempts
    kept            u16 n, n bytes of topic, u64 first number
    seen            u16 n, n bytes of topic, u32 n, n times: u64 ms since the epoch,
                    u16 n, n bytes of message id

The id of a moved record is the number of its run's first message. A run of the topic "" holds
delayed messages, whose frames name the topics that they are for.

A subscription has settled every number before its cursor but for those listed. A checkpoint is
the first record of every segment and holds all there is to know but for the messages, so what
came before counts only for the runs in it. Facts may be repeated: each says what is so, not what
changes.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import Final

import attrs

from blipmq.errors import LogError

MAGIC: Final = b"BLIPWAL\0"
FORMAT_VERSION: Final = 2
SEGMENT_HEADER: Final = struct.Struct("<8sIIQI")
SEGMENT_HEADER_BYTES: Final = SEGMENT_HEADER.size + 4
RECORD_HEADER: Final = struct.Struct("<QII")
RECORD_HEADER_BYTES: Final = RECORD_HEADER.size
END_MARK: Final = b"\xff"
PAYLOAD_MIN: Final = 2

RUN: Final = 1
SETTLED: Final = 2
OPENED_1: Final = 3
CLOSED: Final = 4
CHECKPOINT_1: Final = 5
ATTEMPTED: Final = 6
SYNCED: Final = 7
MOVED: Final = 8
OPENED: Final = 10
CHECKPOINT: Final = 11
CONTINUED: Final = 12

TOPIC_AT: Final = 1 + 8
"""Where in the payload of a run the length of its topic stands, with the topic behind it."""
MOVED_TOPIC_AT: Final = TOPIC_AT + 3 * 8
"""The same in the payload of a moved one."""

DELAYED_TOPIC: Final = b""
"""The topic under which messages are logged that are published later."""
DELAYED_ID: Final = 0
"""The subscription of that topic, which has settled those that were published."""

_SHARED: Final = 1
_PATTERN: Final = 2

_ID_AND_LENGTH = struct.Struct("<QI")
_RUN = struct.Struct("<QH")
_U16 = struct.Struct("<H")
_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")
_OLDER_SUBSCRIPTION = struct.Struct("<QQB")
_SUBSCRIPTION = struct.Struct("<BQQQQIB")
_RANGE = struct.Struct("<QQH")
_ATTEMPTED = struct.Struct("<QQQH")
_CLOSED = struct.Struct("<QQ")
_SYNCED = struct.Struct("<QQ")
_SETTLED = struct.Struct("<QQQ")
_SEGMENT = struct.Struct("<QI")

CONTINUED_BYTES: Final = RECORD_HEADER_BYTES + 1 + _SEGMENT.size + len(END_MARK)

Bytes = bytes | bytearray | memoryview


@attrs.frozen
class UnsettledRange:
    """Numbers first to last, not settled; `attempts` is how often they were delivered."""

    first: int
    last: int
    attempts: int = 0


@attrs.frozen
class SubscriptionState:
    """A subscription: what outlives the daemon of it.

    `shared` is one of version 2; without a `name` it ends with the daemon. A `pattern` has the
    pattern as its topic, and cursor 0; each topic that matches is a state of its own, whose
    `parent` is the id of the pattern. `ack_wait_ms` and `max_attempts` are those of version 2.
    """

    id: int
    owner: str
    topic: bytes
    cursor: int
    unsettled: tuple[UnsettledRange, ...] = ()
    shared: bool = False
    pattern: bool = False
    name: bytes = b""
    parent: int = 0
    ack_wait_ms: int = 0
    max_attempts: int = 0


@attrs.frozen(eq=False)
class RunRecord:
    """`count` messages of one topic, numbered from `first`; `data` is their frames, end to end."""

    topic: bytes
    first: int
    count: int
    data: Bytes
    time_ms: int = 0
    """When it was written, in milliseconds since the epoch."""


@attrs.frozen
class Settled:
    """The subscription wants none of the numbers first to last any more."""

    subscription: int
    first: int
    last: int


@attrs.frozen(eq=False)
class Moved:
    """The subscription wants none of first to last any more, and `run` is published, at once."""

    subscription: int
    first: int
    last: int
    run: RunRecord

    @property
    def settled(self) -> Settled:
        """The settlement alone."""
        return Settled(self.subscription, self.first, self.last)


@attrs.frozen
class Attempted:
    """Numbers first to last were delivered to the subscription `attempts` times in all."""

    subscription: int
    first: int
    last: int
    attempts: int


@attrs.frozen
class Synced:
    """The first `size` bytes of a segment were fsynced: no power cut took any of them."""

    segment: int
    size: int


@attrs.frozen
class Continued:
    """The segment ends here: `segment`, with that salt, is on the disk with its checkpoint."""

    segment: int
    salt: int


@attrs.frozen
class Opened:
    """A durable subscription exists from now on."""

    subscription: SubscriptionState


@attrs.frozen
class Closed:
    """A durable subscription exists no more; messages from `next_number` on are not its own."""

    subscription: int
    next_number: int


@attrs.frozen
class Seen:
    """The message ids of a topic that a publish is not to bring again: (time in ms, id)."""

    topic: bytes
    ids: tuple[tuple[int, bytes], ...]


@attrs.frozen
class Checkpoint:
    """Everything but the messages. No number below `reserved` may be given out again.

    `segments` are the older segments that are still wanted; any other may be removed. `salts` are
    theirs, in the same order; a checkpoint of an older log does not have them. `kept`
    holds, of every topic without a durable subscription, the number from which on its messages are
    kept; a topic that is not in it keeps those from the checkpoint's id on. `seen` is the
    deduplication window.
    """

    reserved: int
    segments: tuple[int, ...] = ()
    subscriptions: tuple[SubscriptionState, ...] = ()
    kept: tuple[tuple[bytes, int], ...] = ()
    seen: tuple[Seen, ...] = ()
    salts: tuple[int, ...] = ()


Fact = RunRecord | Settled | Moved | Attempted | Synced | Continued | Opened | Closed | Checkpoint


def run_in(fact: Fact) -> RunRecord | None:
    """The messages that a fact publishes, if it does."""
    if isinstance(fact, RunRecord):
        return fact
    return fact.run if isinstance(fact, Moved) else None


def without_data(fact: Fact) -> Fact:
    """A fact that may outlive the bytes it was read from: a moved run loses its frames."""
    if isinstance(fact, Moved):
        return attrs.evolve(fact, run=attrs.evolve(fact.run, data=b""))
    return fact


class DoesNotFit(LogError):
    """A fact is larger than a record can be."""


def segment_header(sequence: int, salt: int) -> bytes:
    head = SEGMENT_HEADER.pack(MAGIC, FORMAT_VERSION, salt, sequence, 0)
    return head + _U32.pack(zlib.crc32(head))


def parse_segment_header(data: bytes) -> tuple[int, int]:
    """Sequence number and salt. Raises ValueError saying what is wrong."""
    if len(data) < SEGMENT_HEADER_BYTES:
        raise ValueError(f"the header is {len(data)} bytes long, not {SEGMENT_HEADER_BYTES}")
    magic, version, salt, sequence, _ = SEGMENT_HEADER.unpack_from(data)
    if magic != MAGIC:
        raise ValueError("this is not a segment of a BlipMQ log")
    if version != FORMAT_VERSION:
        raise ValueError(f"format version {version}; this program reads {FORMAT_VERSION}")
    if _U32.unpack_from(data, SEGMENT_HEADER.size)[0] != zlib.crc32(data[: SEGMENT_HEADER.size]):
        raise ValueError("the header's checksum does not match")
    return sequence, salt


def encode(fact: Fact, next_number: int, salt: int) -> list[Bytes]:
    """One record, as buffers to be written one after the other; a run's frames are not copied.

    Raises DoesNotFit.
    """
    match fact:
        case RunRecord():
            return _record(fact.first, salt, bytes((RUN,)) + _run_head(fact), fact.data)
        case Settled():
            return encode_settled([fact], next_number, salt)
        case Moved(subscription, first, last, run):
            head = bytes((MOVED,)) + _SETTLED.pack(subscription, first, last) + _run_head(run)
            return _record(run.first, salt, head, run.data)
        case Attempted(subscription, first, last, attempts):
            row = _ATTEMPTED.pack(subscription, first, last, min(attempts, 0xFFFF))
            return _record(next_number, salt, bytes((ATTEMPTED,)) + row)
        case Synced(segment, size):
            row = _SYNCED.pack(segment, size)
            return _record(next_number, salt, bytes((SYNCED,)) + row)
        case Continued(segment, its_salt):
            row = _SEGMENT.pack(segment, its_salt)
            return _record(next_number, salt, bytes((CONTINUED,)) + row)
        case Opened():
            return _record(next_number, salt, bytes((OPENED,)) + _subscription(fact.subscription))
        case Closed():
            return _record(
                next_number,
                salt,
                bytes((CLOSED,)) + _CLOSED.pack(fact.subscription, fact.next_number),
            )
        case Checkpoint():
            return _record(next_number, salt, _checkpoint(fact))


def encode_settled(facts: list[Settled], next_number: int, salt: int) -> list[Bytes]:
    """Many settlements in one record."""
    rows = [_SETTLED.pack(fact.subscription, fact.first, fact.last) for fact in facts]
    return _record(next_number, salt, bytes((SETTLED,)) + b"".join(rows))


def _record(id_: int, salt: int, head: bytes, data: Bytes = b"") -> list[Bytes]:
    length = len(head) + len(data) + 1
    if length > 0xFFFF_FFFF:
        raise DoesNotFit(f"a record of {length} bytes is longer than the log takes")
    start = _ID_AND_LENGTH.pack(id_, length)
    crc = zlib.crc32(END_MARK, zlib.crc32(data, zlib.crc32(head, zlib.crc32(start, salt))))
    first = start + _U32.pack(crc) + head
    return [first, data, END_MARK] if len(data) else [first + END_MARK]


def _run_head(run: RunRecord) -> bytes:
    return _U64.pack(run.time_ms) + _text(run.topic) + _U32.pack(run.count)


def _text(text: bytes) -> bytes:
    if len(text) > 0xFFFF:
        raise DoesNotFit(f"a text of {len(text)} bytes is longer than the log takes")
    return _U16.pack(len(text)) + text


def _subscription(state: SubscriptionState) -> bytes:
    owner = state.owner.encode()
    if len(owner) > 0xFF:
        raise DoesNotFit(f"an owner of {len(owner)} bytes is longer than the log takes")
    flags = _SHARED * state.shared | _PATTERN * state.pattern
    max_attempts = min(state.max_attempts, 0xFFFF_FFFF)
    numbers = (state.id, state.parent, state.cursor, state.ack_wait_ms, max_attempts)
    return b"".join(
        (
            _SUBSCRIPTION.pack(flags, *numbers, len(owner)),
            owner,
            _text(state.topic),
            _text(state.name),
            _U32.pack(len(state.unsettled)),
            *(_RANGE.pack(r.first, r.last, min(r.attempts, 0xFFFF)) for r in state.unsettled),
        )
    )


def _checkpoint(fact: Checkpoint) -> bytes:
    return b"".join(
        (
            bytes((CHECKPOINT,)),
            _U64.pack(fact.reserved),
            _U32.pack(len(fact.segments)),
            *(_SEGMENT.pack(*row) for row in zip(fact.segments, fact.salts, strict=True)),
            _U32.pack(len(fact.subscriptions)),
            *(_subscription(state) for state in fact.subscriptions),
            _U32.pack(len(fact.kept)),
            *(_text(topic) + _U64.pack(first) for topic, first in fact.kept),
            _U32.pack(len(fact.seen)),
            *(_seen(seen) for seen in fact.seen),
        )
    )


def _seen(seen: Seen) -> bytes:
    ids = (_U64.pack(time_ms) + _text(id_) for time_ms, id_ in seen.ids)
    return b"".join((_text(seen.topic), _U32.pack(len(seen.ids)), *ids))


def checks(header: Bytes, payload: Bytes, salt: int) -> bool:
    """Whether a record's checksum and its last byte are right."""
    (crc,) = _U32.unpack_from(header, _ID_AND_LENGTH.size)
    start = zlib.crc32(header[: _ID_AND_LENGTH.size], salt)
    return bool(payload[-1:] == END_MARK and zlib.crc32(payload, start) == crc)


def decode(id_: int, payload: Bytes) -> list[Fact]:
    """The facts of one record whose checksum is right. A run's frames are not copied.

    Raises ValueError when the payload is of no kind that this program knows, or does not fit it.
    """
    view = memoryview(payload)[:-1]
    if not view:
        raise ValueError("the record is empty")
    try:
        match view[0]:
            case 1:
                return [_decode_run(id_, view, 1)]
            case 2:
                return [Settled(*row) for row in _SETTLED.iter_unpack(view[1:])]
            case 3:
                return [Opened(_Fields(view, 1).older_subscription())]
            case 4:
                return [Closed(*_CLOSED.unpack_from(view, 1))]
            case 5:
                return [_decode_older_checkpoint(view)]
            case 6:
                return [Attempted(*_ATTEMPTED.unpack_from(view, 1))]
            case 7:
                return [Synced(*_SYNCED.unpack_from(view, 1))]
            case 8:
                subscription, first, last = _SETTLED.unpack_from(view, 1)
                run = _decode_run(id_, view, 1 + _SETTLED.size)
                return [Moved(subscription, first, last, run)]
            case 10:
                return [Opened(_Fields(view, 1).subscription())]
            case 11:
                return [_decode_checkpoint(view)]
            case 12:
                return [Continued(*_SEGMENT.unpack_from(view, 1))]
            case kind:
                raise ValueError(f"unknown kind of record {kind}")
    except (struct.error, UnicodeDecodeError, IndexError) as error:
        raise ValueError(f"the record does not fit its kind {view[0]}: {error}") from None


def _decode_run(id_: int, view: memoryview, at: int) -> RunRecord:
    time_ms, topic_length = _RUN.unpack_from(view, at)
    at += _RUN.size
    topic = bytes(view[at : at + topic_length])
    (count,) = _U32.unpack_from(view, at + topic_length)
    return RunRecord(topic, id_, count, view[at + topic_length + _U32.size :], time_ms)


def _decode_older_checkpoint(view: memoryview) -> Checkpoint:
    fields = _Fields(view, 1)
    (reserved,) = fields.take(_U64)
    segments = tuple(fields.take(_U64)[0] for _ in range(fields.count()))
    subscriptions = tuple(fields.older_subscription() for _ in range(fields.count()))
    kept = tuple(fields.kept() for _ in range(fields.count()))
    return Checkpoint(reserved, segments, subscriptions, kept)


def _decode_checkpoint(view: memoryview) -> Checkpoint:
    fields = _Fields(view, 1)
    (reserved,) = fields.take(_U64)
    segments = [fields.take(_SEGMENT) for _ in range(fields.count())]
    subscriptions = tuple(fields.subscription() for _ in range(fields.count()))
    kept = tuple(fields.kept() for _ in range(fields.count()))
    seen = tuple(fields.seen() for _ in range(fields.count()))
    sequences = tuple(sequence for sequence, _ in segments)
    salts = tuple(salt for _, salt in segments)
    return Checkpoint(reserved, sequences, subscriptions, kept, seen, salts)


@attrs.define
class _Fields:
    """Reads one field after the other."""

    view: memoryview
    at: int

    def take(self, layout: struct.Struct) -> tuple[int, ...]:
        values = layout.unpack_from(self.view, self.at)
        self.at += layout.size
        return values

    def count(self) -> int:
        return self.take(_U32)[0]

    def part(self, length: int) -> bytes:
        self.at += length
        if self.at > len(self.view):
            raise IndexError("it ends too early")
        return self.view[self.at - length : self.at].tobytes()

    def text(self) -> bytes:
        return self.part(self.take(_U16)[0])

    def subscription(self) -> SubscriptionState:
        flags, id_, parent, cursor, ack_wait_ms, max_attempts, length = self.take(_SUBSCRIPTION)
        if flags > _SHARED | _PATTERN:
            raise IndexError(f"unknown flags {flags} of a subscription")
        owner = self.part(length).decode()
        topic, name = self.text(), self.text()
        return SubscriptionState(
            id_,
            owner,
            topic,
            cursor,
            self._unsettled(),
            bool(flags & _SHARED),
            bool(flags & _PATTERN),
            name,
            parent,
            ack_wait_ms,
            max_attempts,
        )

    def older_subscription(self) -> SubscriptionState:
        id_, cursor, length = self.take(_OLDER_SUBSCRIPTION)
        owner = self.part(length).decode()
        return SubscriptionState(id_, owner, self.text(), cursor, self._unsettled())

    def _unsettled(self) -> tuple[UnsettledRange, ...]:
        return tuple(UnsettledRange(*self.take(_RANGE)) for _ in range(self.count()))

    def kept(self) -> tuple[bytes, int]:
        return self.text(), self.take(_U64)[0]

    def seen(self) -> Seen:
        topic = self.text()
        ids = tuple((self.take(_U64)[0], self.text()) for _ in range(self.count()))
        return Seen(topic, ids)


def records(data: Bytes, start: int, salt: int) -> Iterator[tuple[int, int, int]]:
    """The records that follow each other whole and right in `data` from `start` on.

    Yields (id, start of the payload, end of the record), and ends before the first that is not.
    """
    view = memoryview(data)
    while start + RECORD_HEADER_BYTES + PAYLOAD_MIN <= len(view):
        id_, length, _ = RECORD_HEADER.unpack_from(view, start)
        body = start + RECORD_HEADER_BYTES
        end = body + length
        if length < PAYLOAD_MIN or end > len(view):
            return
        if not checks(view[start:body], view[body:end], salt):
            return
        yield id_, body, end
        start = end
