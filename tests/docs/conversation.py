"""Plays an example of `docs/protocol.md` against the real session and broker."""

from __future__ import annotations

import attrs

from blipmq.auth import KeyRing
from blipmq.broker.broker import Batch, Broker
from blipmq.broker.session import Session
from blipmq.errors import FramingError
from blipmq.protocol import encoder
from blipmq.protocol.frames import HELLO, TYPE_AT, TYPES
from tests.broker.world import sent
from tests.peer import KEY

HANDSHAKE = encoder.hello(1, 1) + encoder.auth(2, KEY.encode())


@attrs.define
class Conversation:
    """One example: it says what the broker answers, and that every answer was foreseen.

    `durable` gives the broker a log, which commits when the example says so and not before.
    """

    durable: bool
    broker: Broker = attrs.field(init=False)
    _session: Session = attrs.field(init=False)
    _batch: Batch | None = attrs.field(default=None, init=False)
    _now: float = attrs.field(default=0.0, init=False)
    _closed: bool = attrs.field(default=False, init=False)
    _answers: bytes = attrs.field(default=b"", init=False)

    def __attrs_post_init__(self) -> None:
        self.broker = Broker.create(durable=self.durable)
        self._connect()

    def _connect(self) -> None:
        self._session = Session(self.broker, KeyRing([KEY]).authenticate, lambda: None)

    def play(self, text: str) -> None:
        """Raises AssertionError, with the line, where the broker does something else."""
        lines = [line for line in text.splitlines() if line]
        first = next(line for line in lines if line.startswith("-> "))
        if _frame(first)[TYPE_AT] != HELLO:
            self._authenticate()
        name = ""
        for line in lines:
            if line.startswith("# "):
                name = line.removeprefix("# ")
                continue
            if line.startswith("== "):
                self._happen(line.removeprefix("== "))
            else:
                frame = _frame(line)
                _check_name(name, frame, line)
                if line.startswith("-> "):
                    self._send(frame)
                else:
                    self._expect(frame, line)
            name = ""
        assert self._take() == b"", "an answer that the example does not have"

    def _authenticate(self) -> None:
        self._send(HANDSHAKE)
        assert self._take() == encoder.ack(1) + encoder.ack(2)

    def _send(self, data: bytes) -> None:
        assert not self._closed, "the connection is closed"
        self._session.decoder.feed(data)
        self._advance()

    def _advance(self) -> None:
        try:
            self._session.advance(self._now)
        except FramingError:
            self._closed = True
        self._answers += sent(self._session)
        self._batch = self.broker.handoff() or self._batch

    def _take(self) -> bytes:
        answers, self._answers = self._answers, b""
        return answers

    def _expect(self, frame: bytes, line: str) -> None:
        assert self._answers[: len(frame)].hex(" ") == frame.hex(" "), line
        self._answers = self._answers[len(frame) :]

    def _happen(self, what: str) -> None:
        match what.split(" ", 1):
            case [milliseconds, "ms pass: the message falls due"]:
                self._now += int(milliseconds) / 1000
                deadline = self.broker.next_deadline
                assert deadline == self._now, "nothing falls due then"
                self.broker.tick(self._now)
            case ["the", "connection is lost, and a new one authenticates"]:
                self._session.end(self._now)
                self._connect()
                self._authenticate()
            case ["the", "log commits"]:
                self.broker.committed(self._handed_off(), self._now)
                self._advance()
            case ["the", failure] if failure.startswith("log fails with "):
                reason = failure.split("`")[1]
                self.broker.failed(self._handed_off(), reason, self._now)
                self._advance()
            case ["the", "broker closes the connection"]:
                assert self._closed, "the connection is not closed"
                assert not self._answers, "answers wait"
            case _:
                raise AssertionError(f"the test does not know what this is: {what}")

    def _handed_off(self) -> Batch:
        batch, self._batch = self._batch, None
        assert batch is not None, "nothing was handed to the log"
        assert not self._answers, "an answer came before the commit"
        return batch


def _frame(line: str) -> bytes:
    return bytes.fromhex(line[3:])


def _check_name(name: str, frame: bytes, line: str) -> None:
    """The comment above a frame has to name its type, unless it is there to be no frame."""
    kind = TYPES.get(frame[TYPE_AT]) if len(frame) > TYPE_AT else None
    if kind is not None:
        assert name.startswith(kind), f"`{name}` stands above a {kind}: {line}"
