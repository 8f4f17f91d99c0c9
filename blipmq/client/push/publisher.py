"""The pipeline of version 2: publishes run ahead of their confirmations by a window."""

from __future__ import annotations

from collections.abc import Mapping
from struct import Struct
from typing import TYPE_CHECKING, Final

import trio
from trio.lowlevel import cancel_shielded_checkpoint, checkpoint_if_cancelled

from blipmq.client.outgoing import Body, check_size, checked_body, properties_of, with_message_id
from blipmq.client.publisher import Publisher
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

    async def send(
        self,
        body: Body,
        *,
        ttl: float | None = None,
        delay: float | None = None,
        message_id: bytes | None = None,
        key: bytes | None = None,
        reply_to: str | None = None,
        content_type: str | None = None,
        trace_context: str | None = None,
        headers: Mapping[str, bytes] | None = None,
        timestamp: float | None = None,
    ) -> None:
        properties: MessageProperties | None = None
        if (
            ttl is not None
            or delay is not None
            or message_id is not None
            or key is not None
            or reply_to is not None
            or content_type is not None
            or trace_context is not None
            or headers is not None
            or timestamp is not None
        ):
            properties = properties_of(
                ttl=ttl,
                delay=delay,
                message_id=message_id,
                key=key,
                reply_to=reply_to,
                content_type=content_type,
                trace_context=trace_context,
                headers=headers,
                timestamp=timestamp,
                qos=self.qos,
            )
        if type(body) is not bytes:
            body = checked_body(body)
        if len(body) > _SMALL_BYTES:
            check_size(len(body), self._topic, self._head)
        await checkpoint_if_cancelled()
        link = self._link
        if self._closed:
            self._check_open()
        if link.unusable:
            link.check()
        if not self.qos:
            await self._send_qos0(body, properties)
        else:
            if not (self._under_way < self.window and self._under_way_bytes < self._window_bytes):
                await link.until(self._has_room, self._settled.park)
            unconfirmed = link.unconfirmed
            id_ = unconfirmed.next_id
            if properties is None:
                frame = self._pack(self._fixed + len(body), MESSAGE, id_, self._head, id_) + body
            else:
                frame = self._frame(id_, body, properties)
            unconfirmed.add(self, frame)
            link.outbox.put(frame)
            self._under_way += 1
            self._under_way_bytes += len(frame)
        self._sent += 1
        self._steps += 1
        if self._steps >= STEPS:
            self._steps = 0
            await cancel_shielded_checkpoint()

    def _frame(self, id_: int, body: bytes, properties: MessageProperties) -> bytes:
        encoded_ = with_message_id(properties, self._link.prefix + U64.pack(id_))
        check_size(len(body), self._topic, encoded_)
        return encoder.message(id_, 1, self._topic, encoded_, body)

    async def _send_qos0(self, body: bytes, properties: MessageProperties | None) -> None:
        link = self._link
        if link.outbox.full:
            await link.room()
        if properties is None:
            frame = self._pack(self._fixed + len(body), PUBLISH, QOS0_ID, self._head) + body
        else:
            encoded_ = encode_message_properties(properties)
            check_size(len(body), self._topic, encoded_)
            frame = encoder.message(QOS0_ID, 0, self._topic, encoded_, body)
        link.tell(frame)

    def _has_room(self) -> bool:
        return self._under_way < self.window and self._under_way_bytes < self._window_bytes

    async def _flushed(self) -> None:
        while self._under_way:
            await self._settled.park()
        if not self.qos:
            self._link.check()

    # As the owner of its publishes.

    def confirmed(self, count: int, size: int) -> None:
        self._under_way -= count
        self._under_way_bytes -= size
        if self._settled:
            self._settled.unpark_all()

    def refused(self, number: int, size: int, error: Refused) -> None:
        self._failure(number, error)
        self.confirmed(1, size)

    def lost(self, number: int, count: int, size: int, error: ClientError) -> None:
        self._failure(number, again(error), count)
        self.confirmed(count, size)

    def wake(self) -> None:
        self._settled.unpark_all()
