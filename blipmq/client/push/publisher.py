"""The pipeline of version 2: publishes run ahead of their confirmations by a window."""

from __future__ import annotations

from collections.abc import Iterable
from struct import Struct
from typing import TYPE_CHECKING, Final, Unpack

import trio
from trio.lowlevel import cancel_shielded_checkpoint, checkpoint, checkpoint_if_cancelled

from blipmq.client.outgoing import (
    Body,
    PublishOptions,
    check_size,
    checked_body,
    properties_of,
    with_message_id,
)
from blipmq.client.publisher import Publisher, not_shared, window_full
from blipmq.client.push.connection import QOS0_ID
from blipmq.client.push.lease import STEPS
from blipmq.client.reply import again
from blipmq.client.topic import encoded
from blipmq.errors import ClientError, Refused
from blipmq.protocol import encoder
from blipmq.protocol.frames import LENGTH_MIN, MESSAGE, PUBLISH, U16, U64
from blipmq.protocol.properties import MESSAGE_ID, MessageProperties, encode_message_properties

if TYPE_CHECKING:
    from blipmq.client.push.link import Link

_SMALL_BYTES: Final = 1024 * 1024
"""What no check of the size is needed for."""


class PushPublisher(Publisher):
    """See `Publisher`. At QoS 0 there is no window, but for what waits to be sent."""

    def __init__(self, link: Link, topic: str, qos: int, window: int, window_bytes: int) -> None:
        super().__init__(topic, qos, window)
        self._link = link
        self._topic = encoded(topic)
        self._window_bytes = window_bytes
        self._under_way = 0
        self._under_way_bytes = 0
        self._steps = 0
        self._qos0_size = -1
        self._qos0_head = b""
        self._settled = trio.lowlevel.ParkingLot()
        from_topic = U16.pack(len(self._topic)) + self._topic
        # All of a frame without other properties before its body, in one go.
        if qos:
            message_id = bytes((MESSAGE_ID,)) + U16.pack(len(link.prefix) + U64.size) + link.prefix
            size = len(message_id) + U64.size
            self._head = b"\x01" + from_topic + U16.pack(size) + message_id
            self._pack = Struct(f">IBQ{len(self._head)}sQ").pack
            self._fixed = LENGTH_MIN + len(self._head) + U64.size
        else:
            self._head = b"\x00" + from_topic
            self._pack = Struct(f">IBQ{len(self._head)}s").pack
            self._fixed = LENGTH_MIN + len(self._head)

    async def send(self, body: Body, **options: Unpack[PublishOptions]) -> None:
        if type(body) is not bytes or options or len(body) > _SMALL_BYTES:
            body, properties = self._checked(body, options)
        else:
            properties = None
        await checkpoint_if_cancelled()
        if self._closed or self._link.unusable:
            self._check()
        if not self._has_room():
            await self._room()
        self._put(body, properties)
        if self._steps >= STEPS:
            self._steps = 0
            await cancel_shielded_checkpoint()

    def send_nowait(self, body: Body, **options: Unpack[PublishOptions]) -> None:
        body, properties = self._checked(body, options)
        self._check()
        if not self._has_room():
            raise window_full()
        self._put(body, properties)

    async def send_many(self, bodies: Iterable[Body], **options: Unpack[PublishOptions]) -> None:
        not_shared(options)
        _, properties = self._checked(b"", options)
        await checkpoint_if_cancelled()
        self._check()
        for body in bodies:
            if type(body) is not bytes or len(body) > _SMALL_BYTES:
                body, _ = self._checked(body, options)
            while not self._has_room():
                await self._room()
                self._check()
            self._put(body, properties)
            if self._steps >= STEPS:
                self._steps = 0
                await checkpoint()
                self._check()

    def _checked(
        self, body: Body, options: PublishOptions
    ) -> tuple[bytes, MessageProperties | None]:
        """Raises for what is not to be sent."""
        properties = properties_of(qos=self.qos, **options) if options else None
        data = checked_body(body)
        if len(data) > _SMALL_BYTES:
            check_size(len(data), self._topic, self._encoded(0, properties))
        return data, properties

    def _encoded(self, id_: int, properties: MessageProperties | None) -> bytes:
        if self.qos:
            return with_message_id(properties, self._link.prefix + U64.pack(id_))
        return b"" if properties is None else encode_message_properties(properties)

    def _check(self) -> None:
        self._check_open()
        self._link.check()

    def _has_room(self) -> bool:
        if self.qos:
            return self._under_way < self.window and self._under_way_bytes < self._window_bytes
        return not self._link.outbox.full

    async def _room(self) -> None:
        if self.qos:
            await self._link.until(self._has_room, self._settled.park)
        else:
            await self._link.room()

    def _put(self, body: bytes, properties: MessageProperties | None) -> None:
        """Sends a message for which there is room."""
        link, size = self._link, len(body)
        if self.qos:
            id_ = link.unconfirmed.next_id
            if properties is None:
                frame = self._pack(self._fixed + size, MESSAGE, id_, self._head, id_) + body
            else:
                frame = encoder.message(id_, 1, self._topic, self._encoded(id_, properties), body)
            link.unconfirmed.add(self, frame)
            link.outbox.put(frame)
            self._under_way += 1
            self._under_way_bytes += len(frame)
        elif properties is None:
            if size != self._qos0_size:
                self._qos0_size = size
                self._qos0_head = self._pack(self._fixed + size, PUBLISH, QOS0_ID, self._head)
            link.outbox.tell(self._qos0_head, body)
        else:
            encoded_ = self._encoded(0, properties)
            link.outbox.tell(encoder.message(QOS0_ID, 0, self._topic, encoded_, body), b"")
        self._sent += 1
        self._steps += 1

    async def _flushed(self) -> None:
        while self._under_way:
            await self._settled.park()
        if not self.qos:
            self._link.check()

    # As the owner of its publishes.

    def confirmed(self, count: int, size: int) -> None:
        self._under_way -= count
        self._under_way_bytes -= size
        # Who waits goes on with a good part of the window, rather than with what one commit leaves.
        if self._settled and self._under_way * 4 <= self.window * 3:
            self._settled.unpark_all()

    def refused(self, number: int, size: int, error: Refused) -> None:
        self._failure(number, error)
        self.confirmed(1, size)

    def lost(self, number: int, count: int, size: int, error: ClientError) -> None:
        self._failure(number, again(error), count)
        self.confirmed(count, size)

    def wake(self) -> None:
        self._settled.unpark_all()
