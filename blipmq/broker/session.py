"""The protocol rules of one connection: what a frame means in which state, and what it is answered.

Synchronous: bytes go into `decoder`, `advance` carries out what they ask for, replies gather in
`out`. The connection's tasks only move bytes and wait.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Final

import attrs

from blipmq.broker.attachment import Attachment
from blipmq.broker.broker import Broker
from blipmq.broker.confirms import Confirms, Unconfirmed
from blipmq.broker.output import DELIVER_BYTES_MAX, Output
from blipmq.broker.overview import SessionView
from blipmq.broker.stats import CloseReason
from blipmq.broker.taken import Messages
from blipmq.errors import (
    AuthenticationFailed,
    BadRequest,
    FramingError,
    LimitExceeded,
    NotFound,
    Refused,
    TooLarge,
    UnsupportedVersion,
)
from blipmq.protocol import encoder
from blipmq.protocol.buffers import BUFFER_BYTES_MIN
from blipmq.protocol.decoder import Decoder, Item
from blipmq.protocol.frames import (
    ACK,
    ATTACH,
    AUTH,
    CONFIRM,
    CORRELATION_ID_AT,
    DELIVER,
    DETACH,
    HELLO,
    INFO,
    LENGTH_MAX,
    LENGTH_MAX_PUBLISH,
    LENGTH_MAX_UNAUTHENTICATED,
    MESSAGE,
    NACK,
    PING,
    POLL,
    PONG,
    PUBLISH,
    SETTLE,
    SUBSCRIBE,
    TYPES_V2,
    U16,
    U64,
    Frame,
    Outcome,
)
from blipmq.protocol.requests import (
    message_refusal,
    parse_attach,
    parse_detach,
    parse_settle,
    parse_topic,
)
from blipmq.protocol.run import Run

VERSIONS: Final = (1, 2)
"""Protocol versions that are spoken."""
MAX_BODY_BYTES: Final = LENGTH_MAX - 256 * 1024
"""A body of this size can be published with any topic and any properties."""
_WORK_MAX = 10_000
"""How much work of the kind that `Context.work` counts is done between two turns of others."""
_GATHER_BYTES = 1024 * 1024
"""What is gathered for one send, about."""


class State(Enum):
    """How far the handshake has come."""

    CONNECTED = "connected"
    GREETED = "greeted"
    """HELLO was accepted."""
    READY = "ready"
    """AUTH was accepted."""


@attrs.define(eq=False)
class Session:
    """One connection's conversation with the broker.

    `authenticate` gives the key id of an API key, or None. `on_progress` is called when something
    that `advance` waited for may have come (the commit of what this connection published), or
    `gather` may have something. `software` is the version that INFO tells.
    """

    broker: Broker
    authenticate: Callable[[bytes], str | None]
    on_progress: Callable[[], None]
    software: str = ""
    decoder: Decoder = attrs.field()
    state: State = State.CONNECTED
    version: int = 1
    owner: str = ""
    close_reason: CloseReason | None = None
    """Why this connection is to be closed, once its replies are sent; None: it is not."""
    paused_until: float | None = None
    """Until when it waits for subscribers that lag behind what it publishes; None: it does not."""
    output: Output = attrs.field()
    _confirms: Confirms = attrs.Factory(Confirms)
    _attachments: dict[int, Attachment] = attrs.Factory(dict)
    _ready: dict[Attachment, None] = attrs.Factory(dict)
    """Attachments that may have something to deliver."""
    _stalled: Item | None = None
    _settlements: list[tuple[Attachment, Outcome, int, int, int]] = attrs.Factory(list)
    """Rows of the SETTLE that is being carried out; the next is last."""
    _auth_failures: int = 0
    _own: int = 0
    _buffer_bytes: int = 0
    _subscriptions: dict[int, None] = attrs.Factory(dict)

    @decoder.default
    def _decoder(self) -> Decoder:
        return Decoder(LENGTH_MAX_UNAUTHENTICATED, self.broker.context.buffers)

    @output.default
    def _output(self) -> Output:
        return Output(self.broker.stats)

    # Bytes

    def room(self, wanted: int = 1) -> memoryview:
        """Where received bytes are to be put; `wanted` of them at least, up to 256 KiB."""
        limits = self.broker.limits
        self.decoder.frugal = self.broker.stats.memory_bytes > limits.max_message_bytes
        return self.decoder.room(wanted)

    def release_room(self) -> None:
        """Nothing may come for long. What `room` gave is not to be used any more."""
        self.decoder.release()
        self._count_buffer()

    def received(self, count: int) -> None:
        """The first `count` bytes of `room()` were received.

        What a receive buffer has grown by counts as memory. When there is none left for the
        unfinished frame in it, the connection is to be closed.
        """
        self.decoder.filled(count)
        stats, growth = self.broker.stats, self._count_buffer()
        if growth > 0 and stats.memory_bytes > self.broker.limits.max_memory_bytes:
            stats.connections_refused[CloseReason.MEMORY] += 1
            self.close_reason = CloseReason.MEMORY

    def _count_buffer(self) -> int:
        """How much larger it is than when it was counted last."""
        size = max(0, self.decoder.allocated - BUFFER_BYTES_MIN)
        growth = size - self._buffer_bytes
        self._buffer_bytes = size
        self.broker.stats.memory_bytes += growth
        return growth

    def advance(self, now: float, *, may_log: bool = True) -> bool:
        """Carry out the requests that were received, in order.

        Returns True when all were: more bytes are needed. False: it has to wait, for room for
        replies (see `output`), for a commit or for slow subscribers (see `on_progress` and
        `paused_until`), for others to have their turn (the same) or, when it may not log, for
        that (see `wants_to_log`), and is to be called again. Raises FramingError where the bytes
        are no frame; everything before was carried out.
        """
        while self.close_reason is None:
            if self._output_is_full or self._is_paused(now):
                return False
            if self.broker.context.work > _WORK_MAX:
                # Others have their turn before this goes on.
                self.broker.context.work = 0
                self.paused_until = now
                return False
            if self._settlements:
                self._settle_next(now)
                continue
            item: Item | None = self._stalled
            if item is None:
                item = self._next()
            if item is None:
                return True
            if self._has_to_wait(item, may_log):
                self._stalled = item
                return False
            self._stalled = None
            self._handle(item, now)
        return True

    @property
    def uncommitted(self) -> int:
        """Runs of this connection that are not committed yet."""
        return len(self._confirms)

    @property
    def has_output(self) -> bool:
        """Whether `gather` would give something to send."""
        if self.output or (self._ready and not self.broker.draining):
            return True
        return self.version > 1 and bool(self._confirms)

    def gather(self, now: float, *, deliver: bool = True) -> None:
        """Put into `output` what is there for this connection besides its replies.

        Without `deliver` that is what it is owed, and no message.
        """
        output = self.output
        if self.version > 1:
            confirmed = self._confirms.take()
            if confirmed is not None:
                output.add(encoder.confirm(confirmed))
        if self.broker.draining or not deliver:
            # What is held may be settled; more of it would keep the broker from ending.
            return
        ready = self._ready
        while ready and output.bytes < _GATHER_BYTES:
            attachment = next(iter(ready))
            del ready[attachment]
            taken = self.broker.deliver(attachment, DELIVER_BYTES_MAX, now)
            if taken:
                ready[attachment] = None
                output.add_deliver(attachment.id, taken)

    @property
    def _output_is_full(self) -> bool:
        limits = self.broker.limits
        if self.output.bytes >= limits.output_buffer_bytes:
            return True
        return bool(self.output) and self.broker.stats.memory_bytes > limits.max_memory_bytes

    def _is_paused(self, now: float) -> bool:
        if self.paused_until is not None and self.paused_until <= now:
            self.paused_until = None
        return self.paused_until is not None

    def _resume(self) -> None:
        self.paused_until = None
        self.on_progress()

    def _has_to_wait(self, item: Item, may_log: bool) -> bool:
        if isinstance(item, Frame):
            return item.type == POLL and self.uncommitted > 0
        return item.qos > 0 and not may_log

    @property
    def wants_to_log(self) -> bool:
        """Whether the next request is a publish that the log has to take."""
        return isinstance(self._stalled, Run)

    def _next(self) -> Item | None:
        try:
            return self.decoder.next()
        except FramingError:
            self.broker.stats.framing_errors += 1
            raise

    def _refuse(self, correlation_id: int, refused: Refused) -> None:
        self.broker.stats.nacks[refused.code] += 1
        self.output.add(encoder.nack(correlation_id, refused.code, refused.message))

    def _refuse_all(self, run: Messages, refused: Refused) -> None:
        for correlation_id in run.correlation_ids():
            self._refuse(correlation_id, refused)

    # Requests

    def _handle(self, item: Item, now: float) -> None:
        """A refused request is answered by a NACK, and the conversation goes on."""
        if not isinstance(item, Frame):
            if self.state is not State.READY:
                self._refuse_all(item, AuthenticationFailed(401, "unauthenticated"))
            elif item.qos:
                assert isinstance(item, Run)
                self._publish(item, now)
            else:
                self._publish_qos0(item, now)
            return
        handler = _HANDLERS.get((self.state, item.type), _OTHERWISE[self.state])
        try:
            handler(self, item, now)
        except Refused as refused:
            self._refuse(item.correlation_id, refused)

    def _publish(self, run: Run, now: float) -> None:
        (last,) = U64.unpack_from(run.buffer, run.offsets[-2] + CORRELATION_ID_AT)
        publisher = Unconfirmed(last, self._refuse_failed, self.on_progress)
        try:
            answers = self.broker.publish(run, publisher, now)
        except Refused as refused:
            self._refuse_all(run, refused)
            return
        publisher.outstanding += answers
        self._confirms.add(publisher)
        self.paused_until = self.broker.pause(run.topic, self._resume, now)

    def _publish_qos0(self, messages: Messages, now: float) -> None:
        runs, self.paused_until = self.broker.relay(messages, self._resume, now)
        for run in runs:
            try:
                self.broker.publish(run, _NOBODY, now)
            except Refused as refused:
                self._refuse_all(run, refused)
                continue
            until = self.broker.pause(run.topic, self._resume, now)
            if until is not None:
                self.paused_until = max(until, self.paused_until or until)

    def _refuse_failed(self, run: Run, reason: str) -> None:
        self._refuse_all(run, Refused(500, f"durable publish failed: {reason}"))

    # What comes by itself

    def wake(self, attachment: Attachment) -> None:
        """As `Consumer`."""
        if attachment.prefetch:
            self._ready[attachment] = None
            self.on_progress()

    def detached(self, attachment: Attachment, reason: str) -> None:
        """As `Consumer`."""
        self._attachments.pop(attachment.id, None)
        self._ready.pop(attachment, None)
        self.output.add(encoder.detached(attachment.id, reason))
        self.on_progress()

    def tell_info(self) -> None:
        """INFO, now and whenever it has changed; version 1 knows none."""
        if self.version < 2 or self.state is not State.READY:
            return
        document = {
            "server": "blipmq",
            "version": self.software,
            "max_frame_bytes": LENGTH_MAX,
            "max_body_bytes": MAX_BODY_BYTES,
            "heartbeat_ms": self.broker.limits.heartbeat_ms,
            "ack_wait_ms": self.broker.context.retries.ack_wait_ms,
            "draining": self.broker.draining,
        }
        self.output.add(encoder.info(document))
        self.on_progress()

    def _hello(self, frame: Frame, now: float) -> None:
        if len(frame.payload) != U16.size:
            raise BadRequest(400, "invalid HELLO payload")
        (version,) = U16.unpack(frame.payload)
        if version not in VERSIONS:
            raise UnsupportedVersion(426, "unsupported protocol version")
        self.state = State.GREETED
        self.version = self.decoder.version = version
        self.output.add(encoder.ack(frame.correlation_id))

    def _auth(self, frame: Frame, now: float) -> None:
        try:
            owner = self.authenticate(_api_key(frame.payload))
            if owner is None:
                raise AuthenticationFailed(401, "invalid API key")
        except Refused:
            self._count_auth_failure()
            raise
        self.owner = owner
        self.state = State.READY
        self.decoder.length_max = LENGTH_MAX
        self.decoder.properties_max = self.broker.limits.max_properties_bytes
        self.output.add(encoder.ack(frame.correlation_id))
        self.tell_info()

    def _count_auth_failure(self) -> None:
        stats = self.broker.stats
        stats.auth_failures += 1
        self._auth_failures += 1
        if self._auth_failures > self.broker.limits.max_auth_failures:
            stats.connections_refused[CloseReason.AUTH_FAILURES] += 1
            self.close_reason = CloseReason.AUTH_FAILURES

    def _subscribe(self, frame: Frame, now: float) -> None:
        topic, qos = _subscription(frame.payload)
        if self._own >= self.broker.limits.max_subscriptions_per_connection:
            raise LimitExceeded(429, "too many subscriptions")
        id_ = self.broker.subscribe(self.owner, topic, qos, self, now)
        self._own += 1
        self._subscriptions[id_] = None
        self.output.add(encoder.ack(frame.correlation_id, id_))

    def _poll(self, frame: Frame, now: float) -> None:
        id_ = _subscription_id(frame, "POLL")
        attachment = self._attachments.get(id_)
        if attachment is not None:
            found = self.broker.poll(attachment, now)
            if found is not None:
                self.output.add_polled(found, frame.correlation_id)
            return
        taken = self.broker.take(self.owner, id_, self, now)
        if taken is None:
            return
        if taken.tag:
            self._subscriptions[id_] = None
            self.output.add_message(taken.run, taken.index)
        else:
            self.output.add_reply(taken.run, taken.index, frame.correlation_id)

    def _ack(self, frame: Frame, now: float) -> None:
        id_ = _subscription_id(frame, "ACK")
        attachment, tag = self._attachments.get(id_), frame.correlation_id
        if attachment is None:
            self.broker.accept(self.owner, id_, tag)
        elif not self.broker.settle(attachment, Outcome.ACCEPT, tag, tag, 0, now):
            raise NotFound(404, "unknown subscription or delivery tag")

    def _attach(self, frame: Frame, now: float) -> None:
        limits = self.broker.limits
        selector, qos, properties = parse_attach(frame.payload)
        if len(frame.payload) - len(selector) > limits.max_properties_bytes + 5:
            raise TooLarge(413, "properties too large")
        if len(self._attachments) >= limits.max_attachments_per_connection:
            raise LimitExceeded(429, "too many attachments")
        attachment = self.broker.attach(self.owner, selector, qos, properties, self, now)
        self._attachments[attachment.id] = attachment
        self.output.add(encoder.ack(frame.correlation_id, attachment.id))

    def _detach(self, frame: Frame, now: float) -> None:
        id_, delete = parse_detach(frame.payload)
        attachment = self._attachments.pop(id_, None)
        if attachment is None:
            raise NotFound(404, "unknown subscription")
        self._ready.pop(attachment, None)
        self.broker.detach(attachment, now, delete=delete)
        self.output.add(encoder.ack(frame.correlation_id))

    def _settle(self, frame: Frame, now: float) -> None:
        try:
            rows = parse_settle(frame.payload)
        except Refused as refused:
            self._refuse(0, refused)
            return
        attachment = self._attachments.get(frame.correlation_id)
        if attachment is not None:
            self._settlements = [(attachment, *row) for row in reversed(rows)]

    def _settle_next(self, now: float) -> None:
        attachment, outcome, first, last, delay_ms = self._settlements.pop()
        if attachment.id in self._attachments:  # others may have ended it meanwhile
            self.broker.settle(attachment, outcome, first, last, delay_ms, now)

    def _ping(self, frame: Frame, now: float) -> None:
        self.output.add(encoder.pong(frame.correlation_id))

    def _ignore(self, frame: Frame, now: float) -> None:
        pass

    def _malformed_publish(self, frame: Frame, now: float) -> None:
        """Only what is not fit to be part of a run comes here."""
        payload = frame.payload
        if len(payload) < 3:
            raise BadRequest(400, "invalid PUBLISH payload")
        topic = parse_topic(payload[1:], "PUBLISH")
        if not topic:
            raise BadRequest(400, "empty topic")
        if payload[0] > 1:
            raise BadRequest(400, "invalid QoS value")
        assert frame.length > LENGTH_MAX_PUBLISH
        raise TooLarge(413, "message too large")

    def _malformed_message(self, frame: Frame, now: float) -> None:
        """Only what is not fit to be part of a run comes here."""
        raise message_refusal(frame.payload, frame.length, self.broker.limits.max_properties_bytes)

    def _greeted_already(self, frame: Frame, now: float) -> None:
        raise BadRequest(400, "HELLO already performed")

    def _authenticated_already(self, frame: Frame, now: float) -> None:
        raise BadRequest(400, "already authenticated")

    def _not_greeted(self, frame: Frame, now: float) -> None:
        raise BadRequest(400, "HELLO not performed")

    def _unauthenticated(self, frame: Frame, now: float) -> None:
        raise AuthenticationFailed(401, "unauthenticated")

    # Watching

    def view(self) -> SessionView:
        """What an operator sees of it."""
        return SessionView(
            self.version,
            self.owner or None,
            len(self._subscriptions) + len(self._attachments),
            sum(attachment.held for attachment in self._attachments.values()),
            self.uncommitted,
            self.output.bytes,
            self.paused_until is not None,
        )

    # The end

    def end(self, now: float) -> None:
        """The connection is gone: what it held comes back, its subscriptions are parked or end."""
        self.broker.stats.memory_bytes -= self._buffer_bytes
        self._buffer_bytes = 0
        self.output.drop()
        for attachment in self._attachments.values():
            self.broker.detach(attachment, now, lost=True)
        self._attachments.clear()
        self._ready.clear()
        self.broker.disconnect(self, list(self._subscriptions), now)
        self._subscriptions.clear()
        # Whoever has it refers to this; so neither has to wait for the garbage collector.
        self.on_progress = _nothing


def _nothing() -> None:
    pass


class _Nobody:
    """Publishes at QoS 0, and is told nothing."""

    def on_committed(self, run: Run) -> None:
        raise AssertionError("nothing is committed at QoS 0")

    def on_failed(self, run: Run, reason: str) -> None:
        raise AssertionError("nothing fails at QoS 0")


_NOBODY: Final = _Nobody()

_Handler = Callable[[Session, Frame, float], None]

_HANDLERS: Final[dict[tuple[State, int], _Handler]] = {
    (State.CONNECTED, HELLO): Session._hello,
    (State.CONNECTED, AUTH): Session._not_greeted,
    (State.GREETED, HELLO): Session._greeted_already,
    (State.GREETED, AUTH): Session._auth,
    (State.READY, HELLO): Session._greeted_already,
    (State.READY, AUTH): Session._authenticated_already,
    (State.READY, PUBLISH): Session._malformed_publish,
    (State.READY, SUBSCRIBE): Session._subscribe,
    (State.READY, ACK): Session._ack,
    (State.READY, POLL): Session._poll,
    (State.READY, PING): Session._ping,
    (State.READY, PONG): Session._ignore,
    (State.READY, NACK): Session._ignore,
    (State.READY, MESSAGE): Session._malformed_message,
    (State.READY, ATTACH): Session._attach,
    (State.READY, DETACH): Session._detach,
    (State.READY, SETTLE): Session._settle,
    (State.READY, INFO): Session._ignore,
    (State.READY, DELIVER): Session._ignore,
    (State.READY, CONFIRM): Session._ignore,
}
_OTHERWISE: Final[dict[State, _Handler]] = {
    State.CONNECTED: Session._unauthenticated,
    State.GREETED: Session._unauthenticated,
    State.READY: Session._ignore,
}
assert all((State.READY, type_) in _HANDLERS for type_ in TYPES_V2)


def _api_key(payload: bytes) -> bytes:
    if len(payload) < U16.size or len(payload) != U16.size + U16.unpack_from(payload)[0]:
        raise BadRequest(400, "invalid AUTH payload")
    key = payload[U16.size :]
    try:
        key.decode()
    except UnicodeDecodeError:
        raise BadRequest(400, "invalid AUTH payload") from None
    return key


def _subscription(payload: bytes) -> tuple[bytes, int]:
    """Topic and QoS of a SUBSCRIBE."""
    if len(payload) < U16.size + 1:
        raise BadRequest(400, "invalid SUBSCRIBE payload")
    topic = parse_topic(payload, "SUBSCRIBE")
    qos = payload[U16.size + len(topic) :][:1]
    if not qos:
        raise BadRequest(400, "invalid SUBSCRIBE payload")
    if not topic:
        raise BadRequest(400, "empty topic")
    if qos[0] > 1:
        raise BadRequest(400, "invalid QoS value")
    return topic, qos[0]


def _subscription_id(frame: Frame, request: str) -> int:
    if len(frame.payload) != U64.size:
        raise BadRequest(400, f"invalid {request} payload")
    id_ = int(U64.unpack(frame.payload)[0])
    if not id_:
        raise BadRequest(400, "subscription_id must be non-zero")
    return id_
