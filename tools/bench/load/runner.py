"""Measuring: the clients of a piece of work against a running broker, and what came of it."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Sequence
from functools import partial
from multiprocessing.connection import wait

import attrs

from tools.bench.load import server as account
from tools.bench.load.clients import Client, ready
from tools.bench.load.counters import Counters
from tools.bench.load.kinds import Clients, Report
from tools.bench.load.latencies import Percentiles, percentiles
from tools.bench.load.server import Running
from tools.bench.load.work import Miscounted, Work

PATIENCE_SECONDS = 20.0
"""Nothing sent and nothing received for so long: something is missing."""


@attrs.frozen
class Pinning:
    """Cores that the broker and the clients are held to; empty: any."""

    server: Collection[int] = ()
    clients: Collection[int] = ()


@attrs.frozen
class Result:
    """`seconds` are from the first publish, or take, to the last receive, and at QoS 1 to the last
    confirm and acknowledgement that the broker has dealt with.

    `rate` is messages received a second by all subscribers together, `published_rate` sent by all
    publishers; of a broker that is not ours, the last two are None. CPU is that of the broker,
    for a million messages received (published, where nobody subscribes).
    """

    kind: str
    published: int
    received: int
    seconds: float
    published_rate: float
    rate: float
    latency: Percentiles | None
    confirm_latency: Percentiles | None
    cpu_s_per_million: float | None
    peak_memory_mib: float | None


def run(
    running: Running,
    clients: Clients,
    work: Work,
    *,
    pinning: Pinning | None = None,
    patience_seconds: float = PATIENCE_SECONDS,
) -> Result:
    """Do the work with one process for each client.

    Raises Miscounted when not exactly what was published has come, or nothing happens for that
    long, and ClientFailed when a client does.
    """
    clients.prepare(running.address, work)
    counters = Counters(work)
    publishers = [
        partial(clients.publish, running.address, work, place, counters)
        for place in range(work.publishers)
    ]
    subscribers = [
        partial(clients.consume, running.address, work, place, counters)
        for place in range(work.subscribers)
    ]
    with ready([*subscribers, *publishers]) as processes:
        consuming, publishing = processes[: work.subscribers], processes[work.subscribers :]
        pin_all(running, processes, pinning)
        account.forget_peak(running.pids)
        watch = _Watch(counters, patience_seconds)
        published: list[Report] = []
        if work.preload:
            _let_go(publishing)
            published = watch.reports(publishing)
            publishing = []
        cpu = account.cpu_seconds(running.pids)
        _let_go([*consuming, *publishing])
        reports = watch.reports([*consuming, *publishing])
        cpu = account.cpu_seconds(running.pids) - cpu
        peak = account.peak_memory_bytes(running.pids)
    clients.conclude(running.address, work)
    received = reports[: work.subscribers]
    published = published or reports[work.subscribers :]
    _check(counters, received)
    result = summary(running, clients.kind, published, received, reports, cpu, peak)
    # How long messages lay there before anyone came for them is no latency.
    return attrs.evolve(result, latency=None) if work.preload else result


def round_trips(
    running: Running, clients: Clients, work: Work, *, pinning: Pinning | None = None
) -> Result:
    """Publish and receive `work.messages` one by one, by one client on two connections.

    `latency` is that of a trip. Raises as `run`.
    """
    clients.prepare(running.address, work)
    with ready([partial(clients.round_trips, running.address, work)]) as processes:
        pin_all(running, processes, pinning)
        account.forget_peak(running.pids)
        cpu = account.cpu_seconds(running.pids)
        _let_go(processes)
        report = processes[0].last_report()
        cpu = account.cpu_seconds(running.pids) - cpu
        peak = account.peak_memory_bytes(running.pids)
    clients.conclude(running.address, work)
    return summary(running, clients.kind, [], [report], [report], cpu, peak)


def summary(
    running: Running,
    kind: str,
    published: list[Report],
    received: list[Report],
    timed: list[Report],
    cpu: float,
    peak: int,
) -> Result:
    """Of what clients report; time counts from the first to the last of `timed`."""
    seconds = (max(r.ended_ns for r in timed) - min(r.began_ns for r in timed)) / 1e9
    count = sum(report.messages for report in received)
    sent = sum(report.messages for report in published) or count
    ours = bool(running.pids)
    return Result(
        kind,
        sent,
        count,
        seconds,
        sent / seconds,
        count / seconds,
        percentiles([report.latencies for report in received]),
        percentiles([report.latencies for report in published]),
        cpu / (count or sent) * 1e6 if ours else None,
        peak / 2**20 if ours else None,
    )


@attrs.frozen
class _Watch:
    counters: Counters
    patience_seconds: float

    def reports(self, clients: Sequence[Client[Report]]) -> list[Report]:
        """The last report of each. Raises ClientFailed as soon as one fails, and Miscounted."""
        found: dict[int, Report] = {}
        waiting = {client.pipe: at for at, client in enumerate(clients)}
        seen, since = self.counters.snapshot(), time.monotonic()
        while waiting:
            for pipe in wait(list(waiting), timeout=self.patience_seconds / 4):
                at = next(place for each, place in waiting.items() if each is pipe)
                found[at] = clients[at].last_report()
                del waiting[clients[at].pipe]
                since = time.monotonic()
            now = self.counters.snapshot()
            if now != seen:
                seen, since = now, time.monotonic()
            elif waiting and time.monotonic() - since > self.patience_seconds:
                raise Miscounted(self._complaint())
        return [found[at] for at in range(len(clients))]

    def _complaint(self) -> str:
        counts = [
            f"subscriber {place} has {count:,} of "
            + ("an unknown number" if (goal := self.counters.goal(place)) is None else f"{goal:,}")
            for place, count in enumerate(self.counters.received)
        ]
        sent = ", ".join(f"{count:,}" for count in self.counters.sent)
        return f"nothing happens any more; published: {sent}; {'; '.join(counts)}"


def _check(counters: Counters, received: list[Report]) -> None:
    for place, report in enumerate(received):
        if report.messages != counters.goal(place):
            raise Miscounted(
                f"subscriber {place} got {report.messages:,} messages, "
                f"and {counters.goal(place)} were published for it"
            )


def _let_go(clients: Sequence[Client[Report]]) -> None:
    for client in clients:
        client.go()


def pin_all(running: Running, clients: Sequence[Client[Report]], pinning: Pinning | None) -> None:
    """Hold the broker and the clients to their cores."""
    if pinning is None:
        return
    if pinning.server:
        account.pin(running.pids, pinning.server)
    if pinning.clients:
        for client in clients:
            os.sched_setaffinity(client.pid, set(pinning.clients))
