"""What reaches the disk when, in how many calls, and what happens when the disk says no."""

from __future__ import annotations

import errno

import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from blipmq.broker.limits import Retention
from blipmq.broker.stats import DropReason
from blipmq.config import WalSettings
from blipmq.errors import LogError
from blipmq.nursery.inline_writes import QUICK_WRITES_MIN
from blipmq.protocol import encoder
from blipmq.protocol.frames import Frame
from blipmq.wal.policy import FsyncPolicy
from tests.nursery.daemon import Daemon, serving
from tests.nursery.network import MemoryPeer
from tests.nursery.timed_disk import TimedDisk
from tests.nursery.wakings import wakings
from tests.peer import NO_SUBSCRIPTION, bodies, nack
from tests.wal.memory_disk import Call

MIB = 1 << 20
NO_SPACE = (500, "durable publish failed: No space left on device")


async def backlog(disk: TimedDisk) -> list[bytes]:
    """What a daemon that finds this disk after a crash has for the subscription to `demo`."""
    async with serving(disk=disk.after_kill()) as daemon:
        peer = await daemon.client()
        return bodies(await peer.poll(await peer.subscribe("demo"), 100))


async def publish_while_busy(daemon: Daemon, peers: list[MemoryPeer]) -> None:
    """Each publishes its place in the list, while the disk is held up by a first publish."""
    daemon.runner.hold()
    await (await daemon.client()).send(encoder.publish(0, 1, b"demo", b"first"))
    await wait_all_tasks_blocked()
    for place, peer in enumerate(peers):
        await peer.send(encoder.publish(place, 1, b"demo", b"%d" % place))
        await wait_all_tasks_blocked()


# Group commit


async def test_all_that_waits_is_written_and_synced_at_once(autojump_clock: MockClock) -> None:
    async with serving() as daemon:
        peers = [await daemon.client() for _ in range(10)]
        subscription = await peers[0].subscribe("demo")
        await trio.sleep(1)
        appends, syncs = daemon.disk.count("append"), daemon.disk.count("sync")
        await publish_while_busy(daemon, peers)
        daemon.runner.release()
        got = bodies(await peers[0].poll(subscription, 20))
        assert got == [b"first", *(b"%d" % place for place in range(10))]
        assert daemon.disk.count("append") == appends + 2
        assert daemon.disk.count("sync") == syncs + 2


async def test_a_group_gives_all_of_its_places_back(autojump_clock: MockClock) -> None:
    async with serving(wal=WalSettings(queue_batches=6)) as daemon:
        peers = [await daemon.client() for _ in range(5)]
        for _ in range(3):
            appends = daemon.disk.count("append")
            await publish_while_busy(daemon, peers)
            daemon.runner.release()
            await wait_all_tasks_blocked()
            assert daemon.disk.count("append") == appends + 2


async def test_nothing_is_delivered_before_it_is_committed(autojump_clock: MockClock) -> None:
    async with serving() as daemon:
        peer, publisher = await daemon.client(), await daemon.client()
        subscription = await peer.subscribe("demo")
        await trio.sleep(1)
        daemon.runner.hold()
        await publisher.send(encoder.publish(1, 1, b"demo", b"a"))
        await publisher.send(encoder.publish(2, 0, b"demo", b"b"))
        await wait_all_tasks_blocked()
        assert await peer.poll(subscription) == []
        daemon.runner.release()
        await wait_all_tasks_blocked()
        assert bodies(await peer.poll(subscription, 2)) == [b"a", b"b"]


# When it is synced


async def test_always_syncs_before_it_confirms(autojump_clock: MockClock) -> None:
    async with serving(fsync_policy=FsyncPolicy("always")) as daemon:
        peer = await daemon.client()
        for payload in (b"a", b"b"):
            assert await peer.publish("demo", payload) == []
            assert daemon.disk.unsynced == set()


async def test_every_n_syncs_when_so_many_messages_were_written(
    autojump_clock: MockClock,
) -> None:
    wal = WalSettings(fsync_max_delay_ms=60_000)
    async with serving(fsync_policy=FsyncPolicy("every_n", 3), wal=wal) as daemon:
        peer = await daemon.client()
        syncs = daemon.disk.count("sync")
        for payloads, expected in (([b"a", b"b"], 0), ([b"c"], 1), ([b"d"] * 5, 2), ([b"e"], 2)):
            await peer.publish("demo", *payloads)
            await wait_all_tasks_blocked()
            assert daemon.disk.count("sync") == syncs + expected


async def test_every_n_lets_a_lone_message_wait_for_its_sync_no_longer_than_allowed(
    autojump_clock: MockClock,
) -> None:
    wal = WalSettings(fsync_max_delay_ms=200)
    async with serving(fsync_policy=FsyncPolicy("every_n", 1_000), wal=wal) as daemon:
        peer = await daemon.client()
        await trio.sleep(10)
        await peer.publish("demo", b"a")
        assert trio.current_time() == 10
        await trio.sleep(10)
        assert daemon.disk.times("sync")[-1] == 10.2
        assert daemon.disk.unsynced == set()


async def test_interval_ms_syncs_so_long_after_a_write_and_not_without_one(
    autojump_clock: MockClock,
) -> None:
    async with serving(fsync_policy=FsyncPolicy("interval_ms", 100)) as daemon:
        peer = await daemon.client()
        syncs = daemon.disk.count("sync")
        await trio.sleep(10)
        for payload in (b"a", b"b", b"c"):
            await peer.publish("demo", payload)
            await trio.sleep(0.04)
        await trio.sleep(10)
        assert daemon.disk.times("sync")[syncs:] == [10.1]


async def test_none_leaves_it_to_the_operating_system(autojump_clock: MockClock) -> None:
    async with serving(fsync_policy=FsyncPolicy("none")) as daemon:
        peer = await daemon.client()
        syncs = daemon.disk.count("sync")
        await peer.publish("demo", *[b"a"] * 1_000)
        await trio.sleep(3_600)
        assert daemon.disk.count("sync") == syncs


@pytest.mark.parametrize("policy", ["every_n:2", "interval_ms:10"])
async def test_a_message_is_confirmed_before_its_sync(
    autojump_clock: MockClock, policy: str
) -> None:
    async with serving(fsync_policy=FsyncPolicy.parse(policy)) as daemon:
        peer = await daemon.client()
        assert await peer.publish("demo", b"a") == []
        assert daemon.disk.unsynced


async def test_a_segment_is_not_ended_while_it_is_synced(autojump_clock: MockClock) -> None:
    async with serving(
        fsync_policy=FsyncPolicy("every_n", 1), wal=WalSettings(segment_bytes=1)
    ) as daemon:
        peer = await daemon.client()
        await trio.sleep(1)
        daemon.runner.seconds = 2
        await peer.publish("demo", b"a")
        await trio.sleep(1)
        assert daemon.runner.calls == 1
        await peer.send(encoder.publish(1, 1, b"demo", b"b"))
        await wait_all_tasks_blocked()
        assert daemon.runner.calls == 1
        assert await peer.publish("demo", b"c") == []


# On which thread


@attrs.define
class Watch:
    """A clock for measuring, on which each look takes `seconds`."""

    seconds: float = 0.0
    time: float = 0.0

    def __call__(self) -> float:
        self.time += self.seconds
        return self.time


@pytest.mark.parametrize("policy", ["none", "every_n:1000", "interval_ms:60000"])
async def test_confirms_that_wait_for_no_fsync_wait_for_no_thread(
    autojump_clock: MockClock, policy: str
) -> None:
    async with serving(fsync_policy=FsyncPolicy.parse(policy)) as daemon:
        peer = await daemon.client()
        daemon.runner.hold()
        assert await peer.publish("demo", b"a") == []
        daemon.runner.release()


async def test_while_writes_are_held_up_they_go_by_thread(autojump_clock: MockClock) -> None:
    watch = Watch()
    async with serving(fsync_policy=FsyncPolicy("none"), monotonic=watch) as daemon:
        peer = await daemon.client()
        watch.seconds = 1
        await peer.publish("demo", b"a")
        daemon.runner.hold()
        await peer.send(encoder.publish(1, 1, b"demo", b"b"))
        await wait_all_tasks_blocked()
        assert daemon.runner.calls == 1
        daemon.runner.release()
        watch.seconds = 0
        for _ in range(QUICK_WRITES_MIN + 1):
            await peer.publish("demo", b"c")
        daemon.runner.hold()
        assert await peer.publish("demo", b"d") == []
        daemon.runner.release()


async def test_nothing_is_written_beside_a_sync_but_in_a_thread(autojump_clock: MockClock) -> None:
    async with serving(fsync_policy=FsyncPolicy("every_n", 1)) as daemon:
        peer = await daemon.client()
        await trio.sleep(1)
        daemon.runner.hold()
        assert await peer.publish("demo", b"a") == []
        await wait_all_tasks_blocked()
        assert daemon.runner.calls == 1
        await peer.send(encoder.publish(1, 1, b"demo", b"b"))
        await wait_all_tasks_blocked()
        assert daemon.runner.calls == 2
        daemon.runner.release()


@pytest.mark.parametrize("written", [0, 40])
async def test_without_room_publishes_fail_under_none_too_and_succeed_when_there_is(
    autojump_clock: MockClock, written: int
) -> None:
    async with serving(fsync_policy=FsyncPolicy("none")) as daemon:
        peer = await daemon.client()
        daemon.disk.break_down("append", errno.ENOSPC, written=written)
        (refused,) = await peer.publish("demo", b"a")
        assert nack(refused) == NO_SPACE
        daemon.disk.heal()
        assert await peer.publish("demo", b"b") == []
    assert await backlog(daemon.disk) == [b"b"]


@attrs.define(eq=False)
class Steps(trio.abc.Instrument):
    """The names of the tasks that ran."""

    names: list[str] = attrs.Factory(list)

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.names.append(task.name)


@pytest.mark.parametrize("policy", ["none", "interval_ms:60000"])
async def test_while_the_writer_waits_a_message_is_committed_in_the_step_that_it_comes_of(
    autojump_clock: MockClock, policy: str
) -> None:
    async with serving(fsync_policy=FsyncPolicy.parse(policy)) as daemon:
        peer = await daemon.client()
        await peer.publish("demo", b"a")  # the writer looks whether it has been quiet from now on
        await wait_all_tasks_blocked()
        steps = Steps()
        trio.lowlevel.add_instrument(steps)
        assert await peer.publish("demo", b"b") == []
        trio.lowlevel.remove_instrument(steps)
        assert [name for name in steps.names if "wal_writer" in name] == []
        assert any("listener" in name for name in steps.names)
    assert await backlog(daemon.disk) == [b"a", b"b"]


@pytest.mark.parametrize("written", [0, 40])
async def test_a_write_in_a_step_that_fails_is_cut_off_and_its_publish_refused(
    autojump_clock: MockClock, written: int
) -> None:
    async with serving(fsync_policy=FsyncPolicy("none")) as daemon:
        peer = await daemon.client()
        await peer.publish("demo", b"a")
        daemon.disk.break_down("append", errno.ENOSPC, written=written)
        (refused,) = await peer.publish("demo", b"b")
        assert nack(refused) == NO_SPACE
        daemon.disk.heal()
        assert await peer.publish("demo", b"c") == []
        assert await peer.publish("demo", b"d") == []
    assert await backlog(daemon.disk) == [b"a", b"c", b"d"]


async def test_what_comes_while_a_batch_is_written_does_not_go_before_it(
    autojump_clock: MockClock,
) -> None:
    watch = Watch()
    async with serving(fsync_policy=FsyncPolicy("none"), monotonic=watch) as daemon:
        peer, other = await daemon.client(), await daemon.client()
        watch.seconds = 1
        await peer.publish("demo", b"a")
        daemon.runner.hold()
        await peer.send(encoder.publish(1, 1, b"demo", b"b"))
        await wait_all_tasks_blocked()
        await other.send(encoder.publish(1, 1, b"demo", b"c"))
        await wait_all_tasks_blocked()
        daemon.runner.release()
        await peer.ask()
        await other.ask()
        await wait_all_tasks_blocked()
    assert await backlog(daemon.disk) == [b"a", b"b", b"c"]


async def test_segments_go_though_messages_are_committed_in_their_steps(
    autojump_clock: MockClock,
) -> None:
    async with serving(fsync_policy=FsyncPolicy("none")) as daemon:
        peer = await daemon.client()
        subscription = await peer.subscribe("demo")
        for number in range(40):
            await peer.publish("demo", b"%d" % number)
            await trio.sleep(0.3)
        assert daemon.disk.count("create") < 10
        for message in await peer.poll(subscription, 40):
            await peer.ask(encoder.ack(message.correlation_id, subscription))
        await trio.sleep(5)
        assert daemon.stats.wal_segments <= 2


# Segments


async def test_segments_that_nobody_needs_any_more_are_removed(autojump_clock: MockClock) -> None:
    async with serving(wal=WalSettings(segment_bytes=4_096)) as daemon:
        peer = await daemon.client()
        subscription = await peer.subscribe("demo")
        for _ in range(20):
            await peer.publish("demo", bytes(2_000))
            await peer.settle(subscription, *await peer.poll(subscription))
        assert len(daemon.disk.names()) <= 3
        assert daemon.stats.wal_segments == len(daemon.disk.names())
        assert daemon.disk.names()[-1] > "0000000000000005.wal"


@pytest.mark.parametrize(("policy", "prepared"), [("always", True), ("none", False)])
async def test_where_confirms_wait_for_fsyncs_segments_begin_in_files_of_zeros(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, policy: str, prepared: bool
) -> None:
    monkeypatch.setattr("blipmq.nursery.wal_writer.COMMITS_BEFORE_PREPARING", 3)
    wal, fsync_policy = WalSettings(segment_bytes=8_192), FsyncPolicy.parse(policy)
    async with serving(disk=TimedDisk(MIB), wal=wal, fsync_policy=fsync_policy) as daemon:
        peer = await daemon.client()
        await peer.subscribe("demo")
        lengths = []
        for _ in range(5):
            await peer.publish("demo", b"a")
            await trio.sleep(1)
            last = max(name for name in daemon.disk.names() if name.endswith(".wal"))
            lengths.append(len(daemon.disk.files[last]))
        assert [length == 8_192 for length in lengths] == [False] * 3 + [prepared] * 2
        assert await backlog(daemon.disk) == [b"a"] * 5


async def test_a_daemon_that_ends_while_it_prepares_a_segment_leaves_nothing_of_it(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("blipmq.nursery.wal_writer.COMMITS_BEFORE_PREPARING", 1)
    monkeypatch.setattr("blipmq.wal.next_segment.PIECE_BYTES", 100)
    async with serving(disk=TimedDisk(MIB), wal=WalSettings(segment_bytes=8_192)) as daemon:
        peer = await daemon.client()
        await peer.publish("demo", b"a")
        await trio.sleep(0.1)
        assert 0 < len(daemon.disk.files["next"]) < 8_192
    assert "next" not in daemon.disk.files
    assert daemon.disk.open_files == 0


async def test_without_room_for_a_new_segment_the_old_one_grows_on(
    autojump_clock: MockClock,
) -> None:
    async with serving(wal=WalSettings(segment_bytes=4_096)) as daemon:
        peer = await daemon.client()
        await peer.subscribe("demo")
        daemon.disk.break_down("create", errno.ENOSPC)
        for number in range(10):
            assert await peer.publish("demo", b"%04d" % number * 500) == []
        assert daemon.stats.wal_segments == 1
        assert "no room for a new segment" in daemon.events()
        daemon.disk.heal()
        assert await peer.publish("demo", b"last") == []
        assert daemon.stats.wal_segments == 2
        assert len(await backlog(daemon.disk)) == 11


# Without room


async def test_without_room_publishes_fail_and_everything_else_goes_on(
    autojump_clock: MockClock,
) -> None:
    async with serving() as daemon:
        peer = await daemon.client()
        subscription = await peer.subscribe("demo")
        await peer.publish("demo", b"before")
        daemon.disk.break_down("append", errno.ENOSPC, written=20)
        assert [nack(frame) for frame in await peer.publish("demo", b"a", b"b")] == [NO_SPACE] * 2
        assert await peer.publish("demo", b"0", qos=0) == []
        deliveries = await peer.poll(subscription, 10)
        assert bodies(deliveries) == [b"before", b"0"]
        assert await peer.settle(subscription, deliveries[0]) == []
        assert daemon.metrics.readiness() is None
        assert daemon.stats.dropped[DropReason.COMMIT_FAILED] == 2
        assert daemon.stats.nacks[500] == 2


async def test_when_there_is_room_again_publishes_succeed(autojump_clock: MockClock) -> None:
    async with serving() as daemon:
        peer = await daemon.client()
        await peer.subscribe("demo")
        for error in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            daemon.disk.break_down("append", error, written=20)
            assert len(await peer.publish("demo", b"a")) == 1
            daemon.disk.heal()
            assert await peer.publish("demo", b"b") == []
        assert await backlog(daemon.disk) == [b"b"] * 3


async def test_settlements_that_found_no_room_are_logged_when_there_is(
    autojump_clock: MockClock,
) -> None:
    async with serving(retry_backoff_ms=60_000) as daemon:
        peer = await daemon.client()
        subscription = await peer.subscribe("demo")
        await peer.publish("demo", b"a", b"b")
        deliveries = await peer.poll(subscription, 2)
        daemon.disk.break_down("append", errno.ENOSPC)
        await peer.settle(subscription, *deliveries)
        await trio.sleep(1)
        assert await backlog(daemon.disk) == [b"a", b"b"]
        daemon.disk.heal()
        await trio.sleep(1)
        assert await backlog(daemon.disk) == []


def fill(disk: TimedDisk) -> None:
    """Somebody else takes all there is."""
    disk.files["ballast"] = bytearray(disk.free())


async def test_acceptances_on_a_full_disk_outlive_the_daemon(autojump_clock: MockClock) -> None:
    async with serving(disk=TimedDisk(16 * MIB), retry_backoff_ms=60_000) as daemon:
        peer = await daemon.client()
        subscription = await peer.subscribe("demo")
        await peer.publish("demo", b"a", b"b", b"c")
        deliveries = await peer.poll(subscription, 3)
        fill(daemon.disk)
        await peer.settle(subscription, *deliveries[:2])
        await trio.sleep(1)
        assert await backlog(daemon.disk) == [b"c"]


async def test_acceptances_are_logged_though_publishes_find_no_room(
    autojump_clock: MockClock,
) -> None:
    async with serving(disk=TimedDisk(16 * MIB), retry_backoff_ms=60_000) as daemon:
        peer = await daemon.client()
        subscription = await peer.subscribe("demo")
        await peer.publish("demo", b"a", b"b")
        deliveries = await peer.poll(subscription, 2)
        fill(daemon.disk)
        await publish_while_busy(daemon, [peer])
        await peer.settle(subscription, deliveries[0])
        daemon.runner.release()
        await wait_all_tasks_blocked()
        assert daemon.stats.nacks[500] == 2
        assert await backlog(daemon.disk) == [b"b"]


async def test_a_full_disk_with_nothing_that_is_wanted_frees_itself(
    autojump_clock: MockClock,
) -> None:
    async with serving(disk=TimedDisk(16 * MIB), retry_backoff_ms=60_000) as daemon:
        peer = await daemon.client()
        subscription = await peer.subscribe("demo")
        fill(daemon.disk)
        del daemon.disk.files["ballast"][-MIB:]
        refused: list[Frame] = []
        while not refused:
            refused = await peer.publish("demo", bytes(50_000))
        assert [nack(frame) for frame in refused] == [NO_SPACE]
        await peer.settle(subscription, *await peer.poll(subscription, 100))
        assert await peer.publish("demo", b"again") == []
        assert bodies(await peer.poll(subscription, 2)) == [b"again"]
        assert await backlog(daemon.disk) == [b"again"]


async def test_a_full_disk_on_which_all_is_wanted_is_not_written_over_again(
    autojump_clock: MockClock,
) -> None:
    async with serving(disk=TimedDisk(16 * MIB), retry_backoff_ms=60_000) as daemon:
        peer = await daemon.client()
        await peer.subscribe("demo")
        await peer.publish("demo", b"a")
        fill(daemon.disk)
        segments = daemon.disk.count("create")
        for _ in range(10):
            assert len(await peer.publish("demo", b"b")) == 1
        assert daemon.disk.count("create") == segments
        assert await backlog(daemon.disk) == [b"a"]


async def test_publishes_succeed_by_themselves_when_there_is_room_for_the_reserve_too(
    autojump_clock: MockClock,
) -> None:
    async with serving(disk=TimedDisk(16 * MIB), retry_backoff_ms=60_000) as daemon:
        peer = await daemon.client()
        subscription = await peer.subscribe("demo")
        await peer.publish("demo", b"a")
        fill(daemon.disk)
        await peer.settle(subscription, *await peer.poll(subscription))
        await trio.sleep(1)
        assert len(await peer.publish("demo", bytes(5_000))) == 1
        del daemon.disk.files["ballast"]
        assert await peer.publish("demo", b"b") == []
        assert len(daemon.disk.files["reserve"]) >= 16 * MIB // 8


async def test_dead_letters_wait_for_room_and_hold_up_no_acceptance(
    autojump_clock: MockClock,
) -> None:
    async with serving(disk=TimedDisk(16 * MIB), max_retries=1, retry_backoff_ms=100) as daemon:
        peer = await daemon.client()
        subscription, other = await peer.subscribe("demo"), await peer.subscribe("other")
        await peer.publish("demo", b"given up")
        await peer.publish("other", b"accepted")
        await peer.poll(subscription)
        fill(daemon.disk)
        await trio.sleep(1)
        await peer.settle(other, *await peer.poll(other))
        await trio.sleep(1)
        async with serving(disk=daemon.disk.after_kill()) as restarted:
            again = await restarted.client()
            assert bodies(await again.poll(await again.subscribe("other"), 10)) == []
        del daemon.disk.files["ballast"]
        await trio.sleep(1)
        async with serving(disk=daemon.disk.after_kill()) as restarted:
            again = await restarted.client()
            dead = await again.poll(await again.subscribe("$dead.demo"), 10)
            assert bodies(dead) == [b"given up"]
            assert bodies(await again.poll(await again.subscribe("demo"), 10)) == []


async def test_settled_messages_are_retained_as_long_as_told(autojump_clock: MockClock) -> None:
    retention = Retention(settled_ms=60_000)
    wal = WalSettings(segment_bytes=4_096)
    async with serving(wal=wal, retention=retention) as daemon:
        peer = await daemon.client()
        subscription = await peer.subscribe("demo")
        for _ in range(10):
            await peer.publish("demo", bytes(4_000))
            await peer.settle(subscription, *await peer.poll(subscription))
        assert daemon.stats.wal_segments >= 10
        async with serving(
            disk=daemon.disk.after_kill(), wal=wal, retention=retention
        ) as restarted:
            assert restarted.stats.wal_segments >= 10
        await trio.sleep(61)
        for _ in range(2):
            await peer.publish("demo", bytes(4_000))
            await peer.settle(subscription, *await peer.poll(subscription))
        assert daemon.stats.wal_segments <= 3


async def test_a_full_disk_is_logged_at_a_bounded_rate(autojump_clock: MockClock) -> None:
    async with serving() as daemon:
        peer = await daemon.client()
        daemon.disk.break_down("append", errno.ENOSPC)
        for _ in range(50):
            await peer.publish("demo", b"a")
        assert 1 <= daemon.events().count("the log cannot grow") <= 5


async def test_publishes_that_fail_together_are_refused_in_their_order(
    autojump_clock: MockClock,
) -> None:
    async with serving() as daemon:
        peer = await daemon.client()
        await publish_while_busy(daemon, [peer] * 5)
        daemon.disk.break_down("append", errno.ENOSPC)
        daemon.runner.release()
        answers = await peer.ask(encoder.poll(9, NO_SUBSCRIPTION))
        assert [answer.correlation_id for answer in answers] == [0, 1, 2, 3, 4]
        assert {nack(answer) for answer in answers} == {NO_SPACE}


# When the disk breaks


async def refused_by_a_broken_disk(daemon: Daemon) -> list[Frame]:
    """What is answered to two clients whose publishes meet the failing disk."""
    first, second = await daemon.client(), await daemon.client()
    await first.send(encoder.publish(1, 1, b"demo", b"a"))
    await wait_all_tasks_blocked()
    await second.send(encoder.publish(1, 1, b"demo", b"a"))
    await wait_all_tasks_blocked()
    daemon.runner.release()
    return [*await first.rest(), *await second.rest()]


@pytest.mark.parametrize(
    ("operation", "reason"),
    [("append", "Input/output error"), ("sync", "fsync failed: Input/output error")],
)
async def test_a_broken_disk_refuses_what_waits_and_ends_the_daemon(
    autojump_clock: MockClock, operation: Call, reason: str
) -> None:
    async with serving() as daemon:
        daemon.runner.hold()
        daemon.disk.break_down(operation, errno.EIO)
        answers = await refused_by_a_broken_disk(daemon)
        assert [nack(answer) for answer in answers] == [
            (500, f"durable publish failed: {reason}")
        ] * 2
        assert daemon.metrics.readiness() == "log failed"
        with pytest.raises(ConnectionRefusedError):
            daemon.connect()
        (error,) = await daemon.failure()
        assert isinstance(error, LogError)
        assert str(error) == reason
        assert "log failed" in daemon.events()
    assert not daemon.disk.locked


async def test_a_broken_disk_ends_the_daemon_without_waiting_for_settlements(
    autojump_clock: MockClock,
) -> None:
    async with serving(retry_backoff_ms=60_000) as daemon:
        peer = await daemon.client()
        subscription = await peer.subscribe("demo")
        await peer.publish("demo", b"a")
        assert bodies(await peer.poll(subscription)) == [b"a"]
        daemon.disk.break_down("append", errno.EIO)
        await peer.send(encoder.publish(1, 1, b"demo", b"b"))
        assert len(await peer.rest()) == 1
        await peer.aclose()
        assert len(await daemon.failure()) == 1
        assert trio.current_time() < 0.1


async def test_a_sync_that_failed_is_not_tried_again(autojump_clock: MockClock) -> None:
    async with serving() as daemon:
        syncs = daemon.disk.count("sync")
        daemon.runner.hold()
        daemon.disk.fail("sync", errno.EIO)
        assert len(await refused_by_a_broken_disk(daemon)) == 2
        assert len(await daemon.failure()) == 1
        assert daemon.disk.count("sync") == syncs + 1


async def test_a_record_that_cannot_be_cut_off_again_ends_the_daemon(
    autojump_clock: MockClock,
) -> None:
    async with serving() as daemon:
        daemon.runner.hold()
        daemon.disk.fail("append", errno.ENOSPC, written=20)
        daemon.disk.fail("truncate", errno.EIO)
        assert len(await refused_by_a_broken_disk(daemon)) == 2
        (error,) = await daemon.failure()
        assert isinstance(error, LogError)


@pytest.mark.parametrize("policy", ["every_n:1", "interval_ms:10"])
async def test_a_later_sync_that_fails_ends_the_daemon_too(
    autojump_clock: MockClock, policy: str
) -> None:
    async with serving(fsync_policy=FsyncPolicy.parse(policy)) as daemon:
        peer = await daemon.client()
        syncs = daemon.disk.count("sync")
        daemon.disk.break_down("sync", errno.EIO)
        await peer.send(encoder.publish(1, 1, b"demo", b"a"))
        assert await peer.rest() == []
        assert daemon.metrics.readiness() == "log failed"
        (error,) = await daemon.failure()
        assert isinstance(error, LogError)
        assert daemon.disk.count("sync") == syncs + 1


# Numbers


@pytest.mark.parametrize("qos", [0, 1])
async def test_numbers_are_reserved_anew_before_they_run_out(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, qos: int
) -> None:
    monkeypatch.setattr("blipmq.broker.broker.NUMBERS_RESERVED", 100)
    async with serving() as daemon:
        peer = await daemon.client()
        subscription = await peer.subscribe("demo", qos)
        for _ in range(20):
            assert await peer.publish("demo", *[b"a"] * 20, qos=qos) == []
            deliveries = await peer.poll(subscription, 20)
            assert len(deliveries) == 20
            await peer.settle(subscription, *deliveries)
            await trio.sleep(1)
        await trio.sleep(2)
        with wakings() as woken:
            await trio.sleep(60)
        assert woken.times == []


async def test_a_drained_backlog_gives_its_disk_space_back_without_another_message(
    autojump_clock: MockClock,
) -> None:
    async with serving(wal=WalSettings(segment_bytes=4096)) as daemon:
        peer = await daemon.client()
        subscription = await peer.subscribe("demo")
        for place in range(40):
            await peer.send(encoder.publish(place, 1, b"demo", bytes(500)))
            await trio.sleep(0.1)
        grown = daemon.stats.wal_segments
        for frame in await peer.poll(subscription, 40):
            await peer.send(encoder.ack(frame.correlation_id, subscription))
        await trio.sleep(10)
        assert grown > 3
        assert daemon.stats.wal_segments == 1
