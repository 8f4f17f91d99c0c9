"""Clients that send anything in any cuts to a broker with a log: it goes on, and forgets nothing.

An input is a row of steps. Most of them are frames of one of three clients, whose length is made
to fit; some are bytes as they are. Between them the log takes what waits, or fails, time passes,
clients come and go, the broker crashes. In the end all is given back: no memory, no delivery stays
counted.
"""

from __future__ import annotations

from typing import Final

import attrs

from blipmq.broker.limits import Limits, Retention, Retries
from blipmq.errors import FramingError
from blipmq.protocol import encoder
from blipmq.protocol.frames import TYPES_V2
from tests.broker.logged import LoggedWorld
from tests.broker.world import AUTH, Client, World, sent
from tests.fuzz.choices import Choices
from tests.protocol.reference import read

_CLIENTS: Final = 3
_TYPES: Final = sorted(TYPES_V2)
_STEPS_MAX: Final = 300
_LONG_SECONDS: Final = 2.0**53
_LIMITS: Final = Limits(
    queue_capacity=5,
    max_topics=20,
    max_subscriptions=20,
    max_patterns=4,
    max_backlog_bytes=2_000,
    max_memory_bytes=200_000,
    attachment_bytes=500,
    output_buffer_bytes=2_000,
    qos0_window_bytes=500,
    key_lookahead=3,
)
_RETENTION: Final = Retention(kept_messages=10)


@attrs.define(eq=False)
class _Talk:
    """The clients, of whom some are between two connections, and the broker."""

    world: World
    clients: list[Client] = attrs.Factory(list)

    def connect(self, place: int, version: int) -> None:
        client = self.world.connect_unauthenticated()
        self.clients[place : place + 1] = [client]
        if version:
            self.send(place, encoder.hello(1, version) + AUTH)

    def send(self, place: int, data: bytes) -> None:
        client = self.clients[place]
        try:
            client.feed(data)
        except FramingError:
            self.leave(place)
            return
        self.receive(place)

    def receive(self, place: int) -> None:
        """What is there for a client is sent, until nothing more is."""
        session = self.clients[place].session
        while True:
            try:
                session.advance(self.world.now)
            except FramingError:
                self.leave(place)
                return
            session.gather(self.world.now)
            data = sent(session)
            if not data:
                break
            _, broken = read(data, version=2)
            assert not broken
        if session.close_reason is not None:
            self.leave(place)

    def leave(self, place: int) -> None:
        self.clients[place].disconnect()
        self.connect(place, 0)


def check(data: bytes) -> None:
    """Raises for what no client may bring about."""
    choices = Choices(data)
    flags = choices.number()
    retries = Retries(max_retries=flags >> 2 & 3)
    world: World
    if flags & 1:
        world = LoggedWorld.logged(_LIMITS, _RETENTION, retries, read_bytes=300)
    else:
        world = World.create(_LIMITS, _RETENTION, retries)
    talk = _Talk(world)
    for place in range(_CLIENTS):
        talk.connect(place, 1 + (flags >> 4 + place & 1) if flags & 2 else 0)
    for _ in range(_STEPS_MAX):
        if not choices:
            break
        _step(talk, choices)
        assert world.broker.stats.memory_bytes >= 0
        assert world.broker.stats.inflight >= 0
    _end(talk)


def _step(talk: _Talk, choices: Choices) -> None:
    kind = choices.number()
    place = kind >> 6 if kind >> 6 < _CLIENTS else 0
    kind &= 0x3F
    world = talk.world
    if kind < len(_TYPES):
        correlation_id = choices.number(1 + 7 * (kind & 0x20 > 0))
        payload = choices.take(choices.number())
        talk.send(place, encoder.frame(_TYPES[kind], correlation_id, payload))
    elif kind < 0x30:
        talk.send(place, choices.take(choices.number()))
    elif kind < 0x34:
        world.commit()
    elif kind < 0x36:
        world.fail()
    elif kind < 0x3A:
        _pass_time(world, choices.number(2) / 100)
    elif kind < 0x3B:
        if isinstance(world, LoggedWorld):
            _restart(talk, world, choices.number())
    elif kind < 0x3D:
        talk.clients[place].disconnect()
        talk.connect(place, choices.number() % 3)
    for other in range(_CLIENTS):
        talk.receive(other)


def _restart(talk: _Talk, world: LoggedWorld, how: int) -> None:
    """A checkpoint, and maybe a crash; those who were connected come back."""
    if how & 1:
        world.checkpoint()
    if how & 2:
        world.crash()
        for place in range(_CLIENTS):
            talk.connect(place, how >> 2 & 1)


def _pass_time(world: World, seconds: float) -> None:
    """As far as it goes: what is delivered with no wait falls due all the time."""
    world.now += seconds
    world.broker.tick(world.now)


def _end(talk: _Talk) -> None:
    """Everybody leaves, everything is deleted and what is kept is purged."""
    world, broker = talk.world, talk.world.broker
    for client in talk.clients:
        client.disconnect()
    # What was to be delayed or remembered is due after this, and may be kept, moved or logged.
    for _ in range(4):
        world.commit()
        _pass_time(world, _LONG_SECONDS)
        _empty(world)
    world.commit()
    broker._dedup._expire(world.now)
    stats = broker.stats
    left = stats.memory_bytes, stats.inflight, stats.delayed, stats.subscriptions, stats.topics
    assert left == (0, 0, 0, 0, 0), left


def _empty(world: World) -> None:
    broker = world.broker
    for id_ in [*broker._subscriptions, *(shared.id for shared in broker._sharing)]:
        broker.operator.delete(id_, world.now)
    for name in [topic.name.decode() for topic in broker._topics]:
        for _ in broker.operator.purge_topic(name, world.now):
            pass
