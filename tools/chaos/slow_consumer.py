"""Have consumers that take nothing, or read nothing, and see that nobody else suffers for it.

One subscriber keeps up. One takes nothing until the end: it then has as many messages as a
subscription may hold, the newest ones, and the rest was counted as dropped. One asks for messages
and never reads an answer: the broker stops reading it. Memory stays below its limit all the while.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Final

import click
import trio

from blipmq.protocol import encoder
from tools.chaos.connection import Connection, Lost
from tools.chaos.daemon import Daemon
from tools.chaos.stopped_log import everything
from tools.chaos.verdict import Report, conclude

TOPIC: Final = b"demo"
CAPACITY: Final = 1_000
MEMORY_BYTES: Final = 16 << 20
PROCESS_BYTES: Final = 160 << 20
"""What the process may take besides: Python, and the buffers of sockets."""
BURST: Final = 100
BODY_BYTES: Final = 4_000
DEAF_POLLS: Final = 1_000


async def drill(directory: Path, bursts: int) -> list[str]:
    """So many bursts of messages are published; what was not as it must be."""
    report = Report()
    async with trio.open_nursery() as nursery:
        daemon = await Daemon.launch(
            nursery,
            directory / "log",
            retry_backoff_ms=600_000,
            limits__queue_capacity=CAPACITY,
            limits__max_memory_bytes=MEMORY_BYTES,
            wal__segment_bytes=1 << 20,
        )
        address = await daemon.ready()
        async with (
            await Connection.open(address) as keen,
            await Connection.open(address) as idle,
            await Connection.open(address) as deaf,
        ):
            subscriptions = [await c.subscribe(TOPIC) for c in (keen, idle, deaf)]
            report.did(f"{bursts * BURST} messages; one keeps up, one takes none, one reads none")
            async with trio.open_nursery() as hogging:
                hogging.start_soon(_never_read, deaf, subscriptions[2])
                published = await _publish_and_keep_up(
                    report, daemon, keen, subscriptions[0], bursts
                )
                hogging.cancel_scope.cancel()
            dropped = await daemon.metric("blipmq_messages_dropped_total", reason="capacity")
            found = await everything(idle, subscriptions[1])
            report.check(
                found == published[-CAPACITY:],
                f"who took none has the newest {CAPACITY}, in order",
                len(found),
            )
            least = len(published) - CAPACITY
            report.check(dropped >= least, f"{dropped:.0f} are counted as dropped", least)
        report.check_equal(await daemon.terminate(), 0, "it shuts down with status 0")
    return report.violations


async def _never_read(connection: Connection, subscription: int) -> None:
    """Ask again and again, until nothing more can be sent, and then wait to be cancelled."""
    request = (encoder.poll(1, subscription) + encoder.ping(1)) * DEAF_POLLS
    try:
        while True:
            await connection.send(request)
    except Lost:
        await trio.sleep_forever()


async def _publish_and_keep_up(
    report: Report, daemon: Daemon, keen: Connection, subscription: int, bursts: int
) -> list[bytes]:
    """All that was published; the subscriber takes and accepts each burst."""
    published: list[bytes] = []
    taken: list[bytes] = []
    memory = process = 0
    async with await Connection.open(await daemon.ready()) as publisher:
        for number in range(bursts):
            burst = [b"%d/%d " % (number, i) + bytes(BODY_BYTES) for i in range(BURST)]
            await publisher.publish(TOPIC, burst)
            published += burst
            deliveries = await keen.poll(subscription, BURST)
            taken += [delivery.body for delivery in deliveries]
            await keen.accept(subscription, [delivery.tag for delivery in deliveries])
            memory = max(memory, int(await daemon.metric("blipmq_memory_bytes")))
            process = max(process, int(await daemon.metric("process_resident_memory_bytes")))
    report.check(taken == published, f"who keeps up has taken all {len(published)}, in order")
    report.check(memory <= MEMORY_BYTES, f"messages took {memory >> 20} MiB at most", memory)
    most = MEMORY_BYTES + PROCESS_BYTES
    report.check(process <= most, f"the process took {process >> 20} MiB at most", process)
    return published


@click.command()
@click.option("--bursts", default=200, show_default=True, help=f"Of {BURST} messages each.")
def main(bursts: int) -> None:
    """Have consumers that take or read nothing, and see that nobody else suffers."""
    print("slow-consumer: subscribers that do not keep up")
    with tempfile.TemporaryDirectory(prefix="blipmq-slow-consumer-") as directory:
        conclude("slow-consumer", drill, Path(directory), bursts)


if __name__ == "__main__":
    main()
