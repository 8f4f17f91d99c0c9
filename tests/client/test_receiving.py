"""How messages of version 2 come in, and how fast."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from blipmq import BadRequest, Client, Message
from blipmq.client.push import attachment
from blipmq.client.push.lease import STEPS
from blipmq.protocol.frames import ATTACH, DETACH, POLL
from blipmq.protocol.requests import parse_attach
from blipmq.testing import FaultyStream, open_broker
from tests.client.tap import Tap

pytestmark = pytest.mark.usefixtures("carrier")


async def test_messages_of_a_pattern_have_their_own_topics(autojump_clock: MockClock) -> None:
    async with (
        open_broker() as broker,
        broker.client() as client,
        client.subscribe("orders.*.new") as messages,
    ):
        for topic in ("orders.eu.new", "orders.us.new", "orders.eu.old", "orders.us.new"):
            await client.publish(topic, topic.encode())
        found = [await messages.receive() for _ in range(3)]
        assert [message.topic for message in found] == [
            "orders.eu.new",
            "orders.us.new",
            "orders.us.new",
        ]
        assert all(message.topic.encode() == message.body for message in found)


async def test_a_topic_that_looks_like_a_pattern_can_be_meant(autojump_clock: MockClock) -> None:
    async with (
        open_broker() as broker,
        broker.client() as client,
        client.subscribe("a.*", pattern=False) as messages,
    ):
        await client.publish("a.b", b"other")
        await client.publish("a.*", b"meant")
        assert (await messages.receive()).body == b"meant"


async def test_nothing_is_polled(autojump_clock: MockClock) -> None:
    async with open_broker() as broker:
        tap = Tap()
        broker.wrap = tap.around
        async with broker.client() as client, client.subscribe("demo") as messages:
            with trio.move_on_after(3600):
                await messages.receive()
        types = [frame.type for frame in tap.sent]
        assert POLL not in types
        assert types.count(ATTACH) == types.count(DETACH) == 1


async def test_the_options_of_a_subscription_reach_the_broker(autojump_clock: MockClock) -> None:
    async with open_broker() as broker:
        tap = Tap()
        broker.wrap = tap.around
        async with (
            broker.client() as client,
            client.subscribe("demo.>", name="n", prefetch=7, ack_wait=1.5, max_attempts=9),
        ):
            pass
    (frame,) = [frame for frame in tap.sent if frame.type == ATTACH]
    topic, qos, properties = parse_attach(frame.payload)
    assert (topic, qos, properties.name, properties.prefetch) == (b"demo.>", 1, b"n", 7)
    assert (properties.ack_wait_ms, properties.max_attempts) == (1500, 9)
    assert properties.pattern


async def test_no_more_than_the_prefetch_waits(autojump_clock: MockClock) -> None:
    async with (
        open_broker() as broker,
        broker.client() as client,
        client.subscribe("demo", prefetch=5) as messages,
    ):
        for number in range(20):
            await client.publish("demo", b"%d" % number)
        await wait_all_tasks_blocked()
        assert broker.stats.inflight == 5
        for number in range(20):
            async with await messages.receive() as message:
                assert message.body == b"%d" % number


async def test_attaching_with_other_settings_is_refused(autojump_clock: MockClock) -> None:
    async with (
        open_broker() as broker,
        broker.client() as client,
        client.subscribe("demo", name="work", ack_wait=1),
    ):
        with pytest.raises(BadRequest, match="subscription exists with other settings"):
            async with client.subscribe("demo", name="work", ack_wait=2):
                pytest.fail("entered")


async def test_members_of_a_subscription_share_its_messages(autojump_clock: MockClock) -> None:
    received: dict[str, list[bytes]] = {"a": [], "b": []}
    done = trio.Event()

    async def consume(client: Client, name: str) -> None:
        async with client.subscribe("demo", name="work", prefetch=2) as messages:
            async for message in messages:
                async with message:
                    await trio.sleep(0.1)
                    received[name].append(message.body)
                if sum(map(len, received.values())) == 40:
                    done.set()

    async with (
        open_broker() as broker,
        broker.client() as one,
        broker.client() as other,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(consume, one, "a")
        nursery.start_soon(consume, other, "b")
        await wait_all_tasks_blocked()
        for number in range(40):
            await one.publish("demo", b"%d" % number)
        await done.wait()
        nursery.cancel_scope.cancel()
    assert sorted(received["a"] + received["b"], key=int) == [b"%d" % n for n in range(40)]
    assert min(map(len, received.values())) > 10


async def test_all_properties_arrive(autojump_clock: MockClock) -> None:
    async with open_broker() as broker, broker.client() as client, client.subscribe("demo") as m:
        await client.publish(
            "demo",
            b"body",
            ttl=60,
            message_id=b"id",
            key=b"key",
            reply_to="there",
            content_type="text/plain",
            trace_context="00-1-2-00",
            headers={"a": b"1", "b": b""},
            timestamp=1700000000.5,
        )
        message: Message = await m.receive()
        assert (message.body, message.message_id, message.key) == (b"body", b"id", b"key")
        assert (message.reply_to, message.content_type) == ("there", "text/plain")
        assert (message.trace_context, message.timestamp) == ("00-1-2-00", 1700000000.5)
        assert message.headers == {"a": b"1", "b": b""}
        assert message.properties.ttl_ms == 60_000


async def test_a_quick_consumer_is_not_scheduled_for_each_message(
    autojump_clock: MockClock,
) -> None:
    class Steps(trio.abc.Instrument):
        def __init__(self) -> None:
            self.task = trio.lowlevel.current_task()
            self.count = 0

        def after_task_step(self, task: trio.lowlevel.Task) -> None:
            self.count += task is self.task

    async with (
        open_broker() as broker,
        broker.client() as client,
        client.subscribe("demo", prefetch=1000) as messages,
    ):
        async with client.open_publisher("demo") as publisher:
            for _ in range(1000):
                await publisher.send(b"hello")
        await wait_all_tasks_blocked()
        steps = Steps()
        trio.lowlevel.add_instrument(steps)
        for _ in range(1000):
            async with await messages.receive():
                pass
        trio.lowlevel.remove_instrument(steps)
    assert 2 * (1000 // STEPS) <= steps.count <= 60


async def test_a_consumer_of_qos_0_that_goes_on_taking_is_waited_for(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attachment, "HIGH_WATER_BYTES", 10_000)
    monkeypatch.setattr(attachment, "LIMIT_BYTES", 50_000)
    faults: list[FaultyStream] = []

    def wrap(stream: trio.abc.Stream) -> trio.abc.Stream:
        faults.append(FaultyStream(stream, part_bytes=4096))
        return faults[-1]

    async with open_broker() as broker, broker.client() as publisher:
        broker.wrap = wrap
        async with broker.client() as client, client.subscribe("demo", qos=0) as messages:
            for number in range(1000):
                await publisher.publish("demo", b"%4d" % number + bytes(996), qos=0)
            for number in range(1000):
                message = await messages.receive()
                assert message.body[:4] == b"%4d" % number
                await trio.sleep(0.001)
            assert messages.dropped == 0


async def test_one_that_does_not_loses_the_oldest_and_holds_up_nobody(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attachment, "HIGH_WATER_BYTES", 10_000)
    monkeypatch.setattr(attachment, "LIMIT_BYTES", 50_000)
    async with (
        open_broker() as broker,
        broker.client() as publisher,
        broker.client() as client,
        client.subscribe("demo", qos=0) as messages,
    ):
        for number in range(1000):
            await publisher.publish("demo", b"%4d" % number + bytes(996), qos=0)
            await publisher.ping()
        begin = trio.current_time()
        await client.publish("other", b"confirmed all the same")
        assert trio.current_time() - begin < 1
        received = 0
        with trio.move_on_after(1):
            while True:
                last = await messages.receive()
                received += 1
        assert last.body[:4] == b" 999"
        assert received + messages.dropped == 1000
        assert 40 <= received <= 51
