from __future__ import annotations

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
from blipmq.protocol.frames import CONFIRM, MESSAGE, PUBLISH
from blipmq.protocol.properties import parse_message_properties
from blipmq.testing import FaultyStream, open_broker
from tests.client.tap import Tap

pytestmark = pytest.mark.usefixtures("carrier")


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
