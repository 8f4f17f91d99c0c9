"""Where replies to a client's requests come in, and who waits for which."""

from __future__ import annotations

import attrs
import trio

from blipmq.client.message import REQUEST_HEADER, Message
from blipmq.client.source import Source
from blipmq.errors import BlipMQError, FramingError
from blipmq.protocol.frames import U64


@attrs.define(eq=False)
class Inbox:
    """One subscription at QoS 0 to a topic of this client's own, made by the first request."""

    topic: str
    _source: Source
    _nursery: trio.Nursery
    _started: bool = attrs.field(default=False, init=False)
    _ready: trio.Event = attrs.field(factory=trio.Event, init=False)
    _error: BlipMQError | None = attrs.field(default=None, init=False)
    _waiting: dict[bytes, Awaited] = attrs.field(factory=dict, init=False)
    _next: int = attrs.field(default=1, init=False)

    async def open(self) -> None:
        """Returns when replies can come. Raises why they cannot."""
        if not self._started:
            self._started = True
            self._nursery.start_soon(self._run)
        await self._ready.wait()
        self._check()

    @property
    def usable(self) -> bool:
        """False once it has failed: another one is to be made."""
        return self._error is None

    def expect(self) -> Awaited:
        """A place for one reply, which `forget` clears."""
        self._check()
        awaited = Awaited(U64.pack(self._next))
        self._next += 1
        self._waiting[awaited.id] = awaited
        return awaited

    def forget(self, awaited: Awaited) -> None:
        self._waiting.pop(awaited.id, None)

    def _check(self) -> None:
        if self._error is not None:
            raise type(self._error)(*self._error.args)

    async def _run(self) -> None:
        source = self._source
        try:
            await source.open()
            self._ready.set()
            while True:
                message = source.take()
                if message is None:
                    await source.arrival()
                else:
                    self._sort(message)
        except BlipMQError as error:
            self._error = error
            self._ready.set()
            for awaited in self._waiting.values():
                awaited.failed(error)

    def _sort(self, message: Message) -> None:
        """What no request waits for any more is dropped."""
        try:
            id_ = message.headers.get(REQUEST_HEADER, b"")
        except FramingError:
            return
        awaited = self._waiting.pop(id_, None)
        if awaited is not None:
            awaited.came(message)


@attrs.define(eq=False)
class Awaited:
    """One reply that somebody waits for."""

    id: bytes
    _over: trio.Event = attrs.field(factory=trio.Event, init=False)
    _message: Message | None = attrs.field(default=None, init=False)
    _error: BlipMQError | None = attrs.field(default=None, init=False)

    def came(self, message: Message) -> None:
        self._message = message
        self._over.set()

    def failed(self, error: BlipMQError) -> None:
        self._error = type(error)(*error.args)
        self._over.set()

    async def reply(self) -> Message:
        """Raises why there will be none."""
        await self._over.wait()
        if self._error is not None:
            raise self._error
        assert self._message is not None
        return self._message
