"""What a daemon must do when its disk fails for good: refuse, say so, end, and lose nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import trio

from tools.chaos.connection import Connection, Lost
from tools.chaos.daemon import Daemon
from tools.chaos.disk_fault import DiskFault, FaultyDisk
from tools.chaos.stopped_log import everything
from tools.chaos.verdict import Report

TOPIC: Final = b"demo"
CONFIRMED: Final = 60
ACCEPTED: Final = 20
REFUSED: Final = b"refused"


async def fail_and_restart(
    report: Report, disk: FaultyDisk, log: Path, fault: DiskFault, **settings: object
) -> list[str]:
    """Publish, have the disk fail, start again; all messages that are there then."""
    async with trio.open_nursery() as nursery:
        daemon = await disk.launch(nursery, log, retry_backoff_ms=600_000, **settings)
        async with await Connection.open(await daemon.ready()) as client:
            await _publish_and_accept(client, daemon)
            report.did(f"{CONFIRMED} messages published, {ACCEPTED} of them accepted")
            async with disk.fault(daemon, fault):
                report.did(fault.name)
                await _is_refused(report, client)
                await client.aclose()
                status = await daemon.wait()
        report.check_equal(status, 1, "the daemon has ended with status 1")
        report.check(daemon.logged("log failed"), "its log says `log failed`", daemon.text)
        words = daemon.last_words
        report.check("Input/output error" in words, f"its last words: {words}")
    report.did("the disk is well again; the daemon is started")
    return await _start_again(report, log)


async def _publish_and_accept(client: Connection, daemon: Daemon) -> None:
    subscription = await client.subscribe(TOPIC)
    await client.publish(TOPIC, [b"%d" % i for i in range(CONFIRMED)])
    deliveries = await client.poll(subscription, ACCEPTED)
    appends = await daemon.metric("blipmq_wal_appends_total")
    await client.accept(subscription, [delivery.tag for delivery in deliveries])
    await daemon.metric_is("blipmq_wal_appends_total", lambda now: now > appends)


async def _is_refused(report: Report, client: Connection) -> None:
    try:
        answer = await client.refusal(TOPIC, REFUSED)
    except Lost as error:
        answer = f"the connection was lost: {error}"
    expected = "NACK 500 durable publish failed: "
    report.check(answer.startswith(expected), f"a publish was answered: {answer}")


async def _start_again(report: Report, log: Path) -> list[str]:
    async with trio.open_nursery() as nursery:
        daemon = await Daemon.launch(nursery, log, retry_backoff_ms=600_000)
        async with await Connection.open(await daemon.ready()) as client:
            subscription = await client.subscribe(TOPIC)
            found = [body.decode() for body in await everything(client, subscription)]
            expected = [str(i) for i in range(ACCEPTED, CONFIRMED)]
            told = [body for body in found if body != REFUSED.decode()]
            report.check_equal(told, expected, "what was confirmed is there, but what was accepted")
            await client.publish(TOPIC, [b"one more"])
            more = await everything(client, subscription)
            report.check_equal(more, [b"one more"], "it takes messages again")
        report.check_equal(await daemon.terminate(), 0, "it shuts down with status 0")
    return found
