"""A message as its consumer sees it."""

from __future__ import annotations

from typing import Protocol

import attrs
import trio


class Settlement(Protocol):
    """What a message is settled with."""

    async def room(self) -> None:
        """Waits until a settlement can be sent. Raises why none can be sent any more."""

    def accept(self, tag: int) -> None: ...


@attrs.define(eq=False)
class Message:
    """One delivery. `tag` is None at QoS 0; a redelivery of a message has the tag it had before."""

    body: bytes = attrs.field(repr=False)
    topic: str
    qos: int
    """The lower of the publisher's and the subscription's."""
    tag: int | None
    _settlement: Settlement = attrs.field(repr=False, alias="settlement")
    _accepted: bool = attrs.field(default=False, init=False)

    async def accept(self) -> None:
        """Tells the broker that this message is done with, so that it does not come again.

        Does nothing at QoS 0, and nothing the second time. It does not wait for the broker: on
        protocol version 1 there is nothing to wait for. The acceptance is sent, in order, and
        leaving the client's block waits until the broker has it. If the message was
        settled already (its retries used up, say) nothing is raised; see `Client.refusals`.

        A checkpoint. Cancelled, the message is not accepted, and accept() may be called again.
        May be called after the subscription's block has ended. Raises `ClientClosed` after the
        client's block has ended, and `ConnectionLost` when the connection is lost: the message
        will be delivered again.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        if self.tag is not None and not self._accepted:
            await self._settlement.room()
            if not self._accepted:
                self._settlement.accept(self.tag)
                self._accepted = True
        await trio.lowlevel.cancel_shielded_checkpoint()
