"""A version 2 client of a broker that is moved by hand."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

import attrs

from blipmq.protocol import encoder, frames
from blipmq.protocol.attach_properties import AttachProperties, encode_attach_properties
from blipmq.protocol.frames import U16, U64, Frame, Outcome
from blipmq.protocol.properties import (
    NO_PROPERTIES,
    MessageProperties,
    encode_message_properties,
    parse_message_properties,
)
from blipmq.protocol.pushes import parse_detached
from tests.broker.world import Client, World, sent
from tests.deliver import inner_frames
from tests.protocol.reference import read

LAST = 2**64 - 1


@attrs.frozen
class Pushed:
    """A message as an attachment got it."""

    subscription: int
    topic: bytes
    qos: int
    tag: int
    body: bytes
    properties: MessageProperties = NO_PROPERTIES

    @property
    def attempt(self) -> int:
        return self.properties.attempt


@attrs.define(eq=False)
class Member:
    """A connection of version 2. `pushed`, `confirmed` and so on gather what it was sent."""

    world: World
    key: bytes = b"key"
    pushed: list[Pushed] = attrs.Factory(list)
    confirmed: list[int] = attrs.Factory(list)
    refused: list[tuple[int, int, str]] = attrs.Factory(list)
    ended: list[tuple[int, str]] = attrs.Factory(list)
    info: list[dict[str, object]] = attrs.Factory(list)
    answers: dict[int, int] = attrs.Factory(dict)
    pongs: list[int] = attrs.Factory(list)
    calls: int = 1000
    client: Client = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.client = self.world.connect_unauthenticated()
        self.send(encoder.hello(1, 2), encoder.auth(2, self.key))
        assert set(self.answers) == {1, 2}

    def send(self, *requests: bytes) -> None:
        """Send frames, and take what comes."""
        self.client.feed(b"".join(requests))
        self.receive()

    def receive(self) -> None:
        """Take what comes, until nothing more does."""
        session = self.client.session
        while True:
            session.advance(self.world.now)
            session.gather(self.world.now)
            data = sent(session)
            if not data:
                return
            for frame in read(data, version=2)[0]:
                self._take(Frame(frame.type, frame.correlation_id, frame.payload))

    def _take(self, frame: Frame) -> None:
        payload = frame.payload
        match frame.type:
            case frames.ACK:
                (self.answers[frame.correlation_id],) = U64.unpack(payload)
            case frames.NACK:
                code = U16.unpack_from(payload)[0]
                self.refused.append((frame.correlation_id, code, payload[4:].decode()))
            case frames.INFO:
                self.info.append(json.loads(payload))
            case frames.DELIVER:
                pushed = list(_pushed(frame.correlation_id, payload))
                assert len(payload) < 256 * 1024 or len(pushed) == 1
                self.pushed += pushed
            case frames.CONFIRM:
                self.confirmed.append(frame.correlation_id)
            case frames.DETACH:
                self.ended.append(parse_detached(payload))
            case frames.PONG:
                self.pongs.append(frame.correlation_id)
            case frames.PUBLISH | frames.MESSAGE:
                whole = encoder.frame(frame.type, frame.correlation_id, payload)
                self.pushed += _pushed(0, whole)
            case _:
                raise AssertionError(f"unexpected frame {frame}")

    def call(self) -> int:
        self.calls += 1
        return self.calls

    def attach(
        self,
        topic: bytes,
        *,
        qos: int = 1,
        name: bytes | None = None,
        prefetch: int = 100,
        pattern: bool = False,
        **properties: object,
    ) -> int:
        """The id of the new attachment."""
        made = AttachProperties(name=name, prefetch=prefetch, pattern=pattern)
        made = attrs.evolve(made, **properties)  # type: ignore[arg-type]
        call = self.call()
        self.send(encoder.attach(call, topic, qos, encode_attach_properties(made)))
        assert call in self.answers, self.refused
        return self.answers[call]

    def publish(self, topic: bytes, *bodies: bytes, qos: int = 1) -> list[int]:
        """The correlation ids."""
        calls = [self.call() for _ in bodies]
        self.send(
            *(
                encoder.publish(call, qos, topic, body)
                for call, body in zip(calls, bodies, strict=True)
            )
        )
        return calls

    def message(
        self, topic: bytes, body: bytes, properties: MessageProperties, qos: int = 1
    ) -> int:
        call = self.call()
        encoded = encode_message_properties(properties)
        self.send(encoder.message(call, qos, topic, encoded, body))
        return call

    def settle(
        self,
        subscription: int,
        first: int,
        last: int | None = None,
        outcome: Outcome = Outcome.ACCEPT,
        delay_ms: int = 0,
    ) -> None:
        row = (outcome, first, first if last is None else last, delay_ms)
        self.send(encoder.settle(subscription, [row]))

    def accept_all(self, subscription: int) -> None:
        self.settle(subscription, 1, LAST)

    def detach(self, subscription: int, *, delete: bool = False) -> None:
        self.send(encoder.detach(self.call(), subscription, delete=delete))

    def take(self) -> list[bytes]:
        """The bodies of what was pushed since."""
        self.receive()
        pushed, self.pushed = self.pushed, []
        return [message.body for message in pushed]

    def take_pushed(self) -> list[Pushed]:
        self.receive()
        pushed, self.pushed = self.pushed, []
        return pushed

    def disconnect(self) -> None:
        self.client.session.end(self.world.now)


def _pushed(subscription: int, payload: bytes) -> Iterator[Pushed]:
    for inner in inner_frames(payload):
        properties = NO_PROPERTIES
        if inner.properties is not None:
            properties = parse_message_properties(inner.properties, from_client=False)
        yield Pushed(subscription, inner.topic, inner.qos, inner.tag, inner.body, properties)


def tags(pushed: Sequence[Pushed]) -> list[int]:
    return [message.tag for message in pushed]
