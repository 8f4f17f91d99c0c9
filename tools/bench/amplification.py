"""`python -m tools.bench.amplification`: bytes that the broker writes for a byte that is published.

Everything is consumed and settled while it is published, so settlements, checkpoints and the notes
of what is synced are in the figures. `written` is what the broker gave to files; `disk` is what the
disk below wrote meanwhile, a page that is synced and grows again once more, and the file system's
journal: for that figure nobody else should use the disk.
"""

from __future__ import annotations

from pathlib import Path

import attrs
import click

from tools.bench.blipmq.daemon_server import Daemon
from tools.bench.blipmq.push import PushProtocol
from tools.bench.daemon import API_KEY, running_daemon
from tools.bench.directory import device_bytes, log_directory, size_bytes
from tools.bench.load.kinds import WireClients
from tools.bench.load.runner import run
from tools.bench.load.work import Guarantee, Work
from tools.bench.options import directory_option, json_option, messages_alone_option, window_option
from tools.bench.table import show

POLICIES = ("always", "interval_ms:20", "none")
SIZES = (16, 256, 4096)
MIB = 1 << 20


@attrs.frozen
class Load:
    """What is published by one connection, `in_flight` of it unconfirmed."""

    policy: str
    size: int
    in_flight: int
    messages: int


@attrs.frozen
class Measured:
    """`written` and `disk`: bytes for each byte of a body. `disk` is None where there is none."""

    policy: str
    size: int
    in_flight: int
    consumed: int
    written: float
    disk: float | None
    log_mib: float


def measure(directory: Path, load: Load) -> Measured:
    """On a broker and a log of their own."""
    work = Work(
        guarantee=Guarantee.AT_LEAST_ONCE,
        messages=load.messages,
        sizes=(load.size,),
        window=load.in_flight,
    )
    with log_directory(directory) as log, running_daemon(str(log), load.policy) as daemon:
        written, before = daemon.written_bytes(), device_bytes(directory)
        running = Daemon(daemon.address, (daemon.process.pid,))
        result = run(running, WireClients(PushProtocol(API_KEY)), work)
        written, after = daemon.written_bytes() - written, device_bytes(directory)
        log_mib = size_bytes(log) / MIB
    body_bytes = result.published * load.size
    return Measured(
        load.policy,
        load.size,
        load.in_flight,
        result.received,
        written / body_bytes,
        None if before is None or after is None else (after - before) / body_bytes,
        log_mib,
    )


@click.command()
@click.option("--policy", "policies", multiple=True, default=POLICIES, show_default=True)
@click.option("--size", "sizes", multiple=True, default=SIZES, show_default=True)
@window_option
@click.option("--messages", default=200_000, show_default=True, help="With many in flight.")
@messages_alone_option
@json_option
@directory_option
def main(
    policies: tuple[str, ...],
    sizes: tuple[int, ...],
    window: int,
    messages: int,
    messages_alone: int,
    as_json: bool,
    directory: Path,
) -> None:
    """Measure bytes written over bytes published, with one message in flight and with many."""
    rows = []
    for policy in policies:
        for size in sizes:
            for load in (
                Load(policy, size, 1, messages_alone),
                Load(policy, size, window, messages),
            ):
                rows.append(measure(directory, load))
    show({"amplification": rows}, as_json=as_json)


if __name__ == "__main__":
    main()
