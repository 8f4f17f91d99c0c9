"""A connection of version 2 that is lost is replaced, and nothing with it."""

from __future__ import annotations

import itertools
import math

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from blipmq import (
    AuthenticationFailed,
    Client,
    ClientClosed,
    ConnectionLost,
    State,
    SubscriptionEnded,
    WindowFull,
    open_client,
)
from blipmq.auth import KeyRing
from blipmq.client.backoff import Backoff
from blipmq.client.url import Address
from blipmq.protocol import encoder
from blipmq.protocol.frames import ATTACH, PING
from blipmq.testing import FaultyStream, InProcessBroker, open_broker
from tests.client.tap import Tap


async def bodies(client: Client, count: int, topic: str = "demo") -> list[bytes]:
    async with client.subscribe(topic, name="work") as messages:
        found = []
        for _ in range(count):
            async with await messages.receive() as message:
                found.append(message.body)
        return found


async def test_a_subscription_goes_on_where_it_was(autojump_clock: MockClock) -> None:
    async with (
        open_broker() as broker,
        broker.client() as client,
        client.subscribe("demo", name="work") as messages,
    ):
        for number in range(10):
            await client.publish("demo", b"%d" % number)
            await broker.hang_up()
            async with await messages.receive() as message:
                assert message.body == b"%d" % number


async def test_what_waited_to_be_handed_over_comes_again(autojump_clock: MockClock) -> None:
    async with (
        open_broker() as broker,
        broker.client() as client,
        client.subscribe("demo", name="work") as messages,
    ):
        for number in range(5):
            await client.publish("demo", b"%d" % number)
        await wait_all_tasks_blocked()
        await broker.hang_up()
        await wait_all_tasks_blocked()
        found = [await messages.receive() for _ in range(5)]
        assert sorted(message.body for message in found) == [b"%d" % n for n in range(5)]


async def test_settling_a_message_of_a_lost_connection_is_counted_and_does_nothing(
    autojump_clock: MockClock,
) -> None:
    async with (
        open_broker() as broker,
        broker.client() as client,
        client.subscribe("demo", name="work") as messages,
    ):
        await client.publish("demo", b"hello")
        first = await messages.receive()
        await broker.hang_up()
        await wait_all_tasks_blocked()
        await first.accept()
        assert client.refusals.stale == 1
        again = await messages.receive()
        assert (again.body, again.tag) == (b"hello", first.tag)
        assert again.attempt == 2
        await again.accept()


async def test_an_unnamed_subscription_is_attached_anew(autojump_clock: MockClock) -> None:
    async with (
        open_broker() as broker,
        broker.client() as client,
        broker.client() as other,
        client.subscribe("demo.*") as messages,
    ):
        await broker.hang_up()
        await wait_all_tasks_blocked()
        await other.publish("demo.a", b"hello")
        assert (await messages.receive()).body == b"hello"


@pytest.mark.parametrize("lost_after", range(0, 120, 7))
async def test_publishes_are_made_once_wherever_the_connection_breaks(
    autojump_clock: MockClock, lost_after: int
) -> None:
    faults = iter([lost_after])

    def wrap(stream: trio.abc.Stream) -> trio.abc.Stream:
        after = next(faults, None)
        return FaultyStream(stream, cut_sent=None if after is None else 60 + 7 * after)

    async with open_broker() as broker, broker.client() as consumer:
        broker.wrap = wrap
        async with consumer.subscribe("demo", name="work") as messages:
            async with broker.client() as client, client.open_publisher("demo") as publisher:
                for number in range(20):
                    await publisher.send(b"%d" % number)
            found = []
            for _ in range(20):
                async with await messages.receive() as message:
                    found.append(message.body)
            assert found == [b"%d" % number for number in range(20)]
            with trio.move_on_after(100) as scope:
                await messages.receive()
            assert scope.cancelled_caught


@pytest.mark.parametrize("lost_after", range(0, 60, 3))
async def test_they_are_so_wherever_its_answers_are_lost(
    autojump_clock: MockClock, lost_after: int
) -> None:
    faults = iter([lost_after])

    def wrap(stream: trio.abc.Stream) -> trio.abc.Stream:
        after = next(faults, None)
        return FaultyStream(stream, cut_received=None if after is None else 230 + after)

    async with (
        open_broker() as broker,
        broker.client() as consumer,
        consumer.subscribe("demo", name="work") as messages,
    ):
        broker.wrap = wrap
        async with broker.client() as client:
            for number in range(5):
                await client.publish("demo", b"%d" % number)
        found = []
        for _ in range(5):
            async with await messages.receive() as message:
                found.append(message.body)
        assert found == [b"%d" % number for number in range(5)]
        with trio.move_on_after(100) as scope:
            await messages.receive()
        assert scope.cancelled_caught


async def test_what_is_published_while_it_is_down_is_sent_when_it_is_back(
    autojump_clock: MockClock,
) -> None:
    async with open_broker() as broker, broker.client() as client, broker.client() as consumer:
        broker.reachable = False
        await broker.hang_up()
        await wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:
            for number in range(3):
                nursery.start_soon(client.publish, "demo", b"%d" % number)
                await wait_all_tasks_blocked()
            await client.publish("demo", b"qos 0", qos=0)
            await trio.sleep(5)
            broker.reachable = True
        assert await bodies(consumer, 3) == [b"0", b"1", b"2"]


async def test_it_tries_ever_more_slowly(autojump_clock: MockClock) -> None:
    attempts: list[float] = []

    async with open_broker() as broker:

        async def connect(address: Address) -> trio.abc.Stream:
            attempts.append(trio.current_time())
            return await broker.connect(address)

        async with open_client(
            "blipmq://host",
            api_key=broker.api_key,
            connect=connect,
            entropy=lambda size: b"\xff" * size,
            reconnect_timeout=60,
        ) as client:
            broker.reachable = False
            await broker.hang_up()
            begin = trio.current_time()
            with pytest.raises(ConnectionLost, match="not connected again within 60 seconds: "):
                await client.publish("demo", b"hello")
            assert trio.current_time() - begin == pytest.approx(60)
            assert client.state is State.LOST
    waits = [later - earlier for earlier, later in itertools.pairwise(attempts[1:])]
    assert waits[:6] == pytest.approx([0.2, 0.4, 0.8, 1.6, 3.2, 5])
    assert max(waits) == pytest.approx(5)


async def test_the_wait_is_jittered(autojump_clock: MockClock) -> None:
    half = Backoff(lambda size: b"\x80" + bytes(size - 1))
    assert [half.next() for _ in range(3)] == [0.05, 0.1, 0.2]


async def test_when_it_is_lost_for_good_every_call_says_so(autojump_clock: MockClock) -> None:
    async with (
        open_broker() as broker,
        broker.client(reconnect_timeout=1) as client,
        client.subscribe("demo", name="work") as messages,
    ):
        broker.reachable = False
        await broker.hang_up()
        with pytest.raises(ConnectionLost):
            await messages.receive()
        with pytest.raises(ConnectionLost):
            await client.ping()
        with pytest.raises(ConnectionLost):
            await client.publish("demo", b"")
        with pytest.raises(ConnectionLost):
            await client.request("demo", b"", timeout=10)
        with pytest.raises(ConnectionLost):
            async with client.subscribe("other"):
                pytest.fail("entered")


async def test_without_reconnecting_it_is_lost_at_once(autojump_clock: MockClock) -> None:
    async with open_broker() as broker, broker.client(reconnect=False) as client:
        await broker.hang_up()
        await wait_all_tasks_blocked()
        with pytest.raises(ConnectionLost):
            await client.publish("demo", b"")
        assert trio.current_time() == 0


async def test_a_key_that_was_withdrawn_ends_it(autojump_clock: MockClock) -> None:
    async with open_broker() as broker, broker.client(reconnect_timeout=math.inf) as client:
        broker._state.keys = KeyRing(["other"])
        await broker.hang_up()
        with pytest.raises(ConnectionLost, match="invalid API key") as caught:
            await client.publish("demo", b"")
        assert isinstance(caught.value.__cause__, AuthenticationFailed)


async def test_calls_wait_while_it_is_down_and_can_be_cancelled(autojump_clock: MockClock) -> None:
    async with open_broker() as broker, broker.client() as client:
        broker.reachable = False
        await broker.hang_up()
        await wait_all_tasks_blocked()

        async def subscribe() -> None:
            async with client.subscribe("demo", name="work"):
                pytest.fail("attached")

        for call in (client.ping, subscribe):
            with trio.move_on_after(1) as scope:
                await call()
            assert scope.cancelled_caught
        broker.reachable = True
        await client.ping()
        assert broker.stats.connections == 1


async def test_a_subscription_that_is_left_while_it_is_down_is_not_attached_again(
    autojump_clock: MockClock,
) -> None:
    async with open_broker() as broker:
        tap = Tap()
        broker.wrap = tap.around
        async with broker.client() as client:
            async with client.subscribe("demo", name="work"):
                broker.reachable = False
                await broker.hang_up()
                await wait_all_tasks_blocked()
            broker.reachable = True
            await client.ping()
        assert [frame.type for frame in tap.sent].count(ATTACH) == 1


async def test_the_states_can_be_watched(autojump_clock: MockClock) -> None:
    seen: list[State] = []

    async def watch(client: Client) -> None:
        async for state in client.states():
            seen.append(state)

    async with open_broker() as broker, trio.open_nursery() as nursery, broker.client() as client:
        nursery.start_soon(watch, client)
        await wait_all_tasks_blocked()
        await broker.hang_up()
        await client.ping()
        assert client.state is State.CONNECTED
    assert seen == [State.CONNECTED, State.RECONNECTING, State.CONNECTED, State.CLOSED]


async def test_a_silent_connection_is_found_out_and_replaced(autojump_clock: MockClock) -> None:
    streams: list[FaultyStream] = []

    def wrap(stream: trio.abc.Stream) -> trio.abc.Stream:
        streams.append(FaultyStream(stream))
        return streams[-1]

    async with open_broker() as broker:
        broker.wrap = wrap
        async with broker.client() as client:
            await wait_all_tasks_blocked()
            begin = trio.current_time()
            streams[0].silent = True
            await client.publish("demo", b"hello")
            assert len(streams) == 2
            assert 30 <= trio.current_time() - begin <= 61


async def test_an_idle_client_says_now_and_then_that_it_is_alive(
    autojump_clock: MockClock,
) -> None:
    async with open_broker() as broker:
        tap = Tap()
        broker.wrap = tap.around
        async with broker.client() as client:
            await trio.sleep(301)
            assert client.state is State.CONNECTED
            pings = [frame.type for frame in tap.sent].count(PING)
            assert 9 <= pings <= 11


async def test_a_broker_that_shuts_down_is_finished_with_and_the_next_one_used(
    autojump_clock: MockClock,
) -> None:
    async with open_broker() as first, open_broker() as second:
        brokers = {"first": first, "second": second}

        async def connect(address: Address) -> trio.abc.Stream:
            return await brokers[address.host].connect(address)

        opening = open_client(
            ["blipmq://first", "blipmq://second"], api_key=first.api_key, connect=connect
        )
        async with opening as client, client.subscribe("demo", name="work") as messages:
            for number in range(3):
                await client.publish("demo", b"%d" % number)
            message = await messages.receive()
            states = [client.state]
            async with trio.open_nursery() as nursery:
                nursery.start_soon(first.drain)
                await wait_all_tasks_blocked()
                states.append(client.state)
                nursery.start_soon(client.publish, "demo", b"to the second")
                await trio.sleep(0.5)
                await message.accept()
            states.append(client.state)
            assert states == [State.CONNECTED, State.DRAINING, State.CONNECTED]
            assert second.connections == 1
            assert first.stats.inflight == 0
            async with await messages.receive() as other:
                assert other.body == b"to the second"
        assert client.refusals.stale == 0


class LastWords(FaultyStream):
    """At its `end` the broker says that it shuts down, and hangs up in the same moment."""

    def __init__(self, inner: trio.abc.Stream) -> None:
        super().__init__(inner)
        self.end = trio.CancelScope()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        if self.end.cancelled_caught:
            await trio.lowlevel.checkpoint()
            return b""
        self.end = trio.CancelScope()
        with self.end:
            return await self.inner.receive_some(max_bytes)
        return encoder.info({"draining": True})


async def test_a_broker_that_is_gone_as_soon_as_it_shuts_down_is_replaced(
    autojump_clock: MockClock,
) -> None:
    for _ in range(20):  # which task is first is left to chance
        async with open_broker() as broker:
            streams: list[LastWords] = []

            def wrap(stream: trio.abc.Stream, streams: list[LastWords] = streams) -> LastWords:
                streams.append(LastWords(stream))
                return streams[-1]

            broker.wrap = wrap
            async with broker.client() as client:
                await wait_all_tasks_blocked()
                streams[0].end.cancel()
                await wait_all_tasks_blocked()
                await client.publish("demo", b"hello")
            assert len(streams) == 2


class Fades(LastWords):
    """At its `end` the broker says that it shuts down, and nothing more."""

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        if self.end.cancelled_caught:
            await trio.sleep_forever()
        return await super().receive_some(max_bytes)


async def test_a_client_that_is_left_while_its_broker_shuts_down_is_closed_quietly(
    autojump_clock: MockClock,
) -> None:
    async with open_broker() as broker:
        streams: list[Fades] = []

        def wrap(stream: trio.abc.Stream) -> Fades:
            streams.append(Fades(stream))
            return streams[-1]

        broker.wrap = wrap
        async with broker.client() as client:
            await wait_all_tasks_blocked()
            streams[0].end.cancel()
            await wait_all_tasks_blocked()
            assert client.state is State.DRAINING


async def test_publishes_that_cross_the_shutdown_are_published_by_the_next_one(
    autojump_clock: MockClock,
) -> None:
    async with open_broker() as first, open_broker() as second:
        brokers = {"first": first, "second": second}
        cut: list[FaultyStream] = []

        async def connect(address: Address) -> trio.abc.Stream:
            cut.append(FaultyStream(await brokers[address.host].connect(address)))
            return cut[-1]

        opening = open_client(
            ["blipmq://first", "blipmq://second"], api_key=first.api_key, connect=connect
        )
        async with opening as client:
            cut[0].delay = 1  # so that the publish meets a broker which drains
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.publish, "demo", b"hello")
                await wait_all_tasks_blocked()
                nursery.start_soon(first.drain)
        async with second.client() as client:
            assert await bodies(client, 1) == [b"hello"]


async def test_the_next_of_several_urls_is_used_when_one_cannot_be_reached(
    autojump_clock: MockClock,
) -> None:
    async with open_broker() as broker:

        async def connect(address: Address) -> trio.abc.Stream:
            if address.host != "good":
                raise OSError(f"no {address.host}")
            return await broker.connect(address)

        async with open_client(
            ["blipmq://bad", "blipmq://good"], api_key=broker.api_key, connect=connect
        ) as client:
            await client.ping()
        with pytest.raises(ConnectionLost, match="no bad; cannot connect to worse:5555: no worse"):
            async with open_client(
                ["blipmq://bad", "blipmq://worse"], api_key=broker.api_key, connect=connect
            ):
                pytest.fail("connected")


async def test_a_broker_that_speaks_an_older_version_by_now_is_not_used(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_broker() as broker, broker.client(reconnect_timeout=5) as client:
        monkeypatch.setattr("blipmq.broker.session.VERSIONS", (1,))
        await broker.hang_up()
        await wait_all_tasks_blocked()
        with pytest.raises(ConnectionLost, match="unsupported protocol version"):
            await client.ping()


async def test_after_the_block_calls_that_waited_for_a_connection_end(
    autojump_clock: MockClock,
) -> None:
    ended: list[BaseException] = []

    async def call(client: Client) -> None:
        try:
            await client.ping()
        except (ClientClosed, ConnectionLost) as error:
            ended.append(error)

    async with open_broker() as broker, trio.open_nursery() as nursery, broker.client() as client:
        broker.reachable = False
        await broker.hang_up()
        await wait_all_tasks_blocked()
        nursery.start_soon(call, client)
        await wait_all_tasks_blocked()
    assert [type(error) for error in ended] == [ClientClosed]
    with pytest.raises(ClientClosed):
        await client.request("demo", b"", timeout=1)


async def test_leaving_while_it_is_down_says_what_is_in_doubt(autojump_clock: MockClock) -> None:
    async with open_broker() as broker:

        async def use() -> None:
            async with broker.client() as client:
                broker.reachable = False
                await broker.hang_up()
                await wait_all_tasks_blocked()
                with trio.move_on_after(1):
                    await client.publish("demo", b"hello")

        with pytest.raises(ConnectionLost, match="may not have reached"):
            await use()


async def test_qos_0_fills_the_window_too(autojump_clock: MockClock) -> None:
    async with open_broker() as broker, broker.client(full_window_timeout=1) as client:
        broker.reachable = False
        await broker.hang_up()
        await wait_all_tasks_blocked()

        async def fill() -> None:
            while True:
                await client.publish("demo", bytes(100_000), qos=0)

        with pytest.raises(WindowFull):
            await fill()
        broker.reachable = True


@pytest.mark.parametrize(
    ("unasked", "text"),
    [
        (bytes(4), "a frame of length 0"),
        (encoder.frame(0x11, 1, bytes(3)), None),
        (encoder.frame(0x10, 0, b"{"), "an INFO that is no JSON"),
        (encoder.frame(0x17, 1), "unknown type"),
        (encoder.publish(1, 1, b"demo", b""), "a PUBLISH"),
    ],
)
async def test_a_broker_that_breaks_the_protocol_is_left(
    autojump_clock: MockClock, unasked: bytes, text: str | None
) -> None:
    async with open_broker() as broker, broker.client(reconnect=False) as client:
        (stream,) = broker._streams
        await stream.send_all(unasked)
        await wait_all_tasks_blocked()
        if text is None:
            await client.ping()  # a DELIVER for nobody is the rest of an attachment
            return
        with pytest.raises(ConnectionLost, match=text):
            await client.ping()


async def test_an_inner_frame_that_is_malformed_ends_the_connection(
    autojump_clock: MockClock,
) -> None:
    async with (
        open_broker() as broker,
        broker.client(reconnect=False) as client,
        client.subscribe("demo", qos=0) as messages,
    ):
        assert messages._source.lease is not None  # type: ignore[attr-defined]
        id_ = messages._source.lease.id  # type: ignore[attr-defined]
        (stream,) = broker._streams
        await stream.send_all(encoder.deliver_head(id_, 20) + bytes(20))
        with pytest.raises(ConnectionLost, match="a malformed inner frame"):
            await messages.receive()


async def test_a_deleted_subscription_ends_for_its_members(autojump_clock: MockClock) -> None:
    async with (
        open_broker() as broker,
        broker.client() as client,
        broker.client() as other,
        client.subscribe("demo", name="work") as messages,
    ):
        await other.delete_subscription("demo", "work")
        with pytest.raises(SubscriptionEnded):
            await messages.receive()


class Interrupted(FaultyStream):
    """A stream in whose reader Ctrl-C arrives, once `pressed` is set."""

    pressed = False

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        if self.pressed:
            raise KeyboardInterrupt
        return await super().receive_some(max_bytes)


async def test_ctrl_c_in_a_task_of_the_client_comes_out_as_itself(
    autojump_clock: MockClock,
) -> None:
    streams: list[Interrupted] = []

    def wrap(stream: trio.abc.Stream) -> trio.abc.Stream:
        streams.append(Interrupted(stream))
        return streams[-1]

    async def use(broker: InProcessBroker) -> None:
        async with broker.client() as client:
            await wait_all_tasks_blocked()
            streams[0].pressed = True
            await client.ping()  # its answer takes the reader to where it is interrupted
            await trio.sleep_forever()

    async with open_broker() as broker:
        broker.wrap = wrap
        with pytest.raises(KeyboardInterrupt):
            await use(broker)
