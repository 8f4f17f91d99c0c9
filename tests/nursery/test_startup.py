"""From the configuration to the first client: what a daemon finds, and why it may not start."""

from __future__ import annotations

from itertools import count
from unittest import mock

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from blipmq.broker.limits import Retention
from blipmq.errors import ConfigError, CorruptLog, LogError
from blipmq.wal.segment import segment_name
from tests.nursery.daemon import Daemon, InlineRunner, new_disk, serving, settings
from tests.nursery.network import Network
from tests.nursery.timed_disk import TimedDisk
from tests.peer import bodies


async def killed(*payloads: bytes) -> TimedDisk:
    """What a daemon leaves behind that is killed when it has committed these one by one."""
    async with serving() as daemon:
        peer = await daemon.client()
        await peer.subscribe("demo")
        for payload in payloads:
            await peer.publish("demo", payload)
        return daemon.disk.after_kill()


def last_segment(disk: TimedDisk) -> bytearray:
    return disk.files[disk.names()[-1]]


async def failure(daemon: Daemon) -> BaseException:
    """What a daemon that does not start raises."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(daemon.serve)
        (error,) = await daemon.failure()
    return error


async def test_it_is_unready_until_its_log_is_read(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    daemon = Daemon(settings(), new_disk())
    daemon.runner.hold()
    with daemon.replaced():
        nursery.start_soon(daemon.serve)
        await wait_all_tasks_blocked()
    assert daemon.metrics.readiness() == "recovering"
    with pytest.raises(ConnectionRefusedError):
        daemon.connect()
    daemon.runner.release()
    await wait_all_tasks_blocked()
    assert daemon.metrics.readiness() is None
    daemon.scope.cancel()
    await daemon.end()


async def test_messages_are_not_older_for_a_start_that_takes_long(
    autojump_clock: MockClock,
) -> None:
    disk = await killed(b"hello")
    retention = Retention(message_ttl_ms=8_000)
    async with serving(disk=disk, runner=InlineRunner(seconds=5), retention=retention) as daemon:
        peer = await daemon.client()
        assert bodies(await peer.poll(await peer.subscribe("demo"))) == [b"hello"]


async def test_a_start_that_takes_long_is_logged_every_second(autojump_clock: MockClock) -> None:
    disk = await killed(*[b"%d" % number for number in range(10)])
    async with serving(disk=disk, monotonic=count(0, 0.25).__next__) as daemon:
        told = [line["percent"] for line in daemon.lines if line["event"] == "recovering"]
    assert len(told) == 2
    assert 0 < told[0] < told[1] < 100


async def test_a_signal_while_the_log_is_read_ends_the_start_and_keeps_everything(
    autojump_clock: MockClock,
) -> None:
    disk = await killed(b"a", b"b")
    daemon = Daemon(settings(), disk)
    daemon.runner.hold()
    async with trio.open_nursery() as nursery:
        with daemon.replaced():
            nursery.start_soon(daemon.serve)
            await wait_all_tasks_blocked()
        daemon.signal()
        await wait_all_tasks_blocked()
        assert daemon.metrics.readiness() == "draining"
        daemon.runner.release()
        assert await daemon.failure() == []
    async with serving(disk=disk.after_kill()) as again:
        peer = await again.client()
        assert bodies(await peer.poll(await peer.subscribe("demo"), 3)) == [b"a", b"b"]


async def test_a_start_that_is_quick_tells_only_what_came_back(autojump_clock: MockClock) -> None:
    async with serving(disk=await killed(b"a", b"b")) as daemon:
        assert "recovering" not in daemon.events()
        assert "recovered" in daemon.events()


async def test_after_a_crash_it_has_what_was_committed(autojump_clock: MockClock) -> None:
    async with serving(disk=await killed(b"a", b"b")) as daemon:
        peer = await daemon.client()
        assert bodies(await peer.poll(await peer.subscribe("demo"), 3)) == [b"a", b"b"]
        assert daemon.stats.wal_replayed_messages == 2
        assert daemon.stats.wal_torn_tails == 0
        assert daemon.events()[:2] == ["recovered", "ready"]


async def test_numbers_never_come_back_after_a_crash(autojump_clock: MockClock) -> None:
    disk = new_disk()
    tags: list[int] = []
    for _ in range(3):
        async with serving(disk=disk) as daemon:
            peer = await daemon.client()
            subscription = await peer.subscribe("demo")
            await peer.publish("demo", b"a", b"b")
            deliveries = await peer.poll(subscription, 2)
            tags += [delivery.correlation_id for delivery in deliveries]
            await peer.settle(subscription, *deliveries)
            await trio.sleep(1)
            disk = daemon.disk.after_kill()
    assert len(set(tags)) == 6
    assert tags == sorted(tags)


async def test_a_torn_tail_is_cut_off_logged_and_counted(autojump_clock: MockClock) -> None:
    disk = await killed(b"a", b"b")
    del last_segment(disk)[-3:]
    async with serving(disk=disk) as daemon:
        peer = await daemon.client()
        assert bodies(await peer.poll(await peer.subscribe("demo"), 3)) == [b"a"]
        assert daemon.stats.wal_torn_tails == 1
        assert "torn tail cut off" in daemon.events()


async def test_it_does_not_start_on_a_corrupt_log_and_says_where(
    autojump_clock: MockClock,
) -> None:
    disk = await killed(b"a", b"b")
    last_segment(disk)[60] ^= 1
    error = await failure(Daemon(settings(), disk))
    assert isinstance(error, CorruptLog)
    assert f"{segment_name(1)}: offset " in str(error)
    assert not disk.locked


async def test_it_does_not_start_on_a_log_that_is_in_use(autojump_clock: MockClock) -> None:
    disk = new_disk()
    disk.lock()
    error = await failure(Daemon(settings(), disk))
    assert isinstance(error, LogError)
    assert str(error) == "/log: in use by another process, pid 4711"
    assert disk.locked


async def test_an_address_that_cannot_be_used_is_a_configuration_error(
    autojump_clock: MockClock,
) -> None:
    daemon = Daemon(settings(port=5555), new_disk())
    with mock.patch.object(Network, "listen", side_effect=OSError("in use")):
        error = await failure(daemon)
    assert isinstance(error, ConfigError)
    assert "cannot listen on 127.0.0.1:5555 (in use)" in str(error)
    assert not daemon.disk.locked


async def test_without_a_path_it_keeps_everything_in_memory(autojump_clock: MockClock) -> None:
    async with serving(wal_path="") as daemon:
        peer = await daemon.client()
        subscription = await peer.subscribe("demo")
        assert await peer.publish("demo", b"a") == []
        deliveries = await peer.poll(subscription)
        assert bodies(deliveries) == [b"a"]
        assert await peer.settle(subscription, *deliveries) == []
        await trio.sleep(1)
        assert daemon.disk.calls == []
        daemon.signal()
        await daemon.end()
    assert not daemon.disk.files
