"""Fill the disk under a daemon, and see that it goes on, and takes messages when there is room.

While it is full: publishes at QoS 1 get NACK 500, and the connection stays; QoS 0, deliveries and
acceptances go on. Twice: once there is room again while the daemon runs, and once it is killed
while the disk is full. Nothing that was confirmed is lost then, nothing that was accepted comes
back, and nothing that was refused is there.
"""

from __future__ import annotations

import tempfile
from itertools import count
from pathlib import Path
from typing import Final

import attrs
import click
import trio

from tools.chaos.connection import Connection
from tools.chaos.daemon import Daemon, DaemonEnded
from tools.chaos.small_disk import SmallDisk, small_disk
from tools.chaos.stopped_log import everything
from tools.chaos.verdict import Report, conclude

TOPIC: Final = b"demo"
FAST_TOPIC: Final = b"fast"
EARLY: Final = 100
"""Messages that are there before the disk is full."""
SEGMENT_BYTES: Final = 65_536
GRACE_SECONDS: Final = 0.5
"""Acceptances of the last 100 ms before a kill may be forgotten; this is well beyond."""
NO_SPACE: Final = ("No space left on device", "File too large")
SETTINGS: Final[dict[str, object]] = {
    "retry_backoff_ms": 600_000,
    "max_retries": 100,
    "limits__queue_capacity": 100_000,
    "wal__segment_bytes": SEGMENT_BYTES,
}


@attrs.define
class Account:
    """What the broker has been told and has said; bodies in their order."""

    confirmed: list[bytes] = attrs.Factory(list)
    refused: list[bytes] = attrs.Factory(list)
    accepted: set[bytes] = attrs.Factory(set)
    forgotten: set[bytes] = attrs.Factory(set)
    """Accepted, but not in the log; these may come again."""
    numbers: count[int] = attrs.Factory(count)

    @property
    def owed(self) -> list[bytes]:
        done = self.accepted | self.forgotten
        return [body for body in self.confirmed if body not in done]

    async def publish(self, client: Connection) -> str:
        """One message; what it was refused with, or nothing."""
        body = b"message %d " % next(self.numbers) + b"x" * 1_000
        answer = await client.refusal(TOPIC, body)
        (self.refused if answer else self.confirmed).append(body)
        return answer

    async def accept(self, client: Connection, subscription: int, share: float) -> set[bytes]:
        """Take all that waits and accept the first of it, this share; which ones."""
        deliveries = []
        while more := await client.poll(subscription, 100):
            deliveries += more
        chosen = deliveries[: int(len(deliveries) * share)]
        await client.accept(subscription, [delivery.tag for delivery in chosen])
        bodies = {delivery.body for delivery in chosen}
        self.accepted |= bodies
        return bodies


async def drill(directory: Path) -> list[str]:
    """What was not as it must be."""
    report, account = Report(), Account()
    with small_disk(directory) as disk:
        report.did(disk.how)
        async with trio.open_nursery() as nursery:
            daemon = await Daemon.launch(nursery, disk.directory, **SETTINGS)
            await _room_again(report, disk, daemon, account)
            await daemon.kill()
        report.did("the daemon is killed and started")
        async with trio.open_nursery() as nursery:
            daemon = await Daemon.launch(nursery, disk.directory, **SETTINGS)
            await _has_what_it_owes(report, daemon, account)
            await _killed_when_full(report, disk, daemon, account)
        if disk.outlives_restarts:
            await _start_when_full(report, disk)
        disk.make_room(daemon)
        report.did("there is room again; the daemon is started")
        async with trio.open_nursery() as nursery:
            daemon = await Daemon.launch(nursery, disk.directory, **SETTINGS)
            await _has_what_it_owes(report, daemon, account)
            report.check_equal(await daemon.terminate(), 0, "it shuts down with status 0")
    return report.violations


async def _room_again(report: Report, disk: SmallDisk, daemon: Daemon, account: Account) -> None:
    async with await Connection.open(await daemon.ready()) as client:
        subscription = await client.subscribe(TOPIC)
        for _ in range(EARLY):
            await account.publish(client)
        report.did(f"{EARLY} messages published, then the disk is filled")
        disk.fill(daemon)
        await _is_full(report, daemon, client, account)
        accepted = await account.accept(client, subscription, 0.5)
        report.check(len(accepted) > 0, f"all were delivered, {len(accepted)} accepted")
        report.did("there is room again")
        disk.make_room(daemon)
        answers = [await account.publish(client) for _ in range(EARLY)]
        report.check_equal(answers, [""] * EARLY, f"{EARLY} publishes are confirmed")
        found = await everything(client, subscription)
        report.check(found == account.confirmed[-EARLY:], "and delivered, in order")


async def _is_full(report: Report, daemon: Daemon, client: Connection, account: Account) -> None:
    """Publish until the last gap is filled. What needs no room must go on."""
    answer = ""
    while not answer:
        answer = await account.publish(client)
    report.check(
        answer.startswith("NACK 500 durable publish failed: ") and answer.endswith(NO_SPACE),
        f"a publish is answered: {answer}",
    )
    fast = await client.subscribe(FAST_TOPIC, qos=0)
    await client.publish_each(FAST_TOPIC, [(0, b"fast")])
    found = [delivery.body for delivery in await client.poll(fast, 1)]
    report.check_equal(found, [b"fast"], "a message at QoS 0 is delivered")
    status, text = await daemon.get("/readyz")
    report.check_equal(status, 200, f"/readyz answers {status} {text.strip()}")
    await daemon.says("the log cannot grow")
    report.check(True, "its log says `the log cannot grow`")


async def _killed_when_full(
    report: Report, disk: SmallDisk, daemon: Daemon, account: Account
) -> None:
    await daemon.metric_is("blipmq_subscriptions_parked", lambda parked: parked == 1)
    async with await Connection.open(await daemon.ready()) as client:
        subscription = await client.subscribe(TOPIC)
        report.did("the disk is filled")
        disk.fill(daemon)
        await _is_full(report, daemon, client, account)
        before = await daemon.metric("blipmq_wal_appends_total")
        for _ in range(EARLY):
            await account.publish(client)
        accepted = await account.accept(client, subscription, 0.5)
        await trio.sleep(GRACE_SECONDS)
        logged = await daemon.metric("blipmq_wal_appends_total") > before
        if disk.outlives_restarts:
            what = f"{len(accepted)} more messages are accepted, which is logged on the full disk"
            report.check(logged, what)
        report.did("the daemon is killed")
        await daemon.kill()
    if not logged:
        report.did("what was accepted may come again, for it could not be logged")
        account.accepted -= accepted
        account.forgotten |= accepted


async def _start_when_full(report: Report, disk: SmallDisk) -> None:
    report.did("the daemon is started while the disk is full")
    async with trio.open_nursery() as nursery:
        daemon = await Daemon.launch(nursery, disk.directory, **SETTINGS)
        try:
            await daemon.ready()
        except DaemonEnded:
            status = await daemon.wait()
            holds = status == 1 and daemon.last_words.endswith(NO_SPACE)
            report.check(holds, f"it does not start, status {status}: {daemon.last_words}")
        else:
            report.check(True, "it starts")
        nursery.cancel_scope.cancel()


async def _has_what_it_owes(report: Report, daemon: Daemon, account: Account) -> None:
    async with await Connection.open(await daemon.ready()) as client:
        subscription = await client.subscribe(TOPIC)
        found = await everything(client, subscription)
        known = [body for body in found if body not in account.forgotten]
        report.check(known == account.owed, f"all {len(account.owed)} messages are there, in order")
        again = len(account.accepted.intersection(found))
        report.check_equal(again, 0, "none that was accepted comes back")
        unwanted = len(set(account.refused).intersection(found))
        report.check_equal(unwanted, 0, "none that was refused is there")
        report.check_equal(await account.publish(client), "", "it takes messages")


@click.command()
def main() -> None:
    """Fill the disk under a daemon, and see that it goes on."""
    print("disk-full: there is no room for the log")
    with tempfile.TemporaryDirectory(prefix="blipmq-disk-full-") as directory:
        conclude("disk-full", drill, Path(directory))


if __name__ == "__main__":
    main()
