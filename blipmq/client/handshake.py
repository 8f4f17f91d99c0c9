"""From a fresh stream to one that the broker has authenticated, in the version that it speaks."""

from __future__ import annotations

from collections import deque
from typing import Final

import attrs
import trio

from blipmq.client import wire
from blipmq.client.splitter import Splitter
from blipmq.client.wire import FIRST_ID, parse_nack
from blipmq.errors import FramingError, UnsupportedVersion
from blipmq.protocol import encoder
from blipmq.protocol.frames import ACK, NACK, TYPES_V2, Frame

VERSIONS: Final = (2, 1)
"""The protocol versions that this library speaks, the best first."""
KEY_BYTES_MAX: Final = 65_535


@attrs.frozen
class Greeting:
    """How a broker has received a client. `rest` is what it sent behind its answers."""

    version: int
    rest: bytes


def encoded(api_key: str) -> bytes:
    """Raises `TypeError` when it is no text, `ValueError` when it is no UTF-8 of 65 535 bytes."""
    if not isinstance(api_key, str):
        raise TypeError(f"an API key is str, not {type(api_key).__name__}")
    try:
        key = api_key.encode()
    except UnicodeEncodeError:  # whose text would show the key
        raise ValueError("there is half of a surrogate pair in the API key") from None
    if len(key) > KEY_BYTES_MAX:
        raise ValueError(f"an API key of {len(key)} bytes; at most {KEY_BYTES_MAX} fit")
    return key


async def shake_hands(
    stream: trio.abc.Stream, name: str, api_key: bytes, versions: tuple[int, ...] = VERSIONS
) -> Greeting:
    """Agrees on the first of these versions that the broker accepts, and authenticates.

    Raises `UnsupportedVersion` when it accepts none, `AuthenticationFailed` when it does not know
    the key, and `ConnectionLost`, which calls the broker `name`. After an exception or a
    cancellation the stream is of no use.
    """
    dialogue = _Dialogue(stream)
    try:
        version = await _agree(dialogue, versions)
        await dialogue.ask(encoder.auth(dialogue.id, api_key))
    except FramingError as error:
        raise wire.broken_protocol(name, error) from error
    except EOFError:
        raise wire.hung_up(name) from None
    except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
        raise wire.broken(name, error) from error
    return Greeting(version, dialogue.rest())


async def _agree(dialogue: _Dialogue, versions: tuple[int, ...]) -> int:
    for version in versions[:-1]:
        try:
            await dialogue.ask(encoder.hello(dialogue.id, version))
        except UnsupportedVersion:
            continue
        return version
    await dialogue.ask(encoder.hello(dialogue.id, versions[-1]))
    return versions[-1]


@attrs.define(eq=False)
class _Dialogue:
    """One request at a time, each answered by an ACK or a NACK."""

    _stream: trio.abc.Stream
    id: int = attrs.field(default=FIRST_ID, init=False)
    """The correlation id of the next request."""
    _splitter: Splitter = attrs.field(factory=lambda: Splitter(TYPES_V2), init=False)
    _frames: deque[Frame] = attrs.field(factory=deque, init=False)

    async def ask(self, request: bytes) -> None:
        """Raises what a NACK stands for, and EOFError when the broker hangs up."""
        await self._stream.send_all(request)
        while not self._frames:
            data = await self._stream.receive_some()
            if not data:
                raise EOFError
            self._frames.extend(self._splitter.split(bytes(data)))
        frame = self._frames.popleft()
        if frame.correlation_id != self.id or frame.type not in (ACK, NACK):
            raise FramingError(f"a {TYPES_V2[frame.type]} during the handshake")
        self.id += 1
        if frame.type == NACK:
            raise parse_nack(frame)

    def rest(self) -> bytes:
        """What came behind the last answer."""
        whole = (encoder.frame(f.type, f.correlation_id, f.payload) for f in self._frames)
        return b"".join((*whole, self._splitter.rest))
