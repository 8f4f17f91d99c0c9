"""The pipeline of version 2: publishes run ahead of their confirmations by a window."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from struct import iter_unpack
from typing import TYPE_CHECKING, Final, Unpack

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
from blipmq.client.push.lease import STEPS
from blipmq.client.push.template import QOS0_ID, SMALL_BYTES, Template, alike
from blipmq.client.reply import again
from blipmq.client.topic import encoded
from blipmq.client.waiters import Waiters
from blipmq.errors import ClientError, Refused
from blipmq.protocol import encoder
from blipmq.protocol.frames import U64
from blipmq.protocol.properties import MessageProperties, encode_message_properties

if TYPE_CHECKING:
    from blipmq.client.push.link import Link

_TOGETHER_BYTES: Final = 256 * 1024
"""So much is made into frames at once."""


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
        self._settled = Waiters()
        self._template = Template(self._topic, link.prefix if qos else None)

    async def send(self, body: Body, **options: Unpack[PublishOptions]) -> None:
        if type(body) is not bytes or options or len(body) > SMALL_BYTES:
            body, properties = self._checked(body, options)
        else:
            properties = None
        await checkpoint_if_cancelled()
        link = self._link
        if self._closed or link.unusable:
            self._check()
        if self.qos or properties is not None:
            if not self._has_room():
                await self._room()
            self._put(body, properties)
        else:  # as above, in two calls less
            if link.outbox.full:
                await self._room()
            link.outbox.tell(self._template.qos0_head(len(body)), body)
            self._sent += 1
            self._steps += 1
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
        if properties is None and isinstance(bodies, list | tuple) and alike(bodies):
            await self._send_alike(tuple(bodies))
            return
        for body in bodies:
            if type(body) is not bytes or len(body) > SMALL_BYTES:
                body, _ = self._checked(body, options)
            while not self._has_room():
                await self._room()
                self._check()
            self._put(body, properties)
            if self._steps >= STEPS:
                self._steps = 0
                await checkpoint()
                self._check()

    async def _send_alike(self, bodies: Sequence[bytes]) -> None:
        stride = self._template.size + len(bodies[0])
        check_size(len(bodies[0]), self._topic, self._encoded(0, None))
        at = 0
        while at < len(bodies):
            while not self._has_room():
                await self._room()
                self._check()
            count = min(STEPS, _TOGETHER_BYTES // stride)
            if self.qos:
                room = (self._window_bytes - self._under_way_bytes) // stride
                count = min(count, self.window - self._under_way, room)
            some = bodies[at : at + max(1, count)]
            self._put_alike(some, stride)
            at += len(some)
            if self._steps >= STEPS:
                self._steps = 0
                await checkpoint()
                self._check()

    def _put_alike(self, bodies: Sequence[bytes], stride: int) -> None:
        link = self._link
        if self.qos:
            data = self._template.frames(link.unconfirmed.next_id, bodies)
            frames = [frame for (frame,) in iter_unpack(f"{stride}s", data)]
            link.unconfirmed.add_all(self, frames)
            link.outbox.put(bytes(data))
            self._under_way += len(bodies)
            self._under_way_bytes += len(data)
        else:
            link.outbox.tell(self._template.qos0_frames(bodies), b"")
        self._sent += len(bodies)
        self._steps += len(bodies)

    def _checked(
        self, body: Body, options: PublishOptions
    ) -> tuple[bytes, MessageProperties | None]:
        """Raises for what is not to be sent."""
        properties = properties_of(qos=self.qos, **options) if options else None
        data = checked_body(body)
        if len(data) > SMALL_BYTES:
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
            await self._link.until(self._has_room, self._settled.wait)
        else:
            await self._link.room()

    def _put(self, body: bytes, properties: MessageProperties | None) -> None:
        """Sends a message for which there is room."""
        link = self._link
        if self.qos:
            id_ = link.unconfirmed.next_id
            if properties is None:
                frame = self._template.frame(id_, body)
            else:
                frame = encoder.message(id_, 1, self._topic, self._encoded(id_, properties), body)
            link.unconfirmed.add(self, frame)
            link.outbox.put(frame)
            self._under_way += 1
            self._under_way_bytes += len(frame)
        elif properties is None:
            link.outbox.tell(self._template.qos0_head(len(body)), body)
        else:
            encoded_ = self._encoded(0, properties)
            link.outbox.tell(encoder.message(QOS0_ID, 0, self._topic, encoded_, body), b"")
        self._sent += 1
        self._steps += 1

    async def _flushed(self) -> None:
        while self._under_way:
            await self._settled.wait()
        if not self.qos:
            self._link.check()

    # As the owner of its publishes.

    def confirmed(self, count: int, size: int) -> None:
        self._under_way -= count
        self._under_way_bytes -= size
        # Who waits goes on with a good part of the window, rather than with what one commit leaves.
        if self._settled and self._under_way * 4 <= self.window * 3:
            self._settled.wake()

    def refused(self, number: int, size: int, error: Refused) -> None:
        self._failure(number, error)
        self.confirmed(1, size)

    def lost(self, number: int, count: int, size: int, error: ClientError) -> None:
        self._failure(number, again(error), count)
        self.confirmed(count, size)

    def wake(self) -> None:
        self._settled.wake()
