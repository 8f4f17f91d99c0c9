"""Plays recorded exchanges of protocol version 1 against a daemon, and says where it differs.

A recording is a list of scenarios. In its bytes, which are in hexadecimal, `<name>` stands for
8 bytes that the broker chooses: the first time they come they may be any, afterwards the same.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import attrs
import cattrs
import trio

from tests.peer import PATIENCE_SECONDS, Peer

_NAME = re.compile(r"<(\w+)>")
_CHOSEN_DIGITS = 16
_SILENCE_SECONDS = 0.01
"""After what was expected has come, nothing more comes for this long."""


@attrs.frozen
class Settings:
    """What the broker was configured with."""

    fsync_policy: str
    max_retries: int
    retry_backoff_ms: int
    allowed_api_keys: tuple[str, ...]


@attrs.frozen
class Step:
    """`send` on connection `conn`, which is opened when it is first named; then `recv` comes.

    `closed`: the broker closes the connection then. `shutdown_write`: the client closes its
    sending side. `wait_ms` is how long to listen when nothing is to come.
    """

    conn: str
    send: str
    recv: str
    wait_ms: int
    closed: bool = False
    shutdown_write: bool = False
    note: str = ""


@attrs.frozen
class Scenario:
    """In a `timed` one the pauses matter."""

    name: str
    config: Settings
    steps: tuple[Step, ...]
    timed: bool = False


def scenarios() -> list[Scenario]:
    """The recording."""
    recorded: Any = json.loads((Path(__file__).parent / "v1.json").read_text())
    return cattrs.Converter(forbid_extra_keys=True).structure(recorded, list[Scenario])


@attrs.define(eq=False)
class Conversation:
    """One connection: gathers what the broker sends."""

    peer: Peer
    data: bytearray = attrs.Factory(bytearray)
    closed: bool = False
    _came: trio.Event = attrs.Factory(trio.Event)

    async def listen(self) -> None:
        """Until the broker closes the connection."""
        while not self.closed:
            try:
                received = await self.peer.stream.receive_some()
            except trio.BrokenResourceError:
                received = b""
            self.data += received
            self.closed = not received
            self._came.set()
            self._came = trio.Event()

    async def wait(self, size: int, closed: bool) -> None:
        """Until that many bytes are there, or the broker has closed, or nothing comes for long."""
        with trio.move_on_after(PATIENCE_SECONDS):
            while not self.closed and (closed or len(self.data) < size):
                await self._came.wait()

    def take(self) -> str:
        """All that came, in hexadecimal."""
        data, self.data = self.data, bytearray()
        return data.hex()


@attrs.define(eq=False)
class Player:
    """Plays one scenario. `connect` opens a connection, `pause` lets that many seconds pass."""

    connect: Callable[[], Awaitable[Peer]]
    pause: Callable[[float], Awaitable[None]]
    _conversations: dict[str, Conversation] = attrs.Factory(dict)
    _names: dict[str, str] = attrs.Factory(dict)

    async def play(self, scenario: Scenario) -> None:
        """Raises AssertionError at the first step in which the broker does not do as recorded."""
        async with trio.open_nursery() as nursery:
            for number, step in enumerate(scenario.steps):
                try:
                    await self._play(step, nursery)
                except AssertionError as error:
                    raise AssertionError(f"step {number} ({step.note}): {error}") from None
            for conversation in self._conversations.values():
                if not conversation.closed:
                    await conversation.peer.send_eof()
                await conversation.wait(0, closed=True)
                assert conversation.take() == "", "something more came"
                await conversation.peer.stream.aclose()

    async def _play(self, step: Step, nursery: trio.Nursery) -> None:
        conversation = self._conversations.get(step.conn)
        if conversation is None:
            conversation = Conversation(await self.connect())
            self._conversations[step.conn] = conversation
            nursery.start_soon(conversation.listen)
        if step.send:
            await conversation.peer.stream.send_all(bytes.fromhex(fill_in(step.send, self._names)))
        if step.shutdown_write:
            await conversation.peer.send_eof()
        if not step.recv:
            await self.pause(step.wait_ms / 1000)
        size = len(_NAME.sub("0" * _CHOSEN_DIGITS, step.recv)) // 2
        await conversation.wait(size, step.closed)
        await self.pause(_SILENCE_SECONDS)
        got = conversation.take()
        names = capture(step.recv, got, self._names)
        assert names is not None, f"expected {step.recv or 'nothing'}, got {got or 'nothing'}"
        self._names.update(names)
        assert conversation.closed == step.closed, f"closed: {conversation.closed}"


def fill_in(recorded: str, names: Mapping[str, str]) -> str:
    """The bytes to send: what was captured in the place of the names."""
    return _NAME.sub(lambda match: names[match[1]], recorded)


def capture(recorded: str, got: str, names: Mapping[str, str]) -> dict[str, str] | None:
    """All names, with those that are new in `recorded`; None when `got` is something else."""
    known = dict(names)
    at = 0
    for place, part in enumerate(_NAME.split(recorded)):
        expected = part
        if place % 2:
            expected = known.setdefault(part, got[at : at + _CHOSEN_DIGITS].ljust(_CHOSEN_DIGITS))
        if got[at : at + len(expected)] != expected:
            return None
        at += len(expected)
    return known if at == len(got) else None
