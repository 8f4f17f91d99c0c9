"""`python -m tools.bench.backlog`: a backlog that grows, a restart with it, and its draining.

Durable subscriptions that nobody consumes begin at different places of one topic, evenly spread;
after the restart all are drained at once. The live rate to compare with, one publisher and one
consumer that keeps up, is measured on the same broker before.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from multiprocessing import get_context
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path

import attrs
import click

from tools.bench.blipmq.connection import attach, connect
from tools.bench.consumers import Consumer, consume
from tools.bench.daemon import API_KEY, MeasuredDaemon, running_daemon
from tools.bench.directory import let_go_of_cache, log_directory, size_bytes
from tools.bench.load.clients import Client, Go, working
from tools.bench.options import directory_option, fsync_policy_option, json_option, size_option
from tools.bench.publishers import Publishers
from tools.bench.table import Rows, show

TOPIC = b"backlog"
LIVE = b"live"
AHEAD_MESSAGES = 20_000
STEPS = 20
MIB = 1 << 20


@attrs.frozen
class Load:
    """What is published, in all and of live messages, by whom and to whom.

    Each publisher keeps `window` messages unconfirmed, each consumer `prefetch` unsettled.
    """

    messages: int
    live: int
    subscriptions: int
    size: int
    publishers: int
    window: int
    prefetch: int

    def connect_publishers(self, address: tuple[str, int], topic: bytes) -> Publishers:
        return Publishers.connect(address, API_KEY, topic, self.size, self.publishers, self.window)

    @property
    def step(self) -> int:
        """How many messages there are between two figures."""
        return self.messages // STEPS

    @property
    def places(self) -> list[int]:
        """How many messages there are before each subscription begins."""
        each = range(self.subscriptions)
        return [i * STEPS // self.subscriptions * self.step for i in each]

    @property
    def held(self) -> int:
        """Messages of all subscriptions when everything is published."""
        return sum(self.messages - place for place in self.places)


@attrs.frozen
class Step:
    """Where a phase is. `rate` and processor time are those of the messages since the step before.

    Processor time tells a broker that slows down from a machine that has other things to do.
    """

    phase: str
    messages: int
    seconds: float
    rate: float
    cpu_s_per_million: float
    memory_mib: float
    log_mib: float


@attrs.frozen
class Phase:
    """A phase as a whole. `steadiness` is the rate of its last third over that of its first."""

    phase: str
    messages: int
    seconds: float
    rate: float
    steadiness: float
    of_live_rate: float
    peak_memory_mib: float
    log_mib: float
    cpu_s_per_million: float


def _name(number: int) -> bytes:
    return b"subscription-%d" % number


def _publish_live(
    address: tuple[str, int], load: Load, consumed: Synchronized[int], go: Go
) -> Iterator[int]:
    publishers = load.connect_publishers(address, LIVE)
    go()
    publishers.publish(load.live // load.publishers, lambda: consumed.value + AHEAD_MESSAGES)
    yield publishers.confirmed


def _consume_live(
    address: tuple[str, int], load: Load, consumed: Synchronized[int], go: Go
) -> Iterator[int]:
    consumer = Consumer.connect(address, API_KEY, LIVE, LIVE, load.size, load.prefetch)
    go()
    due = 0
    for received in consume([consumer], load.live, 1):
        consumed.value = received
        if received >= due:
            yield received
            due = received + load.live // STEPS
    yield load.live


def _grow(address: tuple[str, int], load: Load, go: Go) -> Iterator[int]:
    publishers = load.connect_publishers(address, TOPIC)
    go()
    with closing(connect(address, API_KEY, version=2)) as sock:
        for _ in range(STEPS):
            for number, place in enumerate(load.places):
                if place == publishers.confirmed:
                    attach(sock, TOPIC, _name(number))
            publishers.publish(load.step // load.publishers)
            yield publishers.confirmed


def _drain(address: tuple[str, int], load: Load, go: Go) -> Iterator[int]:
    go()
    consumers = [
        Consumer.connect(address, API_KEY, TOPIC, _name(number), load.size, load.prefetch)
        for number in range(load.subscriptions)
    ]
    yield from consume(consumers, load.held, load.held // STEPS)


def _watch(
    phase: str, daemon: MeasuredDaemon, log: Path, client: Client[int]
) -> tuple[list[Step], Phase]:
    """Follow a phase until its end."""
    daemon.forget_peak()
    began, cpu = time.perf_counter(), daemon.cpu_seconds()
    steps: list[Step] = []
    before = (0, 0.0, cpu)
    for messages in client.reports():
        now = (messages, time.perf_counter() - began, daemon.cpu_seconds())
        count, seconds, used = (new - old for new, old in zip(now, before, strict=True))
        if count:
            memory, size = daemon.memory_bytes() / MIB, size_bytes(log) / MIB
            per_million = used / count * 1e6
            steps.append(Step(phase, messages, now[1], count / seconds, per_million, memory, size))
            before = now
    messages, seconds, _ = before
    third = max(1, len(steps) // 3)
    whole = Phase(
        phase,
        messages,
        seconds,
        messages / seconds,
        _rate(steps[-third:]) / _rate(steps[:third]),
        1.0,
        daemon.peak_memory_bytes() / MIB,
        size_bytes(log) / MIB,
        (daemon.cpu_seconds() - cpu) / messages * 1e6,
    )
    return steps, whole


def _rate(steps: list[Step]) -> float:
    return sum(step.rate for step in steps) / len(steps)


@attrs.frozen
class Restart:
    """How long the broker took to be ready again, and what it then had in memory."""

    seconds: float
    memory_mib: float
    peak_memory_mib: float
    log_mib: float


@attrs.define
class Report:
    """All phases in order."""

    steps: list[Step] = attrs.Factory(list)
    phases: list[Phase] = attrs.Factory(list)
    restarts: list[Restart] = attrs.Factory(list)

    def watch(self, phase: str, daemon: MeasuredDaemon, log: Path, client: Client[int]) -> None:
        """Follow a phase until its end, and compare it with the live one, the first."""
        steps, whole = _watch(phase, daemon, log, client)
        self.steps += steps
        live = self.phases[0].rate if self.phases else whole.rate
        self.phases.append(attrs.evolve(whole, of_live_rate=whole.rate / live))


def _measure_live(report: Report, daemon: MeasuredDaemon, log: Path, load: Load) -> None:
    consumed: Synchronized[int] = get_context("fork").Value("q", 0)
    works = [
        partial(work, daemon.address, load, consumed) for work in (_publish_live, _consume_live)
    ]
    with working(works) as (publisher, consumer):
        report.watch("live", daemon, log, consumer)
        publisher.last_report()
    with closing(connect(daemon.address, API_KEY, version=2)) as sock:
        attach(sock, LIVE, LIVE, delete=True)


def measure(directory: Path, fsync_policy: str, load: Load, *, cold: bool) -> Report:
    """On a broker and a log of their own. `cold`: the restart and the draining read the disk."""
    report = Report()
    with log_directory(directory) as log:
        with running_daemon(str(log), fsync_policy) as daemon:
            _measure_live(report, daemon, log, load)
            with working([partial(_grow, daemon.address, load)]) as (client,):
                report.watch("grow", daemon, log, client)
        if cold:
            let_go_of_cache(log)
        with running_daemon(str(log), fsync_policy) as daemon:
            memory, peak = daemon.memory_bytes() / MIB, daemon.peak_memory_bytes() / MIB
            restart = Restart(daemon.start_seconds, memory, peak, size_bytes(log) / MIB)
            report.restarts.append(restart)
            if cold:
                let_go_of_cache(log)
            with working([partial(_drain, daemon.address, load)]) as (client,):
                report.watch("drain", daemon, log, client)
    return report


@click.command()
@click.option("--messages", default=10_000_000, show_default=True, help="Of the backlog.")
@click.option("--live-messages", default=1_000_000, show_default=True)
@click.option("--subscriptions", default=1, show_default=True, type=click.IntRange(1, STEPS))
@size_option
@fsync_policy_option
@click.option("--publishers", default=1, show_default=True)
@click.option("--window", default=1000, show_default=True, help="Unconfirmed, of each publisher.")
@click.option("--prefetch", default=5000, show_default=True, help="Unsettled, of each consumer.")
@click.option("--cold", is_flag=True, help="Read from the disk, not from the kernel's cache.")
@json_option
@directory_option
def main(
    messages: int,
    live_messages: int,
    subscriptions: int,
    size: int,
    fsync_policy: str,
    publishers: int,
    window: int,
    prefetch: int,
    cold: bool,
    as_json: bool,
    directory: Path,
) -> None:
    """Measure rate, memory and disk use while a backlog grows, at a restart, and as it drains."""
    messages -= messages % (STEPS * publishers)
    live_messages -= live_messages % publishers
    load = Load(messages, live_messages, subscriptions, size, publishers, window, prefetch)
    report = measure(directory, fsync_policy, load, cold=cold)
    tables: dict[str, Rows] = {
        "steps": report.steps,
        "phases": report.phases,
        "restart": report.restarts,
    }
    show(tables, as_json=as_json)


if __name__ == "__main__":
    main()
