"""Room in the channel to the writer comes before every decision: a slow disk stops readers."""

from __future__ import annotations

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from blipmq.broker.broker import Batch
from blipmq.config import WalSettings
from blipmq.nursery.wal_queue import WalQueue
from blipmq.protocol import encoder
from blipmq.protocol.frames import PONG, Frame
from tests.nursery.daemon import serving
from tests.peer import bodies

BATCH = Batch([], [], 1)


async def reserved(queue: WalQueue) -> bool:
    """Whether there was a place at once, which is then taken."""
    with trio.move_on_after(0) as waiting:
        await queue.reserve()
    return not waiting.cancelled_caught


async def test_there_are_so_many_places_and_no_more(autojump_clock: MockClock) -> None:
    queue = WalQueue(2)
    assert await reserved(queue)
    assert await reserved(queue)
    assert not await reserved(queue)


async def test_a_place_that_is_given_back_goes_to_who_waits(nursery: trio.Nursery) -> None:
    queue = WalQueue(1)
    await queue.reserve()
    nursery.start_soon(queue.reserve)
    await wait_all_tasks_blocked()
    assert nursery.child_tasks
    queue.release()
    await wait_all_tasks_blocked()
    assert not nursery.child_tasks


async def test_a_batch_keeps_its_place_until_the_writer_is_done_with_it(
    autojump_clock: MockClock,
) -> None:
    queue = WalQueue(1)
    await queue.reserve()
    queue.put(BATCH)
    assert await queue.receive.receive() is BATCH
    assert not await reserved(queue)
    queue.release()
    assert await reserved(queue)


async def test_a_wait_that_is_cancelled_takes_no_place(autojump_clock: MockClock) -> None:
    queue = WalQueue(1)
    await queue.reserve()
    assert not await reserved(queue)
    queue.release()
    assert await reserved(queue)


async def test_the_last_batch_needs_no_place_and_ends_the_channel() -> None:
    queue = WalQueue(1)
    await queue.reserve()
    queue.put(BATCH)
    last = Batch([], [], 2)
    queue.close(last)
    assert [batch async for batch in queue.receive] == [BATCH, last]


async def test_the_last_batch_of_a_cancelled_writer_is_dropped() -> None:
    queue = WalQueue(1)
    queue.receive.close()
    queue.close(BATCH)


async def test_messages_are_numbered_only_when_there_is_room_for_them(
    autojump_clock: MockClock,
) -> None:
    async with serving(wal=WalSettings(queue_batches=2)) as daemon:
        reader = await daemon.client()
        subscription = await reader.subscribe("demo")
        publishers = [await daemon.client() for _ in range(5)]
        await trio.sleep(1)
        daemon.runner.hold()
        for publisher in publishers:
            await publisher.send(encoder.publish(1, 1, b"demo", b"a"))
            await wait_all_tasks_blocked()
        assert daemon.stats.published[1] == 2
        daemon.runner.release()
        await wait_all_tasks_blocked()
        assert len(bodies(await reader.poll(subscription, 10))) == 5


async def test_a_reader_that_is_dropped_while_it_waits_for_room_has_published_nothing(
    autojump_clock: MockClock,
) -> None:
    async with serving(wal=WalSettings(queue_batches=1)) as daemon:
        reader = await daemon.client()
        subscription = await reader.subscribe("demo")
        busy, dropped = await daemon.client(), await daemon.client(bounded=True)
        await trio.sleep(1)
        # The daemon's writer is caught sending, so it is there to see the connection break.
        await dropped.send(encoder.ping(1))
        await wait_all_tasks_blocked()
        daemon.runner.hold()
        await busy.send(encoder.publish(1, 1, b"demo", b"busy"))
        await wait_all_tasks_blocked()
        await dropped.send(encoder.publish(1, 1, b"demo", b"dropped"))
        await wait_all_tasks_blocked()
        await dropped.reset()
        await wait_all_tasks_blocked()
        daemon.runner.release()
        assert bodies(await reader.poll(subscription, 10)) == [b"busy"]
        assert daemon.stats.published[1] == 1


async def test_who_does_not_publish_is_served_while_the_log_has_no_room(
    autojump_clock: MockClock,
) -> None:
    async with serving(
        wal=WalSettings(queue_batches=1), retry_backoff_ms=100, max_retries=9
    ) as daemon:
        consumer, busy = await daemon.client(), await daemon.client()
        subscription = await consumer.subscribe("demo")
        await busy.publish("demo", b"a")
        await trio.sleep(1)
        daemon.runner.hold()
        await busy.send(encoder.publish(1, 1, b"other", b""))
        await wait_all_tasks_blocked()

        assert await consumer.ask(encoder.ping(7)) == [Frame(PONG, 7, b"")]
        first = await consumer.poll(subscription)
        await trio.sleep(1)
        again = await consumer.poll(subscription)
        assert bodies(first) == bodies(again) == [b"a"]
        assert await consumer.settle(subscription, *again) == []
        assert await consumer.publish("demo", b"", qos=0) == []
        daemon.runner.release()


async def test_settlements_are_logged_when_the_log_has_room_again(
    autojump_clock: MockClock,
) -> None:
    async with serving(wal=WalSettings(queue_batches=1)) as daemon:
        consumer, busy = await daemon.client(), await daemon.client()
        subscription = await consumer.subscribe("demo")
        await busy.publish("demo", b"a", b"b")
        daemon.runner.hold()
        await busy.send(encoder.publish(1, 1, b"other", b""))
        await wait_all_tasks_blocked()
        await consumer.settle(subscription, *await consumer.poll(subscription))
        await trio.sleep(1)
        daemon.runner.release()
        await trio.sleep(1)
        disk = daemon.disk.after_kill()
    async with serving(disk=disk) as daemon:
        peer = await daemon.client()
        assert bodies(await peer.poll(await peer.subscribe("demo"), 10)) == [b"b"]
