"""Make every fsync slow, and see that only those wait for the disk who have to.

While a publish at QoS 1 waits for its commit, others ping, publish at QoS 0, take and accept.
Publishes that wait together share one fsync, and all of them are confirmed in the end.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Final

import attrs
import click
import trio

from tools.chaos.connection import Connection
from tools.chaos.daemon import Daemon
from tools.chaos.disk_fault import SYNC_IS_SLOW, FaultyDisk
from tools.chaos.stopped_log import everything
from tools.chaos.verdict import Report, conclude

TOPIC: Final = b"demo"
FAST_TOPIC: Final = b"fast"
READY: Final = 50
"""Messages that wait for their consumer when the disk becomes slow."""
PUBLISHERS: Final = 20
EACH: Final = 3


@attrs.define
class Progress:
    """Who has got how far."""

    confirmed: int = 0
    rounds: int = 0


async def drill(directory: Path, disk: FaultyDisk | None = None) -> list[str]:
    """What was not as it must be."""
    report = Report()
    disk = disk or await FaultyDisk.find(directory)
    report.did(disk.how.replace("fail", "are slow"))
    async with trio.open_nursery() as nursery:
        daemon = await disk.launch(nursery, directory / "log", retry_backoff_ms=600_000)
        address = await daemon.ready()
        async with await Connection.open(address) as consumer:
            subscription = await consumer.subscribe(TOPIC)
            await consumer.publish(TOPIC, [b"ready %d" % i for i in range(READY)])
            syncs = await daemon.metric("blipmq_wal_fsync_seconds_count")
            async with disk.fault(daemon, SYNC_IS_SLOW):
                report.did(f"{SYNC_IS_SLOW.name}; {PUBLISHERS} publishers, {EACH} messages each")
                progress = Progress()
                async with trio.open_nursery() as load:
                    load.start_soon(_served, load, daemon, consumer, subscription, progress)
                    await _publishers(address, progress)
                    load.cancel_scope.cancel()
            syncs = await daemon.metric("blipmq_wal_fsync_seconds_count") - syncs
            found = len(await everything(consumer, subscription))
        total = PUBLISHERS * EACH
        report.check_equal(progress.confirmed, total, f"all {total} publishes were confirmed")
        report.check(syncs < total, f"they shared {syncs:.0f} fsyncs")
        report.check(
            progress.rounds > syncs,
            f"meanwhile others were served {progress.rounds} times: pings, QoS 0, deliveries",
        )
        report.check_equal(found, total, "all of them were delivered")
        report.check_equal(await daemon.terminate(), 0, "it shuts down with status 0")
    return report.violations


async def _publishers(address: tuple[str, int], progress: Progress) -> None:
    async def publish(number: int) -> None:
        async with await Connection.open(address) as connection:
            for i in range(EACH):
                await connection.publish(TOPIC, [b"slow %d %d" % (number, i)])
                progress.confirmed += 1

    async with trio.open_nursery() as nursery:
        for number in range(PUBLISHERS):
            nursery.start_soon(publish, number)


async def _served(
    load: trio.Nursery,
    daemon: Daemon,
    consumer: Connection,
    subscription: int,
    progress: Progress,
) -> None:
    """Use the broker in every way that needs no commit, until cancelled."""
    async with await Connection.open(await daemon.ready()) as other:
        fast = await other.subscribe(FAST_TOPIC, qos=0)
        for number in range(1_000_000):
            body = b"%d" % number
            await other.publish_each(FAST_TOPIC, [(0, body)])
            (delivery,) = await other.poll(fast, 1)
            assert delivery.body == body
            if number < READY:
                (delivery,) = await consumer.poll(subscription, 1)
                await consumer.accept(subscription, [delivery.tag])
            progress.rounds += 1
            await trio.sleep(0.002)


@click.command()
def main() -> None:
    """Make every fsync slow, and see that only those wait for the disk who have to."""
    print("slow-disk: the disk is slow")
    with tempfile.TemporaryDirectory(prefix="blipmq-slow-disk-") as directory:
        conclude("slow-disk", drill, Path(directory))


if __name__ == "__main__":
    main()
