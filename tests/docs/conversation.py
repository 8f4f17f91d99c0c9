"""Plays an example of `docs/protocol.md` against the real session and broker."""

from __future__ import annotations

from typing import Final

import attrs

from blipmq.auth import KeyRing
from blipmq.broker.broker import Batch, Broker
from blipmq.broker.limits import Limits
from blipmq.broker.session import Session
from blipmq.errors import FramingError
from blipmq.protocol import encoder
from blipmq.protocol.frames import (
    HELLO,
    INFO,
    LENGTH_BYTES,
    TYPE_AT,
    TYPES,
    TYPES_V2,
    U32,
)
from tests.broker.memory_log import MemoryLog
from tests.broker.world import sent
from tests.peer import KEY

SOFTWARE: Final = "0.1.0"
"""What INFO calls the version of the daemon."""
_SETTING: Final = "== limits."
_VERSION: Final = "== version "


@attrs.define
class Conversation:
    """One example: it says what the broker sends, and that all of that was foreseen.

    Where an example says what the log does, the broker has one, which commits then and not before.
    """

    broker: Broker = attrs.field(init=False)
    _log: MemoryLog | None = attrs.field(default=None, init=False)
    _version: int = attrs.field(default=1, init=False)
    _session: Session = attrs.field(init=False)
    _batches: list[Batch] = attrs.field(factory=list, init=False)
    _now: float = attrs.field(default=0.0, init=False)
    _closed: bool = attrs.field(default=False, init=False)
    _answers: bytes = attrs.field(default=b"", init=False)

    def play(self, text: str) -> None:
        """Raises AssertionError, with the line, where the broker does something else."""
        lines = self._begin([line for line in text.splitlines() if line])
        first = next(line for line in lines if line.startswith("-> "))
        if _frame(first)[TYPE_AT] != HELLO:
            self._authenticate()
        name = ""
        for line in lines:
            if line.startswith("# "):
                assert not name, f"`{name}` stands above no frame"
                name = line.removeprefix("# ")
                continue
            if line.startswith("== "):
                self._happen(line.removeprefix("== "))
            else:
                frame = _frame(line)
                self._check_name(name, frame, line)
                if line.startswith("-> "):
                    self._send(frame)
                else:
                    self._expect(frame, line)
            name = ""
        left = self._take()
        assert left == b"", f"an answer that the example does not have: {left.hex(' ')}"

    def _begin(self, lines: list[str]) -> list[str]:
        """Make the broker that the first lines ask for; the other lines."""
        limits = Limits()
        while lines[0].startswith((_VERSION, _SETTING)):
            line, *lines = lines
            if line.startswith(_VERSION):
                self._version = int(line.removeprefix(_VERSION))
            else:
                key, _, value = line.removeprefix(_SETTING).partition(" is ")
                limits = attrs.evolve(limits, **{key: int(value)})  # type: ignore[arg-type]
        if any(line.startswith(("== the log ", "== the broker restarts")) for line in lines):
            self._log = MemoryLog(limits)
            self.broker = self._log.start()
        else:
            self.broker = Broker.create(limits)
        self._connect()
        return lines

    def _connect(self) -> None:
        self._session = Session(
            self.broker, KeyRing([KEY]).authenticate, lambda: None, software=SOFTWARE
        )

    def _authenticate(self) -> None:
        self._send(encoder.hello(1, self._version) + encoder.auth(2, KEY.encode()))
        answers, acks = self._take(), encoder.ack(1) + encoder.ack(2)
        info = answers[len(acks) :]
        assert answers.startswith(acks)
        assert bool(info) == (self._version > 1)
        if info:
            assert info[TYPE_AT] == INFO
            assert U32.unpack_from(info)[0] == len(info) - LENGTH_BYTES

    def _send(self, data: bytes) -> None:
        assert not self._closed, "the connection is closed"
        self._session.decoder.feed(data)
        self._advance()

    def _advance(self) -> None:
        try:
            self._session.advance(self._now)
        except FramingError:
            self._closed = True
        while self._session.has_output or self._read():
            self._session.gather(self._now)
            self._answers += sent(self._session)
        batch = self.broker.handoff()
        if batch is not None:
            self._batches.append(batch)

    def _read(self) -> bool:
        """Read from the log what the broker wants next; False when that is nothing."""
        load = None if self._log is None else self.broker.next_load()
        if self._log is not None and load is not None:
            runs, reached = self._log.read(load)
            self.broker.loaded(load, runs, reached, None, self._now)
        return load is not None

    def _take(self) -> bytes:
        answers, self._answers = self._answers, b""
        return answers

    def _expect(self, frame: bytes, line: str) -> None:
        assert self._answers[: len(frame)].hex(" ") == frame.hex(" "), line
        self._answers = self._answers[len(frame) :]

    def _happen(self, what: str) -> None:
        assert not self._answers, "an answer came before that"
        match what.split(" ", 1):
            case [milliseconds, event] if event.startswith("ms pass: "):
                self._now += int(milliseconds) / 1000
                assert self.broker.next_deadline == self._now, "nothing is due then"
                self.broker.tick(self._now)
            case [milliseconds, "ms pass, and nothing comes"]:
                self._pass(int(milliseconds) / 1000)
            case ["the", "connection is lost, and a new one authenticates"]:
                self._session.end(self._now)
                self._connect()
                self._authenticate()
            case ["the", "broker restarts, and a new connection authenticates"]:
                self._restart()
            case ["the", "broker begins to shut down"]:
                self.broker.draining = True
                self._session.tell_info()
            case ["the", "log commits"]:
                self._commit()
            case ["the", failure] if failure.startswith("log fails with "):
                reason = failure.split("`")[1]
                for batch in self._handed_off():
                    self.broker.failed(batch, reason, self._now)
            case ["the", "broker closes the connection"]:
                assert self._closed, "the connection is not closed"
            case _:
                raise AssertionError(f"the test does not know what this is: {what}")
        if not self._closed:
            self._advance()

    def _pass(self, seconds: float) -> None:
        end = self._now + seconds
        while (due := self.broker.next_deadline) is not None and due <= end:
            self._now = due
            self.broker.tick(due)
            self._advance()
        self._now = end
        assert not self._answers, "something came"

    def _commit(self) -> None:
        assert self._log is not None
        for batch in self._handed_off():
            self._log.append(batch)
            self.broker.committed(batch, self._now)

    def _handed_off(self) -> list[Batch]:
        batches, self._batches = self._batches, []
        assert batches, "nothing was handed to the log"
        return batches

    def _restart(self) -> None:
        assert self._log is not None
        assert not self._batches, "something is not in the log"
        self.broker = self._log.start()
        self._connect()
        self._authenticate()

    def _check_name(self, name: str, frame: bytes, line: str) -> None:
        """The comment above a frame has to name its type, unless it is there to be no frame."""
        types = TYPES if self._session.version == 1 else TYPES_V2
        kind = types.get(frame[TYPE_AT]) if len(frame) > TYPE_AT else None
        if kind is not None:
            assert name.startswith(kind), f"`{name}` stands above a {kind}: {line}"


def _frame(line: str) -> bytes:
    """The bytes of a frame; the JSON object at the end of an INFO stands as it is sent."""
    digits, brace, text = line[3:].partition("{")
    return bytes.fromhex(digits) + (brace + text).encode()
