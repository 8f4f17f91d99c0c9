"""`blipmq wal` on the log of a daemon that is running."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import attrs
import trio

import blipmq
from blipmq.broker.restore import Restoration
from blipmq.wal.backup import backup
from blipmq.wal.salvage import LiveDisk
from blipmq.wal.scan import LogScan
from blipmq.wal.segment import sequences
from blipmq.wal.transfer import export
from tests.daemon.process import Process, Processes
from tests.peer import KEY, PATIENCE_SECONDS

SETTINGS = {
    "BLIPMQ_WAL_SEGMENT_BYTES": "8192",
    "BLIPMQ_RETENTION_KEPT_MESSAGES": "1000000",
    "BLIPMQ_FSYNC_POLICY": "none",
}
WORK_PER_ORDER = 200


@attrs.define(eq=False)
class Load:
    """Publishes as fast as it can: `work`, which is accepted at once, and `orders`, now and then.

    `orders` says how many of these the daemon has confirmed.
    """

    orders: int = 0
    _more: trio.Event = attrs.Factory(trio.Event)

    async def publish(self, client: blipmq.Client) -> None:
        while True:
            async with trio.open_nursery() as nursery:
                for _ in range(WORK_PER_ORDER):
                    nursery.start_soon(partial(client.publish, "work", b"x" * 512))
            await client.publish("orders", b"%d" % self.orders)
            self.orders += 1
            self._more.set()
            self._more = trio.Event()

    async def accept(self, client: blipmq.Client) -> None:
        async with client.subscribe("work") as messages:
            async for message in messages:
                await message.accept()

    async def reach(self, orders: int) -> None:
        with trio.fail_after(PATIENCE_SECONDS):
            while self.orders < orders:
                await self._more.wait()


async def client_of(daemon: Process) -> str:
    host, port = await daemon.address()
    return f"blipmq://{host}:{port}"


@asynccontextmanager
async def under_load(daemon: Process) -> AsyncIterator[Load]:
    load = Load()
    async with (
        blipmq.open_client(await client_of(daemon), api_key=KEY) as publisher,
        blipmq.open_client(await client_of(daemon), api_key=KEY) as consumer,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(load.publish, publisher)
        nursery.start_soon(load.accept, consumer)
        yield load
        nursery.cancel_scope.cancel()


def orders_in(path: Path) -> list[bytes]:
    scan = LogScan.of(LiveDisk(path))
    bodies = [message.body for message in export(scan, Restoration(), topic=b"orders")]
    assert not scan.damages
    return bodies


def removed_segments(wal: Path) -> bool:
    """Whether the daemon has dropped some segments, so that a backup may have met that."""
    found = sequences([file.name for file in wal.iterdir()])
    return len(found) < found[-1] - 10


async def test_a_backup_under_load_has_all_that_was_confirmed_before(
    processes: Processes, tmp_path: Path
) -> None:
    daemon = await processes.start(**SETTINGS)
    async with under_load(daemon) as load:
        number = 0
        while number < 6 or not removed_segments(tmp_path / "wal"):
            number += 1
            await load.reach(load.orders + 3)
            confirmed = load.orders
            copy = tmp_path / f"copy-{number}"
            await trio.to_thread.run_sync(partial(backup, tmp_path / "wal", copy))
            orders = await trio.to_thread.run_sync(orders_in, copy)
            assert len(orders) >= confirmed
            assert orders == [b"%d" % i for i in range(len(orders))]


async def test_a_daemon_that_starts_on_a_backup_delivers_what_was_confirmed(
    processes: Processes, tmp_path: Path
) -> None:
    daemon = await processes.start(**SETTINGS)
    async with under_load(daemon) as load:
        await load.reach(5)
        confirmed = load.orders
        await trio.to_thread.run_sync(partial(backup, tmp_path / "wal", tmp_path / "copy"))
    await daemon.kill()
    restored = await processes.start(**SETTINGS, BLIPMQ_WAL_PATH="copy")
    with trio.fail_after(PATIENCE_SECONDS):
        async with (
            blipmq.open_client(await client_of(restored), api_key=KEY) as client,
            client.subscribe("orders") as messages,
        ):
            for number in range(confirmed):
                message = await anext(messages)
                assert message.body == b"%d" % number
                await message.accept()


async def test_the_log_of_a_running_daemon_can_be_looked_into(
    processes: Processes, tmp_path: Path
) -> None:
    daemon = await processes.start(**SETTINGS)
    async with under_load(daemon) as load:
        for _ in range(5):
            await load.reach(load.orders + 1)
            confirmed = load.orders
            orders = await trio.to_thread.run_sync(orders_in, tmp_path / "wal")
            assert len(orders) >= confirmed
