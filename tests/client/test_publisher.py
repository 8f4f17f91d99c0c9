from __future__ import annotations

from itertools import pairwise

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from blipmq import (
    ClientClosed,
    ConnectionLost,
    NotPermitted,
    Publisher,
    PublisherFailed,
    TooLarge,
    WindowFull,
)
from blipmq.client.outgoing import Body
from blipmq.client.push.lease import STEPS
from blipmq.client.push.link import Link
from blipmq.client.splitter import Splitter
from blipmq.protocol.frames import CONFIRM, MESSAGE, PUBLISH, TYPES_V2
from blipmq.protocol.properties import parse_message_properties
from blipmq.testing import FaultyStream, open_broker
from tests.client.tap import Tap

pytestmark = pytest.mark.usefixtures("carrier")

BODIES_OF_ONE_SIZE: list[Body] = [b"%03d" % number for number in range(600)]
BODIES_OF_ALL_SIZES: list[Body] = [bytes((size,)) * size for size in range(100)]
MUTABLE_BODIES: list[Body] = [bytearray(b"one"), memoryview(b"another"), b"third"]


async def fill(publisher: Publisher) -> None:
    """Sends without end."""
    while True:
        await publisher.send(b"hello")


async def test_leaving_waits_until_everything_is_confirmed(autojump_clock: MockClock) -> None:
    async with (
        open_broker() as broker,
        broker.client() as client,
        client.subscribe("demo") as messages,
    ):
        async with client.open_publisher("demo", window=7) as publisher:
            for number in range(100):
                await publisher.send(b"%d" % number, headers={"n": b"%d" % number})
            assert publisher.sent == 100
        for number in range(100):
            async with await messages.receive() as message:
                assert message.body == b"%d" % number == message.headers["n"]


async def test_flush_waits_until_everything_until_then_is_confirmed(
    autojump_clock: MockClock,
) -> None:
    async with (
        open_broker() as broker,
        broker.client() as client,
        client.open_publisher("demo") as publisher,
    ):
        await publisher.send(b"hello")
        await publisher.flush()
        assert broker.stats.connections == 1
        assert not client.refusals.publishes


async def test_send_waits_while_the_window_is_full(autojump_clock: MockClock) -> None:
    faulty: list[FaultyStream] = []

    def wrap(stream: trio.abc.Stream) -> trio.abc.Stream:
        faulty.append(FaultyStream(stream))
        return faulty[0]

    async with open_broker() as broker:
        broker.wrap = wrap
        async with broker.client() as client, client.open_publisher("demo", window=3) as publisher:
            faulty[0].delay = 10
            with trio.move_on_after(5) as scope:
                for _ in range(10):
                    await publisher.send(b"hello")
            assert scope.cancelled_caught
            assert publisher.sent == 3
            await publisher.send(b"hello")
            faulty[0].delay = 0


async def test_send_waits_while_the_window_is_full_of_bytes(autojump_clock: MockClock) -> None:
    async with (
        open_broker() as broker,
        broker.client() as client,
        client.open_publisher("demo", window_bytes=1000) as publisher,
    ):
        with trio.CancelScope() as scope:
            await publisher.send(bytes(1500))
            scope.cancel()
            await publisher.send(b"hello")
        assert publisher.sent == 1


async def test_what_was_refused_is_raised_on_leaving_with_its_numbers(
    autojump_clock: MockClock,
) -> None:
    async with open_broker() as broker, broker.client() as client:
        async with client.open_publisher("demo") as other:

            async def publish() -> None:
                async with client.open_publisher("$dead.demo") as publisher:
                    for _ in range(5):
                        await publisher.send(b"hello")
                        await other.send(b"hello")

            with pytest.raises(PublisherFailed) as caught:
                await publish()
        failed = caught.value
        assert failed.count == 5
        assert [number for number, _ in failed.failures] == list(range(5))
        assert isinstance(failed.__cause__, NotPermitted)
        assert "5 messages were not confirmed" in str(failed)


async def test_a_failure_is_raised_once(autojump_clock: MockClock) -> None:
    async with (
        open_broker() as broker,
        broker.client() as client,
        client.open_publisher("$dead.demo") as publisher,
    ):
        await publisher.send(b"hello")
        with pytest.raises(PublisherFailed):
            await publisher.flush()


async def test_an_exception_of_the_block_wins(autojump_clock: MockClock) -> None:
    async with open_broker() as broker, broker.client() as client:

        async def publish() -> None:
            async with client.open_publisher("$dead.demo") as publisher:
                await publisher.send(b"hello")
                raise KeyError

        with pytest.raises(KeyError):
            await publish()


async def test_at_qos_0_nothing_is_confirmed(autojump_clock: MockClock) -> None:
    async with open_broker() as broker:
        tap = Tap()
        broker.wrap = tap.around
        async with broker.client() as client, client.subscribe("demo", qos=0) as messages:
            async with client.open_publisher("demo", qos=0) as publisher:
                await publisher.send(b"plain")
                await publisher.send(b"keyed", key=b"k")
            assert [(await messages.receive()).body for _ in range(2)] == [b"plain", b"keyed"]
    types = [frame.type for frame in tap.sent]
    assert types.count(PUBLISH) == 1
    assert types.count(MESSAGE) == 1


async def test_every_message_has_an_id_of_its_own(autojump_clock: MockClock) -> None:
    async with open_broker() as broker:
        tap = Tap()
        broker.wrap = tap.around
        async with broker.client() as client:
            await client.publish("demo", b"")
            await client.publish("demo", b"", message_id=b"mine")
            async with client.open_publisher("demo") as publisher:
                await publisher.send(b"")
                await publisher.send(b"", ttl=1)
    ids = []
    for frame in tap.sent:
        if frame.type == MESSAGE:
            size = int.from_bytes(frame.payload[7:9], "big")
            properties = parse_message_properties(frame.payload[9 : 9 + size], from_client=True)
            ids.append(properties.message_id)
    assert len(ids) == 4
    assert len(set(ids)) == 4
    assert ids[1] == b"mine"


async def test_after_its_block_a_publisher_is_closed(autojump_clock: MockClock) -> None:
    async with open_broker() as broker, broker.client() as client:
        async with client.open_publisher("demo") as publisher:
            pass
        with pytest.raises(ClientClosed):
            await publisher.send(b"")


async def test_what_cannot_be_sent_is_refused_before(autojump_clock: MockClock) -> None:
    async with open_broker() as broker, broker.client() as client:
        with pytest.raises(ValueError, match="empty topic"):
            client.open_publisher("")
        with pytest.raises(ValueError, match="window"):
            client.open_publisher("demo", window=0)
        async with client.open_publisher("demo") as publisher:
            with pytest.raises(TypeError):
                await publisher.send("text")  # type: ignore[arg-type]
            with pytest.raises(TooLarge):
                await publisher.send(bytes(16 * 1024 * 1024))
            with pytest.raises(ValueError, match="ttl"):
                await publisher.send(b"", ttl=-1)
            assert publisher.sent == 0


async def test_a_full_window_without_a_connection_raises_in_time(
    autojump_clock: MockClock,
) -> None:
    async with (
        open_broker() as broker,
        broker.client(full_window_timeout=3) as client,
        client.open_publisher("demo", window=10) as publisher,
    ):
        broker.reachable = False
        await broker.hang_up()
        await wait_all_tasks_blocked()
        begin = trio.current_time()
        with pytest.raises(WindowFull):
            await fill(publisher)
        assert publisher.sent == 10
        assert trio.current_time() - begin == pytest.approx(3)
        broker.reachable = True


async def test_who_waits_for_room_when_the_connection_goes_is_told(
    autojump_clock: MockClock,
) -> None:
    async with open_broker() as broker:
        taps: list[FaultyStream] = []

        def wrap(stream: trio.abc.Stream) -> trio.abc.Stream:
            taps.append(FaultyStream(stream))
            return taps[-1]

        broker.wrap = wrap
        async with (
            broker.client(full_window_timeout=3) as client,
            client.open_publisher("demo", window=10) as publisher,
        ):
            taps[0].silent = True

            async def break_it() -> None:
                await trio.sleep(1)
                broker.reachable = False
                await broker.hang_up()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(break_it)
                with pytest.raises(WindowFull):
                    await fill(publisher)
            broker.reachable = True


async def test_when_the_connection_is_lost_for_good_the_rest_is_lost(
    autojump_clock: MockClock,
) -> None:
    async with open_broker() as broker, broker.client(reconnect_timeout=10) as client:

        async def publish() -> None:
            async with client.open_publisher("demo") as publisher:
                await publisher.send(b"before")
                await publisher.flush()
                broker.reachable = False
                await broker.hang_up()
                await wait_all_tasks_blocked()
                for _ in range(3):
                    await publisher.send(b"after")

        with pytest.raises(PublisherFailed) as caught:
            await publish()
        assert caught.value.count == 3
        assert caught.value.failures[0][0] == 1
        assert isinstance(caught.value.failures[0][1], ConnectionLost)


async def test_one_confirm_settles_many(autojump_clock: MockClock) -> None:
    received: list[int] = []

    class Counting(Tap):
        async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
            data = await self.inner.receive_some(max_bytes)
            received.append(bytes(data).count(bytes((0, 0, 0, 9, CONFIRM))))
            return data

    async with open_broker() as broker:

        def wrap(stream: trio.abc.Stream) -> trio.abc.Stream:
            counting = Counting()
            counting.inner = stream
            counting.send_all = stream.send_all  # type: ignore[method-assign]
            return counting

        broker.wrap = wrap
        async with broker.client() as client, client.open_publisher("demo") as publisher:
            for _ in range(1000):
                await publisher.send(b"hello")
    assert 1 <= sum(received) < 50


async def test_a_cancelled_send_many_has_sent_what_it_has_counted(mock_clock: MockClock) -> None:
    link = Link("a broker", bytes(8), None, 60)
    publisher = link.publisher("demo", 1, 3, 1 << 20)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(publisher.send_many, [b"hello"] * 10)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert publisher.sent == 3
    assert len(list(Splitter(TYPES_V2).split(link.outbox.drain()))) == 3


@pytest.mark.parametrize("bodies", [BODIES_OF_ONE_SIZE, BODIES_OF_ALL_SIZES, MUTABLE_BODIES])
@pytest.mark.parametrize("window", [1, 3, 64, 4096])
async def test_send_many_sends_each_once_in_order(
    autojump_clock: MockClock, bodies: list[Body], window: int
) -> None:
    async with (
        open_broker() as broker,
        broker.client() as client,
        client.subscribe("demo") as messages,
    ):
        async with client.open_publisher("demo", window=window) as publisher:
            await publisher.send_many(bodies)
            assert publisher.sent == len(bodies)
        assert [(await messages.receive()).body for _ in bodies] == list(map(bytes, bodies))


@pytest.mark.parametrize("bodies", [BODIES_OF_ONE_SIZE, BODIES_OF_ALL_SIZES])
async def test_at_qos_0_too(autojump_clock: MockClock, bodies: list[Body]) -> None:
    async with (
        open_broker() as broker,
        broker.client() as client,
        client.subscribe("demo", qos=0) as messages,
    ):
        async with client.open_publisher("demo", qos=0) as publisher:
            await publisher.send_many(bodies)
        assert [(await messages.receive()).body for _ in bodies] == bodies


async def test_of_send_many_no_more_is_under_way_than_the_window_of_bytes(
    mock_clock: MockClock,
) -> None:
    link = Link("a broker", bytes(8), None, 60)
    publisher = link.publisher("demo", 1, 100, 1000)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(publisher.send_many, [bytes(200)] * 10)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert publisher.sent == 5  # as many as send would have sent
    assert len(link.outbox.drain()) < 1000 + 300


async def test_what_send_many_sent_before_the_connection_was_lost_is_sent_again(
    autojump_clock: MockClock,
) -> None:
    faulty: list[FaultyStream] = []

    def wrap(stream: trio.abc.Stream) -> trio.abc.Stream:
        faulty.append(FaultyStream(stream))
        return faulty[-1]

    async with open_broker() as broker:
        broker.wrap = wrap
        async with (
            broker.client() as client,
            client.subscribe("demo", name="all", prefetch=1000) as messages,
            client.open_publisher("demo") as publisher,
        ):
            faulty[0].silent = True
            await publisher.send_many(BODIES_OF_ONE_SIZE)
            await broker.hang_up()
            await publisher.flush()
            async with await messages.batch(1000, within=1) as batch:
                assert [message.body for message in batch] == BODIES_OF_ONE_SIZE


async def test_send_many_goes_on_when_there_is_room(autojump_clock: MockClock) -> None:
    async with (
        open_broker() as broker,
        broker.client() as client,
        client.subscribe("demo") as messages,
    ):
        async with client.open_publisher("demo", window=3) as publisher:
            await publisher.send_many(b"%d" % number for number in range(100))
        async with await messages.batch(100, within=1) as batch:
            assert [message.body for message in batch] == [b"%d" % n for n in range(100)]


async def test_send_many_lets_others_run(autojump_clock: MockClock) -> None:
    async with open_broker() as broker, broker.client() as client:
        async with client.open_publisher("demo", qos=0) as publisher, trio.open_nursery() as others:
            counts: list[int] = []

            async def watch() -> None:
                while True:
                    await trio.lowlevel.checkpoint()
                    counts.append(publisher.sent)

            others.start_soon(watch)
            await publisher.send_many([b"hello"] * 3000)
            others.cancel_scope.cancel()
        steps = [after - before for before, after in pairwise(counts)]
        assert max(steps) <= 2 * STEPS  # tasks of one round run in any order
        assert len(counts) >= 3000 // (2 * STEPS)


async def test_messages_of_send_many_share_their_options(autojump_clock: MockClock) -> None:
    async with (
        open_broker() as broker,
        broker.client() as client,
        client.subscribe("demo") as messages,
    ):
        async with client.open_publisher("demo") as publisher:
            await publisher.send_many([b"a", b"b"], key=b"same", headers={"h": b"1"})
        found = [await messages.receive() for _ in range(2)]
        assert [(each.body, each.key, each.headers) for each in found] == [
            (b"a", b"same", {"h": b"1"}),
            (b"b", b"same", {"h": b"1"}),
        ]


async def test_who_waited_goes_on_when_a_quarter_of_the_window_is_free(
    mock_clock: MockClock,
) -> None:
    link = Link("a broker", bytes(8), None, 60)
    publisher = link.publisher("demo", 1, 8, 1 << 20)
    await publisher.send_many([b"hello"] * 8)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(publisher.send, b"more")
        await wait_all_tasks_blocked()
        link.unconfirmed.confirm(1)
        await wait_all_tasks_blocked()
        assert publisher.sent == 8
        link.unconfirmed.confirm(2)
        await wait_all_tasks_blocked()
        assert publisher.sent == 9
