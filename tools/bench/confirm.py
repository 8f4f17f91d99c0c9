"""`python -m tools.bench.confirm`: how fast publishes are confirmed, and how soon.

A named subscription holds every message, and nobody consumes. Two figures for each fsync policy and
number of publishers: with one message in flight on each connection, and with many. All publishers
are one process with one thread, so a figure is what that one client can do, too.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import attrs
import click

from tools.bench.blipmq.connection import attach, connect
from tools.bench.daemon import API_KEY, running_daemon
from tools.bench.directory import log_directory
from tools.bench.load.clients import Go, working
from tools.bench.options import (
    directory_option,
    json_option,
    messages_alone_option,
    size_option,
    window_option,
)
from tools.bench.publishers import Publishers, percentile
from tools.bench.table import show

TOPIC = b"confirm"
NAME = b"all"
NO_LOG = "no log"
POLICIES = ("always", "every_n:1000", "interval_ms:20", "none", NO_LOG)
PUBLISHERS = (1, 8, 64)


@attrs.frozen
class Load:
    """What is published: `messages` in all, `window` of them unconfirmed on each connection."""

    publishers: int
    window: int
    size: int
    messages: int


@attrs.frozen
class Measured:
    """What the clients saw, and what it cost the broker."""

    policy: str
    publishers: int
    in_flight_each: int
    confirmed: int
    rate: float
    p50_ms: float
    p99_ms: float
    cpu_s_per_million: float


@attrs.frozen
class _Seen:
    confirmed: int
    seconds: float
    p50: float
    p99: float


def _publish(address: tuple[str, int], load: Load, go: Go) -> Iterator[_Seen]:
    publishers = Publishers.connect(
        address, API_KEY, TOPIC, load.size, load.publishers, load.window
    )
    go()
    began = time.perf_counter()
    publishers.publish(load.messages // load.publishers)
    seconds = time.perf_counter() - began
    p50, p99 = (percentile(publishers.latencies, share) for share in (0.5, 0.99))
    yield _Seen(publishers.confirmed, seconds, p50, p99)


def measure(directory: Path, policy: str, load: Load) -> Measured:
    """On a broker and a log of their own."""
    with log_directory(directory) as log:
        wal_path, fsync_policy = ("", "none") if policy == NO_LOG else (str(log), policy)
        with running_daemon(wal_path, fsync_policy) as daemon:
            with connect(daemon.address, API_KEY, version=2) as sock:
                attach(sock, TOPIC, NAME)
            cpu = daemon.cpu_seconds()
            with working([partial(_publish, daemon.address, load)]) as (client,):
                seen = client.last_report()
            cpu = daemon.cpu_seconds() - cpu
    return Measured(
        policy,
        load.publishers,
        load.window,
        seen.confirmed,
        seen.confirmed / seen.seconds,
        seen.p50 * 1e3,
        seen.p99 * 1e3,
        cpu / seen.confirmed * 1e6,
    )


@click.command()
@click.option("--policy", "policies", multiple=True, default=POLICIES, show_default=True)
@click.option("--publishers", multiple=True, default=PUBLISHERS, show_default=True)
@size_option
@window_option
@click.option("--messages", default=500_000, show_default=True, help="With many in flight.")
@messages_alone_option
@json_option
@directory_option
def main(
    policies: tuple[str, ...],
    publishers: tuple[int, ...],
    size: int,
    window: int,
    messages: int,
    messages_alone: int,
    as_json: bool,
    directory: Path,
) -> None:
    """Measure publish rate and time to CONFIRM under each fsync policy."""
    rows = []
    for policy in policies:
        for count in publishers:
            for load in (Load(count, 1, size, messages_alone), Load(count, window, size, messages)):
                rows.append(measure(directory, policy, load))
    show({"confirm": rows}, as_json=as_json)


if __name__ == "__main__":
    main()
