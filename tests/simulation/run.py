"""A plan carried out: the daemon, its users, and what goes wrong, on one mock clock."""

from __future__ import annotations

import logging
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from unittest import mock

import attrs
import structlog
import trio
from trio.testing import MockClock

from blipmq.broker import behind, broker, log_cursor, topic
from blipmq.client.source import is_pattern
from blipmq.nursery import wal_writer
from blipmq.wal import next_segment
from tests.simulation.faults import inflict
from tests.simulation.generate import SECONDS
from tests.simulation.host import LINGER_MS, Host
from tests.simulation.member import Member, Undertaker
from tests.simulation.network import Line, Link, Network
from tests.simulation.plan import Burst, Group, Leave, Plan
from tests.simulation.publisher import Publisher
from tests.simulation.repeatable import repeatable
from tests.simulation.tap import Tap
from tests.simulation.trace import Trace
from tools.history.history import History
from tools.history.subscription import Holder, Subscription

PATIENCE_SECONDS = 60.0
"""So long what is owed may take when nothing goes wrong any more."""
_LOOK_SECONDS = 0.25
_SETTLE_SECONDS = 1.0
"""What was under way has arrived by then."""
_END_SECONDS = 1000.0
"""No run takes so long."""


@attrs.frozen
class Result:
    """What came of a run. `counts` says how much of what happened in it."""

    violations: tuple[str, ...]
    digest: str
    lines: tuple[str, ...]
    counts: Counter[str]
    error: Exception | None = None
    """What has ended the run before its time."""


def simulate(plan: Plan) -> Result:
    """Carry out a plan. The same plan has the same result, in every process."""
    with repeatable(plan.seed), _little_memory(plan):
        return trio.run(_simulate, plan, clock=MockClock(autojump_threshold=0.0))


@contextmanager
def _little_memory(plan: Plan) -> Iterator[None]:
    """A few messages are much: for a backlog on disk, and for a file of zeros."""
    patches = [
        mock.patch.object(topic, "WINDOW_BYTES", 600),
        mock.patch.object(log_cursor, "LOAD_BYTES", 800),
        mock.patch.object(broker, "LOAD_BYTES", 800),
        mock.patch.object(behind, "_GAP_MAX", 3),
        mock.patch.object(next_segment, "PIECE_BYTES", 1024),
    ]
    if plan.setup.prepares:
        patches.append(mock.patch.object(wal_writer, "COMMITS_BEFORE_PREPARING", 2))
    logger = logging.getLogger("blipmq.client")
    disabled, logger.disabled = logger.disabled, True
    try:
        with structlog.testing.capture_logs():
            for patch in patches:
                patch.start()
            yield
    finally:
        logger.disabled = disabled
        for patch in patches:
            patch.stop()


async def _simulate(plan: Plan) -> Result:
    world = World.of(plan)
    error: Exception | None = None
    try:
        with trio.fail_after(_END_SECONDS):
            await world.run()
    except Exception as raised:  # noqa: BLE001, it is a finding like any other
        error = raised
        world.history.violation(f"the run has ended with {_text(raised)}")
    return Result(
        tuple(world.history.violations),
        world.trace.digest,
        tuple(world.trace.lines),
        world.counts(),
        error,
    )


def _text(error: BaseException) -> str:
    """What was raised, and where."""
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(sorted({_text(each) for each in error.exceptions}))
    frames = traceback.extract_tb(error.__traceback__)
    place = f" in {frames[-1].name}" if frames else ""
    return f"{type(error).__name__}{place}: {error}"


@attrs.define(eq=False)
class World:
    plan: Plan
    trace: Trace
    history: History
    network: Network
    host: Host
    members: list[Member] = attrs.Factory(list)
    publishers: list[Publisher] = attrs.Factory(list)
    _subscriptions: dict[str, Subscription] = attrs.Factory(dict)
    _calm: bool = False

    @classmethod
    def of(cls, plan: Plan) -> World:
        setup, trace = plan.setup, Trace()
        history = History(
            trio.current_time,
            grace=0.1 + 6 * setup.disk_delay,
            linger=LINGER_MS / 1000,
            dedup_window=setup.dedup_window_ms / 1000,
            dead_letters=setup.dead_letters,
        )
        link = Link(setup.delay, setup.piece, setup.window)
        network = Network(link, plan.seed, _untapped)
        host = Host(setup, plan.seed, trace, network, history)
        history.stored = host.stored
        world = cls(plan, trace, history, network, host)
        network.tap = world.tap
        host.on_drain = world.draining
        return world

    # Who is there

    def tap(self, line: Line) -> Callable[[bytes], None]:
        """Who listens to the daemon on a new connection."""
        name = f"{line.who}/{line.number}"
        member = next((m for m in self.members if m.label == line.who), None)
        if member is None:
            return Tap(self.history, self.trace, name, Holder(name), watched=self.watch)
        member.found = None

        def subscription(id_: int) -> Subscription:
            member.found = self.subscription(member.group, id_)
            return member.found

        return Tap(self.history, self.trace, name, member.connected(line), subscription, self.watch)

    def watch(self) -> None:
        """Memory is bounded at all times."""
        used, most = self.host.stats.memory_bytes, self.plan.setup.max_memory_bytes
        if not 0 <= used <= most:
            self.history.violation(f"{used} bytes of memory are in use, of {most}")

    def subscription(self, group: Group, id_: int) -> Subscription:
        """Of a group; of version 1 by its id, and those without a name end with a connection."""
        name = group.name
        if group.kind == "v1":
            name = f"{name} {id_}"
        elif group.kind != "named":
            name = f"{name} of connection {len(self.network.lines)} {id_}"
        found = self._subscriptions.get(name)
        if found is None:
            found = self._subscriptions[name] = self._new_subscription(group)
            if group.kind != "named":
                found.name = "" if group.kind == "v1" else name
                self.history.subscribing(found)
        return found

    def _new_subscription(self, group: Group) -> Subscription:
        setup = self.plan.setup
        old = group.kind.startswith("v1")
        return Subscription(
            group.name,
            _matcher(group.topic),
            group.qos,
            setup.retry_backoff_ms / 1000 if old else group.ack_wait,
            max(1, setup.max_retries) if old else group.max_attempts,
            durable=group.durable,
            start_new=group.start_new,
            anybody_accepts=old,
            counts_attempts=not old,
        )

    def draining(self) -> None:
        """Clients give back what they hold."""
        for member in self.members:
            member.going()

    # What happens

    async def run(self) -> None:
        plan = self.plan
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.host.run)
            undertaker = Undertaker(self.network, self.history, self.trace)
            async with trio.open_nursery() as users:
                users.start_soon(undertaker.run)
                await undertaker.ready.wait()
                for group in plan.groups:
                    for label in group.labels:
                        self._join(users, label, group)
                self._publish(users)
                users.start_soon(self._leaves)
                users.start_soon(self._keep_alive)
                for fault in plan.faults:
                    users.start_soon(inflict, fault, self.host, self.network)
                await trio.sleep_until(SECONDS + 0.5)
                await self._calm_down(users)
                users.cancel_scope.cancel()
            await self._stop()
            nursery.cancel_scope.cancel()

    def _join(self, users: trio.Nursery, label: str, group: Group) -> None:
        member = Member(
            label,
            group,
            self.network,
            self.history,
            self.trace,
            self.subscription,
            self._calm,
        )
        self.members.append(member)
        users.start_soon(member.run, name=label)

    def _publish(self, users: trio.Nursery) -> None:
        bursts = [o for o in self.plan.operations if isinstance(o, Burst)]
        for who in sorted({burst.who for burst in bursts}):
            publisher = Publisher(
                who,
                [burst for burst in bursts if burst.who == who],
                self.network,
                self.history,
                self.trace,
                self.plan.setup.dedup_window_ms / 1000,
            )
            self.publishers.append(publisher)
            users.start_soon(publisher.run, name=who)

    async def _leaves(self) -> None:
        for operation in self.plan.operations:
            if isinstance(operation, Leave):
                await trio.sleep_until(operation.at)
                for member in self.members:
                    if member.label == operation.who:
                        member.leave(operation.seconds)

    async def _keep_alive(self) -> None:
        while True:
            await trio.sleep(1.0)
            self.network.keepalive()

    async def _calm_down(self, users: trio.Nursery) -> None:
        """Nothing goes wrong any more, and everybody accepts what is left."""
        self.trace.note("calm")
        self._calm = True
        host = self.host
        host.calm = True
        host.weather.heal()
        host.weather.crash_in = None
        host.slowness = 0.0
        self.network.heal()
        for member in self.members:
            member.calm = True
        for group in self.plan.groups:
            if group.kind == "v1":
                # Each connection may have left a subscription behind.
                for number in range(len(self._parked(group)) - 1):
                    self._join(users, f"{group.name}+{number}", group)
        await trio.sleep(_SETTLE_SECONDS)
        for _ in range(round(PATIENCE_SECONDS / _LOOK_SECONDS)):
            if self._done():
                break
            await trio.sleep(_LOOK_SECONDS)
        self.history.finish()
        await host.up.wait()
        if not self._idle():
            stats = host.stats
            self.history.violation(
                f"in the end {host.held} messages are held, {stats.inflight} are out "
                f"and {stats.delayed} wait to be published"
            )

    def _parked(self, group: Group) -> list[str]:
        return [name for name in self._subscriptions if name.startswith(f"{group.name} ")]

    def _done(self) -> bool:
        published = all(publisher.done.is_set() for publisher in self.publishers)
        return published and self._idle() and not self.history.missing()

    def _idle(self) -> bool:
        host = self.host
        if not host.up.is_set():
            return False
        return not (host.stats.inflight or host.stats.delayed or host.held)

    async def _stop(self) -> None:
        host = self.host
        await host.up.wait()
        host.over = True
        host.signal()
        await host.ended.wait()
        host.verify()

    def counts(self) -> Counter[str]:
        history = self.history
        found = Counter(
            {
                "messages": len(history.messages),
                "confirmed": sum(m.confirmed_at is not None for m in history.messages.values()),
                "deliveries": history.sent_count,
                "redeliveries": history.redeliveries,
                "dead letters": history.letters,
                "lives": self.host.life,
                "disk calls": self.host.disk.calls,
                "connections": len(self.network.lines),
            }
        )
        found.update(f"life: {how.partition(':')[0]}" for how in self.host.ends)
        found.update(f"fault: {fault.kind}" for fault in self.plan.faults)
        return found


def _untapped(line: Line) -> Callable[[bytes], None]:
    raise AssertionError("nobody listens yet")


def _matcher(selector: str) -> Callable[[str], bool]:
    """Whether a topic is this one, or one of this pattern."""
    if not is_pattern(selector):
        return partial(str.__eq__, selector)
    levels = selector.split(".")

    def matches(name: str) -> bool:
        if name.startswith("$"):
            return False
        parts = name.split(".")
        if levels[-1] == ">":
            return len(parts) >= len(levels) and _same(levels[:-1], parts)
        return len(parts) == len(levels) and _same(levels, parts)

    return matches


def _same(levels: list[str], parts: list[str]) -> bool:
    return all(level in ("*", part) for level, part in zip(levels, parts, strict=False))
