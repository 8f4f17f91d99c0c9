"""The wire half of protocol version 2: one connection, from its INFO to its end."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Final

import attrs
import trio

from blipmq.client.push.attachment import Attaching, Attachment
from blipmq.client.push.lease import ACK_WAIT_MS, Lease
from blipmq.client.reply import Expected, Reply
from blipmq.client.splitter import Splitter
from blipmq.client.wire import FIRST_ID, Wire, parse_nack
from blipmq.errors import ClientError, ConnectionLost, FramingError, Refused
from blipmq.protocol import encoder
from blipmq.protocol.frames import (
    ACK,
    CONFIRM,
    DELIVER,
    DETACH,
    INFO,
    NACK,
    PONG,
    TYPES_V2,
    Frame,
)
from blipmq.protocol.pushes import parse_detached, parse_info

if TYPE_CHECKING:
    from blipmq.client.push.link import Link

SETTLE_DELAY_S: Final = 0.002
"""Settlements wait so long for others, unless they are many or something else is sent."""
RELIEF_S: Final = 0.1
"""So long the connection is not read for a consumer that takes nothing."""


@attrs.define(eq=False)
class PushConnection(Wire):
    """One connection to a broker that speaks version 2."""

    link: Link = attrs.field(kw_only=True)
    types: Mapping[int, str] = attrs.field(default=TYPES_V2, init=False)
    ack_wait_ms: int = attrs.field(default=ACK_WAIT_MS, init=False)
    draining: bool = attrs.field(default=False, init=False)
    """The broker is about to shut down."""
    _told_id: int = attrs.field(default=FIRST_ID, init=False)
    """An answer to this request or a later one says that all that has none has arrived."""
    _sent_id: int = attrs.field(default=FIRST_ID, init=False)
    """The first request that was not sent when something was sent last."""
    _answered_id: int = attrs.field(default=FIRST_ID, init=False)
    _leases: dict[int, Lease] = attrs.field(factory=dict, init=False)
    _to_settle: list[Lease] = attrs.field(factory=list, init=False)
    """Those that have rows."""
    _settle_soon: trio.Event = attrs.field(factory=trio.Event, init=False)
    _leased: trio.Event = attrs.field(factory=trio.Event, init=False)
    crowded: bool = attrs.field(default=False, init=False)
    """Whether an attachment may be too full to go on reading."""
    _clock: trio.abc.Clock = attrs.field(factory=trio.lowlevel.current_clock, init=False)
    _heartbeat_s: float = attrs.field(default=0.0, init=False)
    _informed: trio.Event = attrs.field(factory=trio.Event, init=False)
    _sent_at: float = attrs.field(factory=trio.current_time, init=False)
    _received_at: float = attrs.field(factory=trio.current_time, init=False)
    _failure: FramingError | None = attrs.field(default=None, init=False)
    _failed: trio.Event = attrs.field(factory=trio.Event, init=False)

    # What the link asks of it.

    @property
    def error(self) -> ClientError | None:
        """Why it has ended."""
        return self._ended

    @property
    def in_doubt(self) -> bool:
        """Whether something that has no answer may not have arrived."""
        return bool(self._to_settle) or self.outbox.told or self._answered_id < self._told_id

    def ask(self, frames: Callable[[int], bytes], expected: Expected) -> int:
        id_ = super().ask(frames, expected)
        if self.outbox.told:
            self._told_id, self.outbox.told = id_, False
        return id_

    def attach(self, attachment: Attachment) -> None:
        self.ask(attachment.request, Attaching(attachment, self))

    def attached(self, attachment: Attachment, id_: int) -> None:
        """The broker has attached it, and may send messages from now on."""
        attachment.attached(self, id_)
        lease = attachment.lease
        assert lease is not None
        if attachment.closed:
            self.detach(lease)
            return
        self._leases[id_] = lease
        self._leased.set()

    def detach(self, lease: Lease) -> None:
        """Ends an attachment, behind all that was settled of it."""
        if self._ended is None:
            self.outbox.put(lease.take_rows())
            self.outbox.told = True
            self.ask(lambda id_: encoder.detach(id_, lease.id), Unheard())
        self._leases.pop(lease.id, None)
        lease.end()

    def settling(self, lease: Lease) -> None:
        """It has rows to be sent, at the latest in a few milliseconds."""
        self._to_settle.append(lease)
        self._settle_soon.set()

    def fail(self, error: FramingError) -> None:
        """The broker has broken the protocol, as was found out later."""
        self._failure = error
        self._failed.set()

    def drain(self) -> None:
        """The broker is about to shut down: hand over nothing more, and leave in good order."""
        self.draining = True
        for lease in self._leases.values():
            lease.attachment.forget()
            lease.quick = 0
        self.drained()

    def drained(self) -> None:
        """Gives back what was not handed over, as soon as all that was is settled."""
        for lease in list(self._leases.values()):
            if lease.attachment.wanted.qos and not lease.unsettled:
                self.detach(lease)
        if not any(lease.attachment.wanted.qos for lease in self._leases.values()):
            self._failed.set()

    # Its life.

    def _work(self) -> list[Callable[[], Awaitable[None]]]:
        return [
            self._read,
            self._write,
            self._settle,
            self._keep_messages,
            self._keep_connection,
            self._wait_for_failure,
        ]

    def _end(self, error: ClientError) -> None:
        if self._ended is None:
            self.link.ended(self)
        super()._end(error)
        for lease in self._leases.values():
            lease.attachment.lost()
        self._leases.clear()
        self._to_settle.clear()

    async def _wait_for_failure(self) -> None:
        await self._failed.wait()
        if self._failure is not None:
            raise self._failure
        await self.link.unconfirmed.settled(self.link.resend_before)
        if self._ended is not None:
            return  # it was lost in the same moment
        reply = Reply(PONG)
        self.ask(encoder.ping, reply)  # so that the settlements have arrived
        try:
            await reply.wait()
        except ClientError:
            return  # it has ended meanwhile, and says why
        raise ConnectionLost(f"the broker at {self.name} is shutting down")

    async def _write(self) -> None:
        outbox = self.outbox
        while True:
            outbox.shortcut, outbox.spent = self._send_now, False
            await outbox.filled()
            outbox.shortcut = None
            if self._to_settle:  # which goes ahead of all that waits
                self._told_id = max(self._told_id, self._sent_id)
            frames = self.outbox.drain(self._settlements())
            self._sent_id = self._next_id
            self._sent_at = trio.current_time()
            if frames:
                await self._line.send(frames)

    def _send_now(self, frame: bytes) -> int:
        self._sent_at = self._clock.current_time()
        return self._line.send_now(frame)

    def _settlements(self) -> bytes:
        if not self._to_settle:
            return b""
        leases, self._to_settle = self._to_settle, []
        return b"".join([lease.take_rows() for lease in leases])

    async def _settle(self) -> None:
        """Sends settlements a little while after the first of them."""
        while True:
            await self._settle_soon.wait()
            await trio.sleep(SETTLE_DELAY_S)
            self._settle_soon = trio.Event()
            if self._to_settle:
                self.outbox.nudge()

    async def _keep_messages(self) -> None:
        """Keeps alive what is worked on, three times in each ack wait."""
        due_at = math.inf
        while True:
            with trio.move_on_at(due_at):
                await self._leased.wait()
            self._leased = trio.Event()
            if trio.current_time() >= due_at:
                due_at = math.inf
                for lease in self._leases.values():
                    self.outbox.put(lease.extensions())
            waits = [
                lease.ack_wait_s for lease in self._leases.values() if lease.attachment.wanted.qos
            ]
            if waits:
                due_at = min(due_at, trio.current_time() + min(waits) / 3)

    async def _keep_connection(self) -> None:
        """Asks for a sign of life when there was none for a while. Raises `ConnectionLost`."""
        while True:
            await self._informed.wait()
            interval = self._heartbeat_s
            if not interval:
                await trio.sleep_forever()
            if self._ended is not None:
                return  # it was lost in the same moment
            now = trio.current_time()
            if now >= self._received_at + 2 * interval:
                raise ConnectionLost(f"{self.name} has been silent for {2 * interval:g} seconds")
            quiet_at = min(self._sent_at, self._received_at) + interval
            if now >= quiet_at:
                self.ask(encoder.ping, Unheard())
                self._sent_at = now
                quiet_at = now + interval
            await trio.sleep_until(min(quiet_at, self._received_at + 2 * interval))

    async def _read(self) -> None:
        splitter = Splitter(self.types)
        data = self.rest or await self._line.receive()
        while data:
            lone = splitter.lone(data)
            if lone is None:
                for frame in splitter.split(data):
                    self.take(frame)
            else:
                self._take(*lone)
            if self.crowded:
                self.crowded = False
                await self._relieve()
            data = await self._line.receive()
            self.outbox.spent = False
            self._received_at = self._clock.current_time()

    async def _relieve(self) -> None:
        """Waits while a consumer of QoS 0 messages has many to take, and goes on taking them."""
        for lease in list(self._leases.values()):
            attachment = lease.attachment
            while attachment.overfull and not attachment.closed:
                taken = attachment.taken
                with trio.move_on_after(RELIEF_S):
                    await attachment.relieved()
                attachment.stalled = attachment.taken == taken

    # What comes in.

    def take(self, frame: Frame) -> None:
        self._take(frame.type, frame.correlation_id, frame.payload)

    def _take(self, type_: int, id_: int, payload: bytes) -> None:
        if type_ == DELIVER:
            lease = self._leases.get(id_)
            # Else it was sent before the broker knew that the attachment is left.
            if lease is not None and not (self.draining and lease.attachment.wanted.qos):
                lease.attachment.deliver(payload)
        elif type_ == CONFIRM:
            self.link.unconfirmed.confirm(id_)
        elif type_ in (ACK, PONG):
            self._answered_id = id_
            self._answered(Frame(type_, id_, payload))
        elif type_ == NACK:
            self._refused(id_, parse_nack(Frame(type_, id_, payload)))
        elif type_ == INFO:
            self._inform(parse_info(payload))
        elif type_ == DETACH:
            detached, reason = parse_detached(payload)
            lease = self._leases.pop(detached, None)
            if lease is not None:
                lease.attachment.ended(reason)
        else:
            raise FramingError(f"a {self.types[type_]}")

    def _refused(self, id_: int, error: Refused) -> None:
        waiting = self._expected.pop(id_, None)
        if waiting is not None:
            waiting.refused(error)
        elif id_ == 0:
            self.refusals.accept(error)
        elif not self.link.refused(id_, error):
            self.refusals.publish(error)

    def _inform(self, info: Mapping[str, object]) -> None:
        heartbeat_ms = info.get("heartbeat_ms")
        if isinstance(heartbeat_ms, int) and heartbeat_ms >= 0:
            self._heartbeat_s = heartbeat_ms / 1000
        ack_wait_ms = info.get("ack_wait_ms")
        if isinstance(ack_wait_ms, int) and ack_wait_ms > 0:
            self.ack_wait_ms = ack_wait_ms
        self._informed.set()
        if info.get("draining") is True and not self.draining:
            self.link.draining()


@attrs.define(eq=False)
class Unheard:
    """A request whose answer changes nothing."""

    def answered(self, frame: Frame) -> None:
        pass

    def refused(self, error: Refused) -> None:
        pass

    def lost(self, error: ClientError) -> None:
        pass
