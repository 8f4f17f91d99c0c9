"""A user that consumes: a member of a subscription, with its moods."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from random import Random

import attrs
import trio

from blipmq.client.client import Client
from blipmq.client.message import Message, lease_of
from blipmq.client.push.lease import Lease
from blipmq.client.unwrapped import unwrapped
from blipmq.errors import BlipMQError
from tests.simulation.clients import client_of
from tests.simulation.network import Line, Network
from tests.simulation.plan import Group
from tests.simulation.repeatable import chance
from tests.simulation.tap import BODY_BYTES
from tests.simulation.trace import Trace
from tools.history.history import History, Letter
from tools.history.subscription import Copy, Holder, Subscription


class _Failure(Exception):
    """What the work on a message ends with, sometimes."""


@attrs.frozen(eq=False)
class _Taken:
    """A message that a member has taken, as whose."""

    message: Message
    subscription: Subscription
    copy: Copy
    holder: Holder


@attrs.define(eq=False)
class Member:
    """Subscribes again whenever it has lost its subscription, until it is cancelled.

    When it is `calm` it accepts everything.
    """

    label: str
    group: Group
    network: Network
    history: History
    trace: Trace
    subscription: Callable[[Group, int], Subscription]
    """By the id that the broker gives it; 0: not known yet."""
    calm: bool = False
    holder: Holder | None = None
    """This member on its present connection."""
    found: Subscription | None = None
    _life: int = 0
    _away: float = 0.0
    _there: trio.CancelScope = attrs.Factory(trio.CancelScope)
    _unsure: list[_Taken] = attrs.Factory(list)
    _some: trio.Event = attrs.Factory(trio.Event)

    @property
    def old(self) -> bool:
        return self.group.kind.startswith("v1")

    def connected(self, line: Line) -> Holder:
        """It has a new connection."""
        self.holder = Holder(f"{self.label} on {line.number}", lambda: line.ended_at)
        return self.holder

    def leave(self, seconds: float) -> None:
        """For a while."""
        self.going()
        self._away = seconds
        self._there.cancel()

    def going(self) -> None:
        """What it holds comes back from now on."""
        if self.holder is not None:
            self.holder.left = True

    async def run(self) -> None:
        await trio.sleep_until(self.group.begins_at)
        while True:
            self._life += 1
            self._unsure.clear()
            try:
                with trio.CancelScope() as self._there:
                    await self._be_there()
            except (BlipMQError, OSError) as error:
                self.trace.note(self.label, "lost", type(error).__name__)
            finally:
                self.going()
            await trio.sleep(self._away or 0.05)
            self._away = 0.0

    async def _be_there(self) -> None:
        group = self.group
        async with client_of(self.network, self.label, 1 if self.old else 2, self._life) as client:
            named = group.kind == "named"
            try:
                if named:
                    self.history.subscribing(self.subscription(group, 0))
                async with client.subscribe(
                    group.topic,
                    qos=group.qos,
                    name=group.name if named else None,
                    prefetch=None if self.old else group.prefetch,
                    start="new" if group.start_new else None,
                    ack_wait=None if self.old or not group.qos else group.ack_wait,
                    max_attempts=None if self.old or not group.qos else group.max_attempts,
                ) as messages:
                    self._has_subscribed()
                    with unwrapped():
                        async with trio.open_nursery() as nursery:
                            nursery.start_soon(self._make_sure, client)
                            async for message in messages:
                                await self._take(message)
            finally:
                self.going()

    def _has_subscribed(self) -> None:
        """What a crash has ended meanwhile does not count."""
        assert self.found is not None
        assert self.holder is not None
        if self.group.durable and self.holder.ended_at() == math.inf:
            self.history.subscribed(self.found)

    async def _take(self, message: Message) -> None:
        body = message.body[:BODY_BYTES]
        self.trace.note(self.label, "takes", body.decode(), message.tag)
        found = self.found
        assert found is not None
        copy = found.copies.get((body, message.tag))
        if copy is None or not copy.sends:
            self.history.violation(f"{self.label} was given {body.decode()}, which was not sent")
            return
        if message.tag is None:
            return
        holder = self.holder
        assert holder is not None
        rng = chance(self.network.seed, self.group.name, body.decode(), copy.sends)
        moods, weights = zip(*self.group.moods, strict=True)
        mood = "accept" if self.calm else rng.choices(moods, weights)[0]
        await self._treat(_Taken(message, found, copy, holder), mood, rng)

    async def _treat(self, taken: _Taken, mood: str, rng: Random) -> None:
        message, copy = taken.message, taken.copy
        match mood:
            case "accept":
                self._accepting(taken)
                await message.accept()
                self._sure_soon(taken)
            case "retry":
                self.history.giving_back(copy)
                # The broker's backoff doubles with every attempt.
                delays = (None, 0.2) if copy.sends < 6 else (0.2,)
                await message.retry(None if self.old else rng.choice(delays))
            case "release":
                self.history.giving_back(copy, released=True)
                await message.release()
            case "reject":
                self.history.giving_back(copy, rejected=True)
                await message.reject()
            case "work":
                async with message:
                    await trio.sleep(rng.uniform(0.0, 0.5))
                    self._accepting(taken)
                self._sure_soon(taken)
            case "fail":
                self.history.giving_back(copy)
                with suppress(_Failure):
                    async with message:
                        raise _Failure
            case _:
                assert mood == "ignore"

    def _accepting(self, taken: _Taken) -> None:
        self.history.accepting(taken.subscription, taken.copy, taken.holder)

    def _sure_soon(self, taken: _Taken) -> None:
        self._unsure.append(taken)
        self._some.set()

    async def _make_sure(self, client: Client) -> None:
        """A round trip on the same connection says that the broker knows."""
        while True:
            await self._some.wait()
            await trio.sleep(0.02)
            self._some = trio.Event()
            unsure, self._unsure = self._unsure, []
            try:
                await client.ping()
            except BlipMQError:
                continue  # whoever receives hears of it as well
            for taken in unsure:
                lease = lease_of(taken.message)
                if not isinstance(lease, Lease) or lease.live:
                    self.trace.note(self.label, "has accepted", taken.copy.message.body.decode())
                    self.history.accepted(taken.copy, taken.holder)


@attrs.define(eq=False)
class Undertaker:
    """Takes the dead letters of everybody, and accepts them."""

    network: Network
    history: History
    trace: Trace
    ready: trio.Event = attrs.Factory(trio.Event)
    _seen: set[int] = attrs.Factory(set)
    _life: int = 0

    async def run(self) -> None:
        while True:
            self._life += 1
            try:
                async with client_of(self.network, "undertaker", 2, self._life) as client:
                    await self._bury(client)
            except (BlipMQError, OSError) as error:
                self.trace.note("undertaker", "lost", type(error).__name__)
            await trio.sleep(0.05)

    async def _bury(self, client: Client) -> None:
        async with client.subscribe("$dead.>", name="undertaker", max_attempts=0) as messages:
            self.ready.set()
            async for message in messages:
                if not self.network.of("undertaker"):
                    continue  # the daemon that has sent it is gone, and may not have kept it
                async with message:
                    origin = message.dead_letter
                    assert origin is not None
                    assert message.tag is not None
                    if message.tag in self._seen:
                        continue
                    self._seen.add(message.tag)
                    self.trace.note(
                        "dead", message.body[:6].decode(), origin.subscription.decode(), origin.tag
                    )
                    self.history.buried(
                        Letter(
                            message.body[:BODY_BYTES],
                            origin.topic.decode(),
                            origin.tag,
                            origin.subscription.decode(),
                            origin.reason,
                        )
                    )
