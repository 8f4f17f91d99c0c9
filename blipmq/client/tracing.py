"""Messages carry the trace context of the code that publishes them, if the program wants that."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Self, Unpack

import attrs

from blipmq.client.outgoing import Body, PublishOptions
from blipmq.client.publisher import Publisher
from blipmq.protocol.properties import NO_PROPERTIES, MessageProperties

CurrentContext = Callable[[], str | None]
"""Gives the W3C traceparent of the code that is running, or None. Called at every publish."""


def with_context(
    properties: MessageProperties | None, current: CurrentContext
) -> MessageProperties | None:
    """With the current context, unless they have one of their own."""
    if properties is not None and properties.trace_context is not None:
        return properties
    context = current()
    if context is None:
        return properties
    return attrs.evolve(properties or NO_PROPERTIES, trace_context=context)


class TracedPublisher(Publisher):
    """Puts the current context into what another publisher sends."""

    def __init__(self, inner: Publisher, current: CurrentContext) -> None:
        super().__init__(inner.topic, inner.qos, inner.window)
        self._inner = inner
        self._current = current

    @property
    def sent(self) -> int:
        return self._inner.sent

    def _traced(self, options: PublishOptions) -> PublishOptions:
        if options.get("trace_context") is None:
            context = self._current()
            if context is not None:
                return {**options, "trace_context": context}
        return options

    async def send(self, body: Body, **options: Unpack[PublishOptions]) -> None:
        await self._inner.send(body, **self._traced(options))

    def send_nowait(self, body: Body, **options: Unpack[PublishOptions]) -> None:
        self._inner.send_nowait(body, **self._traced(options))

    async def send_many(self, bodies: Iterable[Body], **options: Unpack[PublishOptions]) -> None:
        await self._inner.send_many(bodies, **self._traced(options))

    async def flush(self) -> None:
        await self._inner.flush()

    async def _flushed(self) -> None:
        await self._inner._flushed()

    async def __aenter__(self) -> Self:
        await self._inner.__aenter__()
        return self

    async def __aexit__(
        self,
        type_: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._inner.__aexit__(type_, error, traceback)
