"""A subscription of version 2 on its way through connections: messages that wait, and who waits."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from operator import length_hint
from typing import TYPE_CHECKING, Final

import attrs
import trio

from blipmq.client.message import Message, lease_of
from blipmq.client.push.chunk import count, last_tag, messages, tags
from blipmq.client.push.lease import STEPS, Lease
from blipmq.client.reply import again
from blipmq.client.source import Wanted
from blipmq.client.topic import encoded
from blipmq.client.waiters import Waiters
from blipmq.errors import BlipMQError, ClientError, FramingError, Refused, SubscriptionEnded
from blipmq.protocol import encoder
from blipmq.protocol.attach_properties import (
    AttachProperties,
    Start,
    StartKind,
    encode_attach_properties,
)
from blipmq.protocol.frames import ACK, U64, Frame

if TYPE_CHECKING:
    from blipmq.client.push.connection import PushConnection
    from blipmq.client.push.link import Link

PREFETCH: Final = 512
HIGH_WATER_BYTES: Final = 4 * 1024 * 1024
"""With so many bytes waiting at QoS 0, the connection is read only as fast as they are taken."""
LIMIT_BYTES: Final = 64 * 1024 * 1024
"""With so many bytes waiting at QoS 0, the oldest are dropped."""


@attrs.define(eq=False)
class Attachment:
    """What one `subscribe` has made. It is attached anew whenever its connection is replaced."""

    link: Link
    wanted: Wanted
    prefetch: int
    lease: Lease | None = attrs.field(default=None, init=False)
    steps: int = attrs.field(default=STEPS, init=False)
    begun: int = attrs.field(default=0, init=False)
    """Messages that were handed over, and those that `rows` has left."""
    rows: Iterator[object] = attrs.field(factory=lambda: iter(()), init=False)
    """What is taken apart together to be handed over one by one."""
    dropped: int = attrs.field(default=0, init=False)
    """Messages of QoS 0 that nobody has taken in time."""
    stalled: bool = attrs.field(default=False, init=False)
    """Its consumer has taken nothing for a while, and is not waited for until it does again."""
    waiting_bytes: int = attrs.field(default=0, init=False)
    ready: Iterator[Message] = attrs.field(factory=lambda: iter(()), init=False)
    _topic: bytes = attrs.field(init=False)
    _chunks: deque[bytes] = attrs.field(factory=deque, init=False)
    """Payloads of DELIVER frames that nobody has looked at."""
    _current_chunk: bytes = attrs.field(default=b"", init=False)
    _current_from: int = attrs.field(default=0, init=False)
    """What `taken` was when the present chunk was begun."""
    _seen_tag: int = attrs.field(default=0, init=False)
    """Of the message of QoS 1 that was handed over last before that."""
    _receivers: Waiters = attrs.field(factory=Waiters, init=False)
    _relieved: trio.Event = attrs.field(factory=trio.Event, init=False)
    _attached: trio.Event = attrs.field(factory=trio.Event, init=False)
    _error: BlipMQError | None = attrs.field(default=None, init=False)
    _closed: bool = attrs.field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self._topic = encoded(self.wanted.topic)

    # For the consumer.

    async def open(self) -> None:
        """Waits until the broker has attached it. Cancelled, it is given up again."""
        await trio.lowlevel.checkpoint_if_cancelled()
        self.link.add(self)
        try:
            await self._attached.wait()
            if self._error is not None:
                raise _copy(self._error)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Detaches it: the broker takes back what is not settled."""
        self._closed = True
        self.link.remove(self)
        self.forget()
        self._receivers.wake()

    def take(self) -> Message | None:
        message = next(self.ready, None)
        while message is None and self._chunks:
            chunk = self._chunks.popleft()
            self.waiting_bytes -= len(chunk)
            self._relieved.set()
            self.stalled = False
            assert self.lease is not None
            self._begin(chunk)
            self.ready = messages(chunk, self, self.lease)
            message = next(self.ready, None)
        if message is None and self._error is not None:
            raise _copy(self._error)
        return message

    def _begin(self, chunk: bytes) -> None:
        if self.wanted.start is not None:
            self._seen_tag = self.seen_tag
        self._current_chunk, self._current_from = chunk, self.taken

    def alive(self, message: Message) -> bool:
        return message.tag is None or lease_of(message) is self.lease

    async def arrival(self) -> None:
        await self._receivers.wait()

    # For the link and its connections.

    def request(self, id_: int) -> bytes:
        """The ATTACH."""
        wanted = self.wanted
        name = None if wanted.name is None else wanted.name.encode()
        properties = AttachProperties(
            name,
            self.prefetch,
            self._start(),
            wanted.ack_wait_ms,
            wanted.max_attempts,
            wanted.pattern,
        )
        return encoder.attach(id_, self._topic, wanted.qos, encode_attach_properties(properties))

    def _start(self) -> Start | None:
        """Where to begin. A history that was read from its beginning is not read twice."""
        start = self.wanted.start
        if start is not None and self.wanted.name is None and (seen_tag := self.seen_tag):
            return Start(StartKind.TAG, seen_tag + 1)
        return start

    def attached(self, connection: PushConnection, id_: int) -> None:
        """The broker's answer. Messages may come from now on."""
        flush_at = max(1, min(256, self.prefetch // 4))
        self.lease = Lease(self, connection, id_, flush_at)
        self._attached.set()

    def deliver(self, chunk: bytes) -> None:
        self._chunks.append(chunk)
        self.waiting_bytes += len(chunk)
        if self.waiting_bytes > HIGH_WATER_BYTES and not self.wanted.qos:
            if self.lease is not None:
                self.lease.connection.crowded = True
            self._drop()
        self._receivers.wake()

    def _drop(self) -> None:
        while self.waiting_bytes > LIMIT_BYTES and len(self._chunks) > 1:
            dropped = self._chunks.popleft()
            self.waiting_bytes -= len(dropped)
            self.dropped += count(dropped)

    @property
    def left(self) -> int:
        """Messages among those that were begun that nobody has taken."""
        return length_hint(self.rows)

    @property
    def taken(self) -> int:
        """Messages that were handed over."""
        return self.begun - self.left

    @property
    def seen_tag(self) -> int:
        """Of the message of QoS 1 that was handed over last; known if there is a `start`."""
        return last_tag(self._current_chunk, self.taken - self._current_from) or self._seen_tag

    @property
    def closed(self) -> bool:
        """Whether its program has left it."""
        return self._closed

    @property
    def overfull(self) -> bool:
        """Whether so much waits at QoS 0 that its consumer is to be waited for."""
        return self.waiting_bytes > HIGH_WATER_BYTES and not self.wanted.qos and not self.stalled

    async def relieved(self) -> None:
        """Waits until its consumer has taken a good many messages."""
        self._relieved = trio.Event()
        await self._relieved.wait()

    def waiting_tags(self) -> list[int]:
        """Of the messages that nobody has taken."""
        begun = self.taken - self._current_from
        waiting = tags(self._current_chunk)[begun:]
        for chunk in self._chunks:
            waiting.extend(tags(chunk))
        return waiting

    def lost(self) -> None:
        """The connection is lost. Messages of QoS 1 that wait are dropped: they come again."""
        self.forget()
        if self.lease is not None:
            self.lease.end()

    def forget(self) -> None:
        """Hands over nothing more of what waits, but for QoS 0."""
        if self.wanted.qos:
            self._chunks.clear()
            self.waiting_bytes = 0
            if self.lease is not None:
                self.lease.forget_rows()
            self._begin(b"")
            self.begun, self.rows = self.taken, iter(())
            self.ready = iter(())

    def failed(self, error: BlipMQError) -> None:
        """There will be nothing more."""
        self._error = error
        self._attached.set()
        self._receivers.wake()

    def ended(self, reason: str) -> None:
        """The broker has ended it."""
        if self.lease is not None:
            self.lease.end()
        self.failed(SubscriptionEnded(reason))


@attrs.define(eq=False)
class Attaching:
    """An ATTACH on its way."""

    attachment: Attachment
    connection: PushConnection

    def answered(self, frame: Frame) -> None:
        if frame.type != ACK:
            raise FramingError("PONG where ACK was due")
        self.connection.attached(self.attachment, U64.unpack(frame.payload)[0])

    def refused(self, error: Refused) -> None:
        self.connection.link.not_attached(self.attachment, error)

    def lost(self, error: ClientError) -> None:
        """It is attached to the next connection."""


def _copy(error: BlipMQError) -> BlipMQError:
    if isinstance(error, ClientError):
        return again(error)
    if isinstance(error, Refused):
        return type(error)(error.code, error.message)
    return error
