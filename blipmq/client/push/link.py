"""A client's standing with brokers of version 2: what lasts when one connection follows another."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import attrs
import trio

from blipmq.client.dial import Dialled
from blipmq.client.outbox import Outbox
from blipmq.client.outgoing import Body, check_size, checked_body, with_message_id
from blipmq.client.publisher import Publisher
from blipmq.client.push.attachment import PREFETCH, Attachment
from blipmq.client.push.connection import PushConnection
from blipmq.client.push.publisher import PushPublisher
from blipmq.client.push.template import QOS0_ID, SMALL_BYTES, Template
from blipmq.client.push.unconfirmed import Unconfirmed
from blipmq.client.refusals import Refusals
from blipmq.client.reply import Reply, again
from blipmq.client.source import Source, Wanted
from blipmq.client.states import State, States
from blipmq.client.topic import encoded
from blipmq.client.tracing import CurrentContext, TracedPublisher, with_context
from blipmq.client.waiters import Waiters
from blipmq.client.wire import closed
from blipmq.errors import (
    BlipMQError,
    ClientError,
    ConnectionLost,
    Refused,
    Unavailable,
    WindowFull,
)
from blipmq.protocol import encoder
from blipmq.protocol.attach_properties import AttachProperties, encode_attach_properties
from blipmq.protocol.frames import PONG, U64, Frame
from blipmq.protocol.properties import MessageProperties, encode_message_properties

TEMPLATES_MAX: Final = 64
Redial = Callable[[str | None], Awaitable[Dialled]]
"""Connects again, to another broker than this one if there is any. Raises `ConnectionLost`."""


@attrs.define(eq=False)
class Link:
    """The engine of a client on version 2.

    While there is no connection, frames gather in `outbox`. Ahead of them, of the publishes with
    lower numbers than `resend_before`, those are sent again that were not confirmed.
    """

    name: str
    prefix: bytes
    """Of the message ids."""
    _redial: Redial | None
    _patience_s: float
    """So long a full window is waited for while the connection is down."""
    _current_context: CurrentContext | None = None
    """What gives published messages their trace context; None: nothing does."""
    version: int = attrs.field(default=2, init=False)
    refusals: Refusals = attrs.field(factory=Refusals, init=False)
    states: States = attrs.field(factory=States, init=False)
    unconfirmed: Unconfirmed = attrs.field(factory=Unconfirmed, init=False)
    outbox: Outbox = attrs.field(factory=Outbox, init=False)
    resend_before: int = attrs.field(default=0, init=False)
    _templates: tuple[dict[str, Template], dict[str, Template]] = attrs.field(
        factory=lambda: ({}, {}), init=False
    )
    """Of the topics that were published to last, at QoS 0 and at QoS 1."""
    _connection: PushConnection | None = attrs.field(default=None, init=False)
    _attachments: list[Attachment] = attrs.field(factory=list, init=False)
    _error: ClientError | None = attrs.field(default=None, init=False)
    _leaving: bool = attrs.field(default=False, init=False)
    unusable: bool = attrs.field(default=False, init=False)
    """Whether `check` raises."""
    _in_doubt: bool = attrs.field(default=False, init=False)
    """Whether something without an answer was on its way when the last connection was lost."""
    _running: trio.CancelScope = attrs.field(
        factory=lambda: trio.CancelScope(shield=True), init=False
    )

    # For programs.

    async def publish(
        self, topic: str, body: Body, qos: int, properties: MessageProperties | None
    ) -> None:
        """As `Client.publish`."""
        if self._current_context is not None:
            properties = with_context(properties, self._current_context)
        template = self._templates[qos].get(topic) or self._template(topic, qos)
        data = body if type(body) is bytes else checked_body(body)
        plain = properties is None and len(data) <= SMALL_BYTES
        await trio.lowlevel.checkpoint_if_cancelled()
        if self.unusable or self.outbox.full:
            await self.room()
        if qos:
            id_ = self.unconfirmed.next_id
            if plain:
                frame = template.frame(id_, data)
            else:
                frame = qos1_frame(id_, template.topic, data, properties, self.prefix)
            confirm = Confirm(self)
            self.unconfirmed.add(confirm, frame)
            self.outbox.send(frame)
            await confirm.wait()
            return
        if plain:
            frame = template.qos0_head(len(data)) + data
        else:
            frame = qos0_frame(template.topic, data, properties)
        outbox = self.outbox
        outbox.told = True
        if not outbox.send(frame):  # else the next one, at the latest, lets others run
            await trio.lowlevel.cancel_shielded_checkpoint()
            outbox.spent = False

    def _template(self, topic: str, qos: int) -> Template:
        """A new one. Raises `ValueError` for a topic that cannot be."""
        templates = self._templates[qos]
        template = Template(encoded(topic), self.prefix if qos else None)
        if len(templates) >= TEMPLATES_MAX:
            del templates[next(iter(templates))]
        templates[topic] = template
        return template

    def tell(self, frame: bytes) -> None:
        """Sends what has no answer."""
        self.outbox.tell(frame, b"")

    def publisher(self, topic: str, qos: int, window: int, window_bytes: int) -> Publisher:
        publisher = PushPublisher(self, topic, qos, window, window_bytes)
        current = self._current_context
        return publisher if current is None else TracedPublisher(publisher, current)

    def source(self, wanted: Wanted) -> Source:
        return Attachment(self, wanted, wanted.prefetch or PREFETCH)

    async def ping(self) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        self.check()
        await (await self._connected()).request(encoder.ping, PONG)

    async def delete_subscription(self, topic: str, name: str) -> None:
        """As `Client.delete_subscription`."""
        properties = encode_attach_properties(AttachProperties(name=name.encode()))
        topic_bytes = encoded(topic)
        await trio.lowlevel.checkpoint_if_cancelled()
        self.check()
        connection = await self._connected()
        deletion = Deletion(connection)
        connection.ask(lambda id_: encoder.attach(id_, topic_bytes, 1, properties), deletion)
        try:
            await deletion.reply.wait()
        except trio.Cancelled:
            deletion.wanted = False
            raise

    # For the rest of the client.

    @property
    def closed(self) -> bool:
        return self.states.now is State.CLOSED

    @property
    def down(self) -> bool:
        """Whether nothing is sent for now."""
        return self.outbox is not (self._connection and self._connection.outbox)

    def check(self) -> None:
        """Raises `ConnectionLost` or `ClientClosed` when nothing will be sent any more."""
        if self._error is not None:
            raise again(self._error)
        if self._leaving:
            raise closed()

    async def room(self) -> None:
        """Waits until the outbox takes more; a checkpoint only if it has to wait.

        Raises as `until` does. Until the next checkpoint, the caller may send.
        """
        self.check()
        if self.outbox.full:
            await self.until(self._has_room, self._emptied)

    async def until(self, room: Callable[[], bool], waiting: Callable[[], Awaitable[None]]) -> None:
        """Waits until there is `room`, of which `waiting` waits for a sign.

        Raises as `check` does, and `WindowFull` when the connection is down for too long.
        """
        while not room():
            if self.down:
                with trio.move_on_after(self._patience_s) as patience:
                    await waiting()
                if patience.cancelled_caught:
                    raise WindowFull(
                        f"the connection to {self.name} is down, "
                        "and what is to be sent fills the window"
                    )
            else:
                await waiting()
            self.check()

    def _has_room(self) -> bool:
        return not self.outbox.full

    async def _emptied(self) -> None:
        await self.outbox.emptied()

    def add(self, attachment: Attachment) -> None:
        """Attaches it, to this connection and every later one. Raises as `check` does."""
        self.check()
        self._attachments.append(attachment)
        connection = self._connection
        if connection is not None and not self.down:
            connection.attach(attachment)

    def remove(self, attachment: Attachment) -> None:
        if attachment in self._attachments:
            self._attachments.remove(attachment)
        lease = attachment.lease
        if lease is not None and lease.live:
            lease.connection.detach(lease)

    def not_attached(self, attachment: Attachment, error: Refused) -> None:
        """The broker's NACK. One that is shutting down says nothing about the next one."""
        if self._redial is not None and is_draining(error) and not self._leaving:
            return
        if attachment in self._attachments:
            self._attachments.remove(attachment)
        attachment.failed(error)

    def refused(self, id_: int, error: Refused) -> bool:
        """The NACK of a publish at QoS 1; False if there is none of that number."""
        again_ = self._redial is not None and is_draining(error) and not self._leaving
        return self.unconfirmed.refuse(id_, error, postpone=again_)

    def draining(self) -> None:
        """The broker is about to shut down: finish with it, and keep the rest for the next one."""
        connection = self._connection
        if connection is None or self._redial is None:
            return
        self._begin_backlog()
        self.states.become(State.DRAINING)
        connection.drain()

    # Its life.

    async def run(self, first: Dialled) -> None:
        """Keeps a connection until `stop`, or until there is none to be had. To be run once."""
        dialled = first
        with self._running:
            while True:
                connection = PushConnection(
                    dialled.stream, dialled.name, dialled.rest, self.refusals, link=self
                )
                self._adopt(connection)
                await connection.run()
                if self._redial is None or self._leaving:
                    assert connection.error is not None
                    self._give_up(connection.error)
                    return
                self.states.become(State.RECONNECTING)
                try:
                    dialled = await self._redial(connection.name if connection.draining else None)
                except (ConnectionLost, Refused) as error:
                    self._give_up(_lost(error))
                    return

    def _adopt(self, connection: PushConnection) -> None:
        """Attach everything, send again what is in doubt, then what was kept meanwhile."""
        self.name = connection.name
        for attachment in self._attachments:
            connection.attach(attachment)
        resent = self.unconfirmed.again(self.resend_before)
        if resent:
            connection.outbox.put(resent)
        if self.outbox.waiting:
            connection.outbox.put(self.outbox.drain())
        if self.outbox.told:
            connection.outbox.told = True
        self._connection, backlog, self.outbox = connection, self.outbox, connection.outbox
        backlog.wake()
        self.states.become(State.CONNECTED)
        self.states.wake()

    def _begin_backlog(self) -> None:
        if self.down:
            return
        before, self.outbox = self.outbox, Outbox()
        self.resend_before = self.unconfirmed.next_id
        before.wake()
        self.unconfirmed.wake()

    def ended(self, connection: PushConnection) -> None:
        """The connection has just been lost."""
        self._in_doubt = connection.in_doubt
        self._begin_backlog()
        self._connection = None
        self.states.wake()

    def _give_up(self, error: ClientError) -> None:
        self._error, self.unusable = error, True
        if not self.closed:
            self.states.become(State.LOST)
        self.unconfirmed.lose(error)
        for attachment in self._attachments:
            attachment.failed(error)
        self._attachments.clear()
        self.outbox.wake()
        self.states.wake()

    async def _connected(self) -> PushConnection:
        """The connection, waiting for one. Raises when there will be none any more."""
        while True:
            if self._error is not None:
                raise again(self._error)
            if self._connection is not None and not self.down:
                return self._connection
            await self.states.changed()

    async def leave(self, timeout_s: float) -> None:
        """Waits until all publishes are settled and the broker has looked at all that was sent.

        Takes no more requests. Waits no longer than `timeout_s`, and cannot be cancelled.
        """
        self._leaving = self.unusable = True
        self.outbox.wake()
        with trio.move_on_after(timeout_s, shield=True):
            try:
                await self.unconfirmed.settled(self.unconfirmed.next_id)
                await (await self._connected()).request(encoder.ping, PONG)
            except BlipMQError:
                return  # `in_doubt` says what this means

    @property
    def in_doubt(self) -> bool:
        """Whether something that was sent may not have reached a broker."""
        connection = self._connection
        lost = self._in_doubt if connection is None else connection.in_doubt
        return lost or self.outbox.told or bool(self.unconfirmed)

    def stop(self) -> None:
        """Ends it for good: everyone who waits or comes later gets `ClientClosed`."""
        self.states.become(State.CLOSED)
        connection = self._connection
        if connection is not None:
            connection.stop()
        self._give_up(closed())
        self._running.cancel()


@attrs.define(eq=False)
class Confirm:
    """What one publish waits for."""

    _link: Link
    _over: Waiters = attrs.field(factory=Waiters, init=False)
    _error: BlipMQError | None = attrs.field(default=None, init=False)
    _abandoned: bool = attrs.field(default=False, init=False)
    sent: int = attrs.field(default=0, init=False)

    async def wait(self) -> None:
        """Until it is committed. Raises the NACK's error, or why that will not be known.

        When this is cancelled, a NACK goes to the refusals that no call waits for.
        """
        try:
            await self._over.wait()  # it was sent a moment ago, so it cannot be over
        except trio.Cancelled:
            self._abandoned = True
            if isinstance(self._error, Refused):
                self._link.refusals.publish(self._error)
            raise
        if self._error is not None:
            raise self._error

    def confirmed(self, count: int, size: int) -> None:
        self._over.wake()

    def refused(self, number: int, size: int, error: Refused) -> None:
        self._error = error
        self._over.wake()
        if self._abandoned:
            self._link.refusals.publish(error)

    def lost(self, number: int, count: int, size: int, error: ClientError) -> None:
        self._error = again(error)
        self._over.wake()

    def wake(self) -> None:
        pass


@attrs.define(eq=False)
class Deletion:
    """An ATTACH to a named subscription, followed by the DETACH that deletes it.

    When it is not wanted any more by then, the DETACH only takes back the ATTACH: messages that
    the caller has published since are not to go with the others.
    """

    _connection: PushConnection
    reply: Reply = attrs.field(factory=Reply, init=False)
    wanted: bool = attrs.field(default=True, init=False)

    def answered(self, frame: Frame) -> None:
        (id_,) = U64.unpack(frame.payload)
        self._connection.ask(lambda each: encoder.detach(each, id_, delete=self.wanted), self.reply)

    def refused(self, error: Refused) -> None:
        self.reply.refused(error)

    def lost(self, error: ClientError) -> None:
        self.reply.lost(error)


def qos0_frame(topic: bytes, body: bytes, properties: MessageProperties | None) -> bytes:
    """A publish at QoS 0. Raises `TooLarge`, and `ValueError` for properties that cannot be."""
    if properties is None:
        check_size(len(body), topic)
        return encoder.publish(QOS0_ID, 0, topic, body)
    encoded_ = encode_message_properties(properties)
    check_size(len(body), topic, encoded_)
    return encoder.message(QOS0_ID, 0, topic, encoded_, body)


def qos1_frame(
    id_: int, topic: bytes, body: bytes, properties: MessageProperties | None, prefix: bytes
) -> bytes:
    """A publish at QoS 1. Raises as `qos0_frame`."""
    encoded_ = with_message_id(properties, prefix + U64.pack(id_))
    check_size(len(body), topic, encoded_)
    return encoder.message(id_, 1, topic, encoded_, body)


def is_draining(error: Refused) -> bool:
    return isinstance(error, Unavailable) and error.message == "draining"


def _lost(error: ConnectionLost | Refused) -> ConnectionLost:
    if isinstance(error, ConnectionLost):
        return error
    lost = ConnectionLost(f"cannot connect again: {error}")
    lost.__cause__ = error
    return lost
