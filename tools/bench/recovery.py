"""`python -m tools.bench.recovery`: how long a broker takes to be back after a crash.

One log grows; at each size the broker is killed and started twice: with the log in the kernel's
cache, and from the disk. A named subscription wants everything that is in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import attrs
import click

from tools.bench.blipmq.connection import attach, connect
from tools.bench.consumers import Consumer, consume
from tools.bench.daemon import API_KEY, MeasuredDaemon, running_daemon
from tools.bench.directory import let_go_of_cache, log_directory, size_bytes
from tools.bench.load.clients import Go, working
from tools.bench.options import directory_option, fsync_policy_option, json_option, size_option
from tools.bench.publishers import Publishers
from tools.bench.table import show

TOPIC = b"recovery"
NAME = b"all"
WINDOW = 1000
PREFETCH = 5000
MESSAGES = (0, 100_000, 1_000_000, 4_000_000, 10_000_000)
MIB = 1 << 20


@attrs.frozen
class Recovered:
    """A start: `peak` is the most memory until it was ready."""

    messages: int
    log_mib: float
    cached: bool
    seconds: float
    memory_mib: float
    peak_memory_mib: float


@attrs.frozen
class Drained:
    """What was there after the last start."""

    messages: int


def _publish(address: tuple[str, int], size: int, messages: int, go: Go) -> Iterator[int]:
    publishers = Publishers.connect(address, API_KEY, TOPIC, size, 1, WINDOW)
    go()
    publishers.publish(messages)
    yield publishers.confirmed


def _drain(address: tuple[str, int], size: int, messages: int, go: Go) -> Iterator[int]:
    go()
    consumer = Consumer.connect(address, API_KEY, TOPIC, NAME, size, PREFETCH)
    yield from consume([consumer], messages, messages)


def _grow(daemon: MeasuredDaemon, size: int, messages: int) -> None:
    """Publish so many more."""
    with closing(connect(daemon.address, API_KEY, version=2)) as sock:
        attach(sock, TOPIC, NAME)
    with working([partial(_publish, daemon.address, size, messages)]) as (client,):
        client.last_report()


def measure(
    directory: Path, fsync_policy: str, size: int, messages: list[int], *, drain: bool
) -> tuple[list[Recovered], list[Drained]]:
    """Figures at each number of messages, ascending; with `drain` also what is there at last."""
    recovered, drained = [], []
    published = 0
    with log_directory(directory) as log:
        for goal in messages:
            with running_daemon(str(log), fsync_policy) as daemon:
                _grow(daemon, size, goal - published)
                published = goal
                daemon.kill()
            for cached in (True, False):
                if not cached:
                    let_go_of_cache(log)
                with running_daemon(str(log), fsync_policy) as daemon:
                    recovered.append(_look(daemon, goal, log, cached=cached))
                    daemon.kill()
        if drain:
            with running_daemon(str(log), fsync_policy) as daemon:
                works = [partial(_drain, daemon.address, size, published)]
                with working(works) as (client,):
                    drained.append(Drained(client.last_report()))
    return recovered, drained


def _look(daemon: MeasuredDaemon, messages: int, log: Path, *, cached: bool) -> Recovered:
    return Recovered(
        messages,
        size_bytes(log) / MIB,
        cached,
        daemon.start_seconds,
        daemon.memory_bytes() / MIB,
        daemon.peak_memory_bytes() / MIB,
    )


@click.command()
@click.option("--messages", multiple=True, default=MESSAGES, show_default=True)
@size_option
@fsync_policy_option
@click.option("--drain", is_flag=True, help="Count, in the end, what was recovered.")
@json_option
@directory_option
def main(
    messages: tuple[int, ...],
    size: int,
    fsync_policy: str,
    drain: bool,
    as_json: bool,
    directory: Path,
) -> None:
    """Measure the time from the start of the process until it takes clients, by size of log."""
    recovered, drained = measure(directory, fsync_policy, size, sorted(messages), drain=drain)
    show({"recovery": recovered, "drained": drained}, as_json=as_json)


if __name__ == "__main__":
    main()
