"""A pipeline of messages to one topic, as a program sees it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from types import TracebackType
from typing import Final, Self, Unpack

import trio

from blipmq.client.outgoing import Body, PublishOptions
from blipmq.errors import BlipMQError, ClientClosed, PublisherFailed, WindowFull

FAILURES_MAX: Final = 1000
"""So many errors are kept; the others are counted."""


class Publisher(ABC):
    """From `Client.open_publisher`; to be used in its `async with` block.

    Messages go out in the order of `send`. Leaving the block waits until all of them are confirmed,
    and raises `PublisherFailed` for those that are not, if it raised nothing else. Cancelled, or
    left by an exception, it waits for nothing: what was sent may or may not be published, and
    leaving the client's block waits for it.
    """

    def __init__(self, topic: str, qos: int, window: int) -> None:
        self.topic = topic
        self.qos = qos
        self.window = window
        self._sent = 0
        self._failed = 0
        self._failures: list[tuple[int, BlipMQError]] = []
        self._closed = False

    @property
    def sent(self) -> int:
        """Messages that were sent, confirmed or not."""
        return self._sent

    @abstractmethod
    async def send(self, body: Body, **options: Unpack[PublishOptions]) -> None:
        """Sends a message; waits only for room in the window.

        A checkpoint; while there is room, many messages are sent between two trips through
        the scheduler. Cancelled, it has sent nothing. Raises `WindowFull` when the window is full
        and the connection down, `ConnectionLost` when it is lost for good, `ClientClosed`, and
        `ValueError`, `TypeError` or `TooLarge` as `publish` does. What the broker refuses is raised
        by `flush`, and by leaving the block.
        """

    @abstractmethod
    def send_nowait(self, body: Body, **options: Unpack[PublishOptions]) -> None:
        """Sends a message if the window has room for it, and raises `WindowFull` otherwise.

        The message leaves when the calling task lets others run. Raises as `send` otherwise.
        """

    async def send_many(self, bodies: Iterable[Body], **options: Unpack[PublishOptions]) -> None:
        """Sends messages, in order, that share their options; quicker than `send` for each.

        They cannot share a `message_id`. Waits for room whenever there is none. A checkpoint.
        Cancelled, or with an exception, it has sent those that come first; `sent` has counted
        them. Raises as `send`.
        """
        not_shared(options)
        for body in bodies:
            await self.send(body, **options)
        await trio.lowlevel.checkpoint_if_cancelled()

    async def flush(self) -> None:
        """Waits until all that was sent is confirmed or refused.

        Raises `PublisherFailed` for what failed since the last flush. May be cancelled.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        await self._flushed()
        self._raise_failures()
        await trio.lowlevel.cancel_shielded_checkpoint()

    @abstractmethod
    async def _flushed(self) -> None:
        """Waits until nothing is under way."""

    def _failure(self, number: int, error: BlipMQError, count: int = 1) -> None:
        """`count` messages from this number on have failed."""
        for each in range(number, number + min(count, FAILURES_MAX - len(self._failures))):
            self._failures.append((each, error))
        self._failed += count

    def _raise_failures(self) -> None:
        if self._failed:
            error = PublisherFailed(self._failed, tuple(self._failures))
            self._failed, self._failures = 0, []
            raise error from error.failures[0][1]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        type_: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if type_ is None:
                await self.flush()
        finally:
            self._closed = True

    def _check_open(self) -> None:
        if self._closed:
            raise ClientClosed("the publisher's `async with` block has ended")


def not_shared(options: PublishOptions) -> None:
    """Raises `ValueError` for what several messages cannot have in common."""
    if options.get("message_id") is not None:
        raise ValueError("several messages with one message id: all but one would be dropped")


def window_full() -> WindowFull:
    """For who does not wait."""
    return WindowFull("the publisher's window is full")
