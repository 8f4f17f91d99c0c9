"""Clients that send anything to the WebSocket listener: everybody else is served.

An input is a row of connections. Each sends a handshake that is right, or has a few bytes changed,
then frames, whose flags, lengths and payloads are anything, and then ends or is reset.
"""

from __future__ import annotations

from typing import Final

import trio
from trio.testing import MockClock

from blipmq.protocol import encoder
from tests.fuzz.choices import Choices
from tests.nursery.daemon import Daemon, serving
from tests.nursery.web import WEB
from tests.peer import KEY, bodies

HANDSHAKE: Final = (
    b"GET / HTTP/1.1\r\nHost: daemon.example\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
GREETING: Final = encoder.hello(1, 2) + encoder.auth(2, KEY.encode())
_CONNECTIONS_MAX: Final = 6
_FRAMES_MAX: Final = 12
_CUTS: Final = (None, 1, 7)


def check(data: bytes) -> None:
    """Raises when the daemon does not get along with it."""
    trio.run(_meet, Choices(data), clock=MockClock(autojump_threshold=0))


async def _meet(choices: Choices) -> None:
    async with serving(websocket=WEB) as daemon:
        bystander = daemon.connect()
        await bystander.greet()
        subscription = await bystander.subscribe("bystander")
        for _ in range(_CONNECTIONS_MAX):
            if not choices:
                break
            await _talk(daemon, choices)
        assert await bystander.publish("bystander", b"body") == []
        assert bodies(await bystander.poll(subscription)) == [b"body"]
        daemon.signal()
        await daemon.end()


async def _talk(daemon: Daemon, choices: Choices) -> None:
    kind = choices.number()
    handshake = bytearray(HANDSHAKE)
    for _ in range(kind & 3):
        at = choices.number() % (len(handshake) + 1)
        handshake[at : at + choices.number() % 8] = choices.take(choices.number() % 8)
    frames = [frame(choices) for _ in range(choices.number() % _FRAMES_MAX)]
    reset = bool(kind & 4)
    peer = daemon.connect(cut=_CUTS[(kind >> 3) % len(_CUTS)], port=daemon.config.websocket.port)
    with trio.move_on_after(1):
        try:
            await peer.stream.send_all(handshake)
            for data in frames:
                await peer.stream.send_all(data)
                await trio.sleep(0.01)
            if not reset:
                await peer.send_eof()
            while await peer.stream.receive_some():
                pass
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the daemon has closed it
    await (peer.reset() if reset else peer.aclose())


def frame(choices: Choices) -> bytes:
    """A frame: its first byte, whether it is masked and how its length is said are anything."""
    head, how = choices.number(), choices.number()
    payload = GREETING if how & 0x40 else choices.take(choices.number())
    if how & 0x20:
        payload = encoder.frame(choices.number(), 7, payload)
    size = len(payload) + (how & 3 if how & 0x10 else 0)
    if how & 0x08:
        said = bytes((127,)) + size.to_bytes(8, "big")
    elif size > 125 or how & 0x04:
        said = bytes((126,)) + size.to_bytes(2, "big")
    else:
        said = bytes((size,))
    if how & 0x80:
        return bytes((head,)) + said + payload
    return bytes((head, said[0] | 0x80)) + said[1:] + bytes(4) + payload
