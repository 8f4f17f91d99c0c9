"""Set the time of day wrong under a daemon, and see that nothing happens for it.

Nothing that the daemon does while it runs goes by the time of day: retries, time to live and the
time that parked subscriptions have are measured by a clock that does not jump. Between two runs
there is only the time of day. A message may then be found younger than it is, but not older than by
how far the clock was wrong; and the order stays.
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
from tools.chaos.stopped_log import everything
from tools.chaos.tampered import Tampering, tampered
from tools.chaos.verdict import Report, conclude

TOPIC: Final = b"demo"
DAY_MS: Final = 24 * 60 * 60 * 1000
JUMPS_MS: Final = (10 * DAY_MS, -10 * DAY_MS, 0, -3650 * DAY_MS, 3650 * DAY_MS, 0)
SETTLING_SECONDS: Final = 0.2
BACKOFF_MS: Final = 300
SETTINGS: Final[dict[str, object]] = {
    "retention__message_ttl_ms": DAY_MS,
    "retention__session_expiry_ms": DAY_MS,
    "max_retries": 50,
}


@attrs.define(eq=False)
class WrongClock:
    """A daemon whose time of day can be set."""

    directory: Path
    log: str = "log"

    @property
    def _file(self) -> Path:
        return self.directory / "tampering"

    def set(self, report: Report, ahead_ms: int) -> None:
        """Now or at the next start, it is so far ahead of the right time."""
        where = "ahead" if ahead_ms > 0 else "behind"
        days = abs(ahead_ms) // DAY_MS
        report.did(f"the clock is {days} days {where}" if days else "the clock is right")
        Tampering(clock_ms=ahead_ms).write(self._file)

    async def launch(self, nursery: trio.Nursery, **settings: object) -> Daemon:
        return await Daemon.launch(
            nursery,
            self.directory / self.log,
            tampered(self._file),
            **(SETTINGS | settings),
        )


async def drill(directory: Path) -> list[str]:
    """What was not as it must be."""
    report = Report()
    report.did("the daemon's clock is replaced by one that can be set")
    bodies: list[bytes] = []
    clock = WrongClock(directory)
    await _while_it_runs(report, clock, bodies)
    await _between_runs(report, clock, bodies)
    await _time_to_live(report, WrongClock(directory, "another-log"))
    return report.violations


async def _while_it_runs(report: Report, clock: WrongClock, bodies: list[bytes]) -> None:
    async with trio.open_nursery() as nursery:
        daemon = await clock.launch(nursery, retry_backoff_ms=600_000)
        address = await daemon.ready()
        async with await Connection.open(address) as client:
            subscription = await client.subscribe(TOPIC)
            await _publish(client, bodies)
            held = await everything(client, subscription)
            for jump in JUMPS_MS:
                clock.set(report, jump)
                await _publish(client, bodies)
                held += await everything(client, subscription)
                await trio.sleep(SETTLING_SECONDS)
                held += await everything(client, subscription)
            report.check(held == bodies, "each message was delivered once, in order")
        expired = await daemon.metric("blipmq_messages_expired_total")
        report.check_equal(expired, 0, "no message has expired")
        await daemon.metric_is("blipmq_subscriptions_parked", lambda parked: parked == 1)
        async with await Connection.open(address) as client:
            clock.set(report, JUMPS_MS[0])
            again = await client.subscribe(TOPIC)
            report.check_equal(again, subscription, "a parked subscription is taken over")
            found = await everything(client, again)
            report.check(found == bodies, "with all of its messages, in order")
        await daemon.kill()
    clock.set(report, 0)
    async with trio.open_nursery() as nursery:
        daemon = await clock.launch(nursery, retry_backoff_ms=BACKOFF_MS)
        async with await Connection.open(await daemon.ready()) as client:
            subscription = await client.subscribe(TOPIC)
            await everything(client, subscription)
            clock.set(report, -JUMPS_MS[0])
            await _redelivered(client, subscription, set(bodies))
            report.check(True, "what is not accepted is delivered again after its pause")
        await daemon.kill()


async def _publish(client: Connection, bodies: list[bytes]) -> None:
    body = b"message %d" % len(bodies)
    await client.publish(TOPIC, [body])
    bodies.append(body)


async def _redelivered(client: Connection, subscription: int, missing: set[bytes]) -> None:
    """Raises trio.TooSlowError."""
    with trio.fail_after(30):
        while missing:
            missing -= set(await everything(client, subscription))
            await trio.sleep(BACKOFF_MS / 1000 / 4)


async def _between_runs(report: Report, clock: WrongClock, bodies: list[bytes]) -> None:
    """Messages are not older than the time to live, by the clock that is right or behind."""
    for jump in (0, -10 * DAY_MS, -3650 * DAY_MS, 0):
        clock.set(report, jump)
        async with trio.open_nursery() as nursery:
            daemon = await clock.launch(nursery, retry_backoff_ms=600_000)
            async with await Connection.open(await daemon.ready()) as client:
                subscription = await client.subscribe(TOPIC)
                found = await everything(client, subscription)
                report.check(found == bodies, f"after a restart all {len(bodies)} are there")
                await _publish(client, bodies)
            await daemon.kill()


async def _time_to_live(report: Report, clock: WrongClock) -> None:
    """A start with the clock days ahead is like a start after days: what is too old expires."""
    bodies: list[bytes] = []
    clock.set(report, 0)
    async with trio.open_nursery() as nursery:
        daemon = await clock.launch(nursery)
        async with await Connection.open(await daemon.ready()) as client:
            await client.subscribe(TOPIC)
            for _ in range(10):
                await _publish(client, bodies)
        await daemon.kill()
    clock.set(report, 10 * DAY_MS)
    async with trio.open_nursery() as nursery:
        daemon = await clock.launch(nursery)
        async with await Connection.open(await daemon.ready()) as client:
            subscription = await client.subscribe(TOPIC)
            found = await everything(client, subscription)
            report.check_equal(found, [], "after a restart, messages with a day to live are gone")
            expired = await daemon.metric("blipmq_messages_expired_total")
            report.check_equal(expired, len(bodies), "each of them is counted as expired")
            await client.publish(TOPIC, [b"new"])
            clock.set(report, 0)
            found = await everything(client, subscription)
            report.check_equal(found, [b"new"], "a new message is delivered")
        await daemon.kill()


@click.command()
def main() -> None:
    """Set the time of day wrong under a daemon, and see that nothing happens for it."""
    print("clock-jump: the time of day jumps")
    with tempfile.TemporaryDirectory(prefix="blipmq-clock-") as directory:
        conclude("clock-jump", drill, Path(directory))


if __name__ == "__main__":
    main()
