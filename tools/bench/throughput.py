"""`python -m tools.bench.throughput`: how many messages a second go through one broker.

Publishers and pollers are processes of their own; every message is counted, and none may be
missing. The publishers stay a bounded number of messages ahead of the slowest poller.
"""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path

import attrs
import click

from tools.bench.daemon import API_KEY, MeasuredDaemon, running_daemon
from tools.bench.wire import Poller, Publisher, connect

TOPIC = b"bench"
BATCH_MESSAGES = 500
AHEAD_MESSAGES = 20_000
POLLS = 256
SETTINGS = {
    "BLIPMQ_LIMITS_QUEUE_CAPACITY": "1000000",
    "BLIPMQ_LIMITS_QUEUE_BYTES": str(1 << 30),
    "BLIPMQ_RETRY_BACKOFF_MS": "60000",
}
"""Nothing is dropped, and nothing comes twice."""


@attrs.frozen
class Work:
    """What is to be done. `messages` is per publisher, a multiple of the batch."""

    qos: int
    size: int
    messages: int
    publishers: int
    subscribers: int

    @property
    def published(self) -> int:
        return self.messages * self.publishers


def _publish(
    address: tuple[str, int], work: Work, start: object, counters: list[Synchronized[int]]
) -> None:
    publisher = Publisher.create(
        connect(address, API_KEY), TOPIC, work.qos, work.size, BATCH_MESSAGES
    )

    def may_go_on(published: int) -> None:
        while counters and published - min(c.value for c in counters) // work.publishers > (
            AHEAD_MESSAGES
        ):
            time.sleep(0.0005)

    start.wait()  # type: ignore[attr-defined]
    publisher.publish(work.messages // BATCH_MESSAGES, may_go_on)


def _poll(address: tuple[str, int], work: Work, start: object, counter: Synchronized[int]) -> None:
    poller = Poller.create(connect(address, API_KEY), TOPIC, work.qos, work.size, POLLS)
    start.wait()  # type: ignore[attr-defined]
    received = 0
    while received < work.published:
        received += poller.poll()
        counter.value = received


def measure(daemon: MeasuredDaemon, work: Work) -> tuple[float, float]:
    """Seconds of wall time, and processor seconds of the broker."""
    context = multiprocessing.get_context("fork")
    start = context.Barrier(work.publishers + work.subscribers + 1)
    counters = [context.Value("q", 0) for _ in range(work.subscribers)]
    processes = [
        context.Process(target=_poll, args=(daemon.address, work, start, counter))
        for counter in counters
    ]
    processes += [
        context.Process(target=_publish, args=(daemon.address, work, start, counters))
        for _ in range(work.publishers)
    ]
    for process in processes:
        process.start()
    start.wait()
    began, cpu = time.perf_counter(), daemon.cpu_seconds()
    for process in processes:
        process.join()
    elapsed, used = time.perf_counter() - began, daemon.cpu_seconds() - cpu
    if any(process.exitcode for process in processes):
        raise click.ClickException("a client failed")
    return elapsed, used


@click.command()
@click.option("--qos", type=click.IntRange(0, 1), default=1, show_default=True)
@click.option("--size", default=256, show_default=True, help="Bytes of a body.")
@click.option("--messages", default=200_000, show_default=True, help="Per publisher.")
@click.option("--publishers", default=1, show_default=True)
@click.option("--subscribers", default=1, show_default=True)
@click.option("--wal/--no-wal", default=True, show_default=True)
@click.option("--fsync-policy", default="always", show_default=True)
@click.option("--repeat", default=3, show_default=True)
def main(
    qos: int,
    size: int,
    messages: int,
    publishers: int,
    subscribers: int,
    wal: bool,
    fsync_policy: str,
    repeat: int,
) -> None:
    """Measure version 1 throughput with clients that only move bytes."""
    messages -= messages % BATCH_MESSAGES
    work = Work(qos, size, messages, publishers, subscribers)
    for _ in range(repeat):
        with tempfile.TemporaryDirectory(prefix="blipmq-bench-") as directory:
            wal_path = str(Path(directory) / "wal") if wal else ""
            with running_daemon(wal_path, fsync_policy, SETTINGS) as daemon:
                elapsed, cpu = measure(daemon, work)
                peak = daemon.peak_memory_bytes()
        click.echo(
            f"published {work.published / elapsed:,.0f}/s"
            f"  delivered {work.published * subscribers / elapsed:,.0f}/s"
            f"  broker CPU {cpu / work.published * 1e6:.2f} s per million"
            f"  peak memory {peak / 2**20:.0f} MiB"
        )


if __name__ == "__main__":
    main()
