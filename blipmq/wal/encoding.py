"""Facts as records, and back."""

from __future__ import annotations

import struct
from typing import Final

import attrs

from blipmq.wal.facts import (
    Attempted,
    Bytes,
    Checkpoint,
    Closed,
    Continued,
    Fact,
    Moved,
    Opened,
    RunRecord,
    Seen,
    Settled,
    SubscriptionState,
    Synced,
    UnsettledRange,
)
from blipmq.wal.record import END_MARK, RECORD_HEADER_BYTES, DoesNotFit, framed

RUN: Final = 1
SETTLED: Final = 2
CLOSED: Final = 4
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

_SHARED: Final = 1
_PATTERN: Final = 2

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


def encode(fact: Fact, next_number: int, salt: int) -> list[Bytes]:
    """One record, as buffers to be written one after the other; a run's frames are not copied.

    Raises DoesNotFit.
    """
    match fact:
        case RunRecord():
            return framed(fact.first, salt, bytes((RUN,)) + _run_head(fact), fact.data)
        case Settled():
            return encode_settled([fact], next_number, salt)
        case Moved(subscription, first, last, run):
            head = bytes((MOVED,)) + _SETTLED.pack(subscription, first, last) + _run_head(run)
            return framed(run.first, salt, head, run.data)
        case Attempted(subscription, first, last, attempts):
            row = _ATTEMPTED.pack(subscription, first, last, min(attempts, 0xFFFF))
            return framed(next_number, salt, bytes((ATTEMPTED,)) + row)
        case Synced(segment, size):
            row = _SYNCED.pack(segment, size)
            return framed(next_number, salt, bytes((SYNCED,)) + row)
        case Continued(segment, its_salt):
            row = _SEGMENT.pack(segment, its_salt)
            return framed(next_number, salt, bytes((CONTINUED,)) + row)
        case Opened():
            return framed(next_number, salt, bytes((OPENED,)) + _subscription(fact.subscription))
        case Closed():
            return framed(
                next_number,
                salt,
                bytes((CLOSED,)) + _CLOSED.pack(fact.subscription, fact.next_number),
            )
        case Checkpoint():
            return framed(next_number, salt, _checkpoint(fact))


def encode_settled(facts: list[Settled], next_number: int, salt: int) -> list[Bytes]:
    """Many settlements in one record."""
    rows = [_SETTLED.pack(fact.subscription, fact.first, fact.last) for fact in facts]
    return framed(next_number, salt, bytes((SETTLED,)) + b"".join(rows))


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
