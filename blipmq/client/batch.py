"""Messages that are worked on together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Self, overload

from trio.lowlevel import cancel_shielded_checkpoint, checkpoint, checkpoint_if_cancelled

from blipmq.client.message import Message, Settlement, lease_of, settle_all
from blipmq.errors import BlipMQError
from blipmq.protocol.frames import Outcome


class Batch(Sequence[Message]):
    """Messages from `Subscription.batch`, in order.

    `async with batch` does for all of them what `async with message` does for one; those that
    the block has settled by themselves stay as they are.
    """

    __slots__ = ("_messages",)

    def __init__(self, messages: list[Message]) -> None:
        self._messages = messages

    @overload
    def __getitem__(self, index: int) -> Message: ...
    @overload
    def __getitem__(self, index: slice) -> list[Message]: ...
    def __getitem__(self, index: int | slice) -> Message | list[Message]:
        return self._messages[index]

    def __len__(self) -> int:
        return len(self._messages)

    def __iter__(self) -> Iterator[Message]:
        return iter(self._messages)

    async def accept(self) -> None:
        """Accepts all that are not settled yet, as `Message.accept`. Cancelled, none of them.

        On version 1, some of them when cancelled.
        """
        await checkpoint_if_cancelled()
        await self._accept()
        await cancel_shielded_checkpoint()

    async def __aenter__(self) -> Self:
        """Keeps all of them alive from now on. Not a checkpoint; leaving the block is one."""
        for lease in self._leases():
            lease.batches.add(self)
        return self

    async def __aexit__(
        self,
        type_: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for lease in self._leases():
            lease.batches.discard(self)
        if type_ is None:
            await self._accept()
            await checkpoint()
            return
        with suppress(BlipMQError):  # which would hide the exception
            outcome = Outcome.RETRY if issubclass(type_, Exception) else Outcome.RELEASE
            settle_all(self._messages, outcome)

    def _leases(self) -> set[Settlement]:
        return {lease_of(message) for message in self._messages if message.tag is not None}

    async def _accept(self) -> None:
        if any(lease.waits for lease in self._leases()):
            for message in self._messages:
                await message.accept()
        else:
            settle_all(self._messages, Outcome.ACCEPT)
