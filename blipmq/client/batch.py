"""Messages that are worked on together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Self, overload

import trio
from trio.lowlevel import cancel_shielded_checkpoint, checkpoint_if_cancelled

from blipmq.client.message import Message, begin, conclude, settle_now
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
        """Keeps all of them alive from now on. Cancelled here, they are released."""
        try:
            await checkpoint_if_cancelled()
        except trio.Cancelled:
            self._conclude(Outcome.RELEASE)
            raise
        for message in self._messages:
            begin(message)
        return self

    async def __aexit__(
        self,
        type_: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if type_ is None:
            await self._accept()
            await trio.lowlevel.checkpoint()
        elif issubclass(type_, Exception):
            self._conclude(Outcome.RETRY)
        else:
            self._conclude(Outcome.RELEASE)

    async def _accept(self) -> None:
        for message in self._messages:
            if not settle_now(message, Outcome.ACCEPT):
                await message.accept()

    def _conclude(self, outcome: Outcome) -> None:
        for message in self._messages:
            conclude(message, outcome)
