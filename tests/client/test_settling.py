"""What becomes of a message on version 2, against the broker's own code."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from blipmq import ClientClosed, Subscription
from blipmq.protocol.frames import SETTLE, SETTLE_ROW, Outcome
from blipmq.testing import open_broker
from tests.client.tap import Tap

pytestmark = pytest.mark.usefixtures("carrier")


class Mine(Exception):
    """Raised by a test's block."""


async def nothing_more(messages: Subscription, seconds: float = 3600) -> bool:
    """Whether nothing is received for so long."""
    with trio.move_on_after(seconds) as scope:
        await messages.receive()
    return scope.cancelled_caught


async def test_leaving_the_block_of_a_message_accepts_it(autojump_clock: MockClock) -> None:
    async with (
        open_broker() as broker,
        broker.client() as client,
        client.subscribe("demo", name="work") as messages,
    ):
        await client.publish("demo", b"hello")
        async with await messages.receive() as message:
            assert message.body == b"hello"
            assert broker.stats.inflight == 1
        await trio.sleep(0.01)
        assert broker.stats.inflight == 0
        assert await nothing_more(messages)


async def test_an_error_in_the_block_has_it_retried_and_comes_out(
    autojump_clock: MockClock,
) -> None:
    async with (
        open_broker() as broker,
        broker.client() as client,
        client.subscribe("demo", name="work") as messages,
    ):
        await client.publish("demo", b"hello")
        mine = Mine()
        with pytest.raises(Mine) as caught:
            async with await messages.receive():
                raise mine
        assert caught.value is mine
        again = await messages.receive()
        assert (again.body, again.attempt) == (b"hello", 2)
        await again.accept()


async def test_cancelling_the_block_releases_it(autojump_clock: MockClock) -> None:
    async with (
        open_broker() as broker,
        broker.client() as client,
        client.subscribe("demo", name="work") as messages,
    ):
        await client.publish("demo", b"hello")
        message = await messages.receive()
        with trio.CancelScope() as scope:
            async with message:
                scope.cancel()
                await trio.sleep_forever()
        assert scope.cancelled_caught
        again = await messages.receive()
        assert (again.body, again.attempt) == (b"hello", 1)


async def test_a_rejected_message_is_a_dead_letter(autojump_clock: MockClock) -> None:
    async with (
        open_broker() as broker,
        broker.client() as client,
        client.subscribe("$dead.demo", name="dead") as dead,
        client.subscribe("demo", name="work") as messages,
    ):
        await client.publish("demo", b"hello", headers={"a": b"b"})
        async with await messages.receive() as message:
            await message.reject()
        letter = await dead.receive()
        assert (letter.body, letter.headers) == (b"hello", {"a": b"b"})
        assert letter.dead_letter is not None
        assert letter.dead_letter.reason == "rejected"
        assert letter.dead_letter.subscription == b"work"
        assert await nothing_more(messages)


async def test_a_retry_may_be_delayed(autojump_clock: MockClock) -> None:
    async with (
        open_broker() as broker,
        broker.client() as client,
        client.subscribe("demo", name="work") as messages,
    ):
        await client.publish("demo", b"hello")
        message = await messages.receive()
        begin = trio.current_time()
        await message.retry(delay=42)
        await messages.receive()
        assert trio.current_time() - begin == pytest.approx(42, abs=0.1)


async def test_a_message_that_nobody_settles_comes_again(autojump_clock: MockClock) -> None:
    async with (
        open_broker() as broker,
        broker.client() as client,
        client.subscribe("demo", name="work", ack_wait=5) as messages,
    ):
        await client.publish("demo", b"hello")
        begin = trio.current_time()
        first, second = await messages.receive(), await messages.receive()
        assert trio.current_time() - begin == pytest.approx(5)
        assert (first.attempt, second.attempt) == (1, 2)


async def test_what_is_worked_on_is_kept_alive(autojump_clock: MockClock) -> None:
    async with (
        open_broker() as broker,
        broker.client() as client,
        client.subscribe("demo", name="work", ack_wait=5) as messages,
    ):
        await client.publish("demo", b"hello")
        async with await messages.receive():
            await trio.sleep(600)
        assert await nothing_more(messages)
        assert broker.stats.inflight == 0


async def test_so_is_a_batch_but_for_what_of_it_is_settled(autojump_clock: MockClock) -> None:
    async with open_broker() as broker:
        tap = Tap()
        broker.wrap = tap.around
        async with (
            broker.client() as client,
            client.subscribe("demo", name="work", ack_wait=6) as messages,
        ):
            for number in range(4):
                await client.publish("demo", b"%d" % number)
            async with await messages.batch(4, within=1) as batch:
                await batch[1].accept()
                await trio.sleep(600)
            assert await nothing_more(messages)
            assert broker.stats.inflight == 0
        first = batch[0].tag
        assert first is not None
        extended = {
            (row[1] - first, row[2] - first)
            for frame in tap.sent
            if frame.type == SETTLE
            for row in SETTLE_ROW.iter_unpack(frame.payload)
            if row[0] == Outcome.EXTEND
        }
        assert extended == {(0, 0), (2, 3)}


async def test_so_is_what_waits_behind_it(autojump_clock: MockClock) -> None:
    async with (
        open_broker() as broker,
        broker.client() as client,
        client.subscribe("demo", name="work", ack_wait=5) as messages,
    ):
        for number in range(5):
            await client.publish("demo", b"%d" % number)
        for number in range(5):
            async with await messages.receive() as message:
                assert (message.body, message.attempt) == (b"%d" % number, 1)
                await trio.sleep(60)


async def test_what_waits_for_a_consumer_that_takes_nothing_comes_again_elsewhere(
    autojump_clock: MockClock,
) -> None:
    async with (
        open_broker() as broker,
        broker.client() as client,
        broker.client() as other,
        client.subscribe("demo", name="work", ack_wait=5),
    ):
        await client.publish("demo", b"hello")
        async with other.subscribe("demo", name="work", ack_wait=5) as messages:
            message = await messages.receive()
            assert message.body == b"hello"
            assert message.attempt > 1


async def test_a_message_may_be_extended_by_hand(autojump_clock: MockClock) -> None:
    async with (
        open_broker() as broker,
        broker.client() as client,
        client.subscribe("demo", name="work", ack_wait=5) as messages,
    ):
        await client.publish("demo", b"hello")
        message = await messages.receive()
        for _ in range(10):
            await trio.sleep(4)
            await message.extend()
        await message.accept()
        assert await nothing_more(messages)


async def test_leaving_the_subscription_gives_back_what_was_not_settled(
    autojump_clock: MockClock,
) -> None:
    async with open_broker() as broker, broker.client() as client, broker.client() as other:
        async with client.subscribe("demo", name="work") as messages:
            for number in range(4):
                await client.publish("demo", b"%d" % number)
            first, second = await messages.receive(), await messages.receive()
            await first.accept()
        async with other.subscribe("demo", name="work") as messages:
            bodies = [(await messages.receive()).body for _ in range(3)]
            assert sorted(bodies) == [b"1", b"2", b"3"]
        await second.accept()
        assert client.refusals.stale == 1


async def test_settlements_of_neighbours_are_one_row(autojump_clock: MockClock) -> None:
    async with open_broker() as broker:
        tap = Tap()
        broker.wrap = tap.around
        async with broker.client() as client, client.subscribe("demo", name="work") as messages:
            async with client.open_publisher("demo") as publisher:
                for number in range(200):
                    await publisher.send(b"%d" % number)
            for _ in range(200):
                async with await messages.receive():
                    pass
            await client.ping()
        settled = [frame.payload for frame in tap.sent if frame.type == SETTLE]
        assert sum(map(len, settled)) < 10 * 21
        assert broker.stats.inflight == 0


async def test_a_settlement_covers_no_tag_between_that_is_not_settled(
    autojump_clock: MockClock,
) -> None:
    async with (
        open_broker() as broker,
        broker.client() as client,
        client.subscribe("demo", name="work") as messages,
    ):
        for number in range(3):
            await client.publish("demo", b"%d" % number)
        first, second, third = [await messages.receive() for _ in range(3)]
        await first.accept()
        await third.accept()
        await client.ping()
        assert broker.stats.inflight == 1
        await second.release()
        assert (await messages.receive()).body == b"1"


async def test_settling_twice_counts_once(autojump_clock: MockClock) -> None:
    async with open_broker() as broker:
        tap = Tap()
        broker.wrap = tap.around
        async with broker.client() as client, client.subscribe("demo") as messages:
            await client.publish("demo", b"hello")
            async with await messages.receive() as message:
                await message.accept()
                await message.reject()
                async with message:
                    pass
            await client.ping()
        (settle,) = [frame.payload for frame in tap.sent if frame.type == SETTLE]
        assert settle[0] == 0
        assert len(settle) == 21


async def test_a_message_of_qos_0_is_settled_by_itself(autojump_clock: MockClock) -> None:
    async with open_broker() as broker:
        tap = Tap()
        broker.wrap = tap.around
        async with broker.client() as client, client.subscribe("demo", qos=0) as messages:
            await client.publish("demo", b"hello")
            async with await messages.receive() as message:
                assert (message.qos, message.tag) == (0, None)
            await message.retry()
        assert not [frame for frame in tap.sent if frame.type == SETTLE]


async def test_after_the_client_settling_raises_client_closed(autojump_clock: MockClock) -> None:
    async with open_broker() as broker:
        async with broker.client() as client, client.subscribe("demo") as messages:
            await client.publish("demo", b"hello")
            message = await messages.receive()
        with pytest.raises(ClientClosed):
            await message.accept()


async def test_a_batch_is_what_comes_within_its_time(autojump_clock: MockClock) -> None:
    async with open_broker() as broker, broker.client() as client:

        async def publish() -> None:
            for number in range(10):
                await client.publish("demo", b"%d" % number)
                await trio.sleep(1)

        async with client.subscribe("demo") as messages, trio.open_nursery() as nursery:
            nursery.start_soon(publish)
            async with await messages.batch(100, within=4.5) as batch:
                assert [message.body for message in batch] == [b"0", b"1", b"2", b"3", b"4"]
            async with await messages.batch(2, within=4.5) as batch:
                assert [message.body for message in batch[:2]] == [b"5", b"6"]
                await batch[1].reject()
            await client.ping()
            assert broker.stats.inflight == 0


async def test_a_batch_that_fails_is_retried_and_a_cancelled_one_released(
    autojump_clock: MockClock,
) -> None:
    async with (
        open_broker() as broker,
        broker.client() as client,
        client.subscribe("demo") as messages,
    ):
        for number in range(2):
            await client.publish("demo", b"%d" % number)
        with pytest.raises(Mine):
            async with await messages.batch(2, within=1):
                raise Mine
        batch = await messages.batch(2, within=1)
        assert sorted(message.attempt for message in batch) == [2, 2]
        with trio.CancelScope() as scope:
            async with batch:
                scope.cancel()
                await trio.sleep_forever()
        batch = await messages.batch(2, within=1)
        assert sorted(message.attempt for message in batch) == [2, 2]
        await batch.accept()
        await client.ping()
        assert broker.stats.inflight == 0


async def test_a_cancelled_batch_has_taken_nothing(autojump_clock: MockClock) -> None:
    async with (
        open_broker() as broker,
        broker.client() as client,
        client.subscribe("demo") as messages,
    ):
        for number in range(3):
            await client.publish("demo", b"%d" % number)
        with trio.move_on_after(1) as scope:
            await messages.batch(10, within=5)
        assert scope.cancelled_caught
        bodies = [(await messages.receive()).body for _ in range(3)]
        assert bodies == [b"0", b"1", b"2"]


@pytest.mark.parametrize("max_", [0, -1])
async def test_an_empty_batch_cannot_be_asked_for(autojump_clock: MockClock, max_: int) -> None:
    async with open_broker() as broker, broker.client() as client:
        messages = client.subscribe("demo")
        with pytest.raises(ValueError, match="expected 1 or more"):
            await messages.batch(max_)


async def test_a_batch_is_settled_by_ranges_that_leave_out_what_was_settled_before(
    autojump_clock: MockClock,
) -> None:
    async with open_broker() as broker:
        tap = Tap()
        broker.wrap = tap.around
        async with broker.client() as client, client.subscribe("demo") as messages:
            for number in range(6):
                await client.publish("demo", b"%d" % number)
            async with await messages.batch(6, within=1) as batch:
                await batch[2].reject()
                await client.ping()
            await client.ping()
            assert broker.stats.inflight == 0
        first = batch[0].tag
        assert first is not None
        rows = [
            (Outcome(row[0]), row[1] - first, row[2] - first)
            for frame in tap.sent
            if frame.type == SETTLE
            for row in SETTLE_ROW.iter_unpack(frame.payload)
        ]
        assert rows == [
            (Outcome.REJECT, 2, 2),
            (Outcome.ACCEPT, 0, 1),
            (Outcome.ACCEPT, 3, 5),
        ]


async def test_a_batch_whose_connection_is_lost_counts_as_stale(autojump_clock: MockClock) -> None:
    async with (
        open_broker() as broker,
        broker.client() as client,
        client.subscribe("demo", name="work") as messages,
    ):
        for number in range(3):
            await client.publish("demo", b"%d" % number)
        async with await messages.batch(3, within=1) as batch:
            await broker.hang_up()
        assert client.refusals.stale == 3
        again = await messages.batch(3, within=1)
        assert [message.body for message in again] == [message.body for message in batch]


async def test_a_batch_settled_after_the_client_raises_each_time(autojump_clock: MockClock) -> None:
    async with open_broker() as broker:
        async with broker.client() as client, client.subscribe("demo") as messages:
            for number in range(3):
                await client.publish("demo", b"%d" % number)
            batch = await messages.batch(3, within=1)
        for _ in range(2):
            with pytest.raises(ClientClosed):
                await batch.accept()
