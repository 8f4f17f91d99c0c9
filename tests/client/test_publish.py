from __future__ import annotations

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from blipmq import BadRequest, Client, ConnectionLost, PublishFailed, TooLarge, Unavailable
from blipmq.protocol import encoder
from blipmq.protocol.frames import LENGTH_MAX_PUBLISH, PING, PUBLISH
from tests.client.fake_broker import FakeBroker, connected
from tests.client.streams import Stalled


async def test_a_qos_1_publish_returns_when_the_message_is_committed(
    nursery: trio.Nursery,
) -> None:
    broker = FakeBroker()
    async with connected(broker, nursery) as client:
        broker.commits = trio.Event()
        returned = trio.Event()

        async def publish() -> None:
            await client.publish("demo", b"hello", qos=1)
            returned.set()

        nursery.start_soon(publish)
        await wait_all_tasks_blocked()
        assert not returned.is_set()
        assert broker.count(PUBLISH) == 1
        broker.commits.set()
        await returned.wait()
        assert broker.bodies() == [b"hello"]


async def test_the_publish_that_was_refused_raises_and_no_other(nursery: trio.Nursery) -> None:
    broker = FakeBroker()
    broker.refuse[b"2"] = (500, "durable publish failed: disk full")
    broker.refuse[b"3"] = (503, "draining")
    raised: dict[bytes, Exception] = {}

    async def publish(client: Client, body: bytes) -> None:
        try:
            await client.publish("demo", body)
        except (PublishFailed, Unavailable) as error:
            raised[body] = error

    async with connected(broker, nursery) as client:
        async with trio.open_nursery() as publishers:
            for body in (b"0", b"1", b"2", b"3", b"4"):
                publishers.start_soon(publish, client, body)
        assert set(raised) == {b"2", b"3"}
        failed, draining = raised[b"2"], raised[b"3"]
        assert isinstance(failed, PublishFailed)
        assert (failed.code, failed.message) == (500, "durable publish failed: disk full")
        assert isinstance(draining, Unavailable)
        assert sorted(broker.bodies()) == [b"0", b"1", b"4"]
        assert client.refusals.publishes == 0
        await client.publish("demo", b"5")


async def test_publishes_that_wait_together_share_barriers(nursery: trio.Nursery) -> None:
    broker = FakeBroker()
    async with connected(broker, nursery) as client:
        async with trio.open_nursery() as publishers:
            for number in range(1000):
                publishers.start_soon(client.publish, "demo", b"%d" % number)
        assert len(broker.committed) == 1000
        assert broker.count(PING) <= 3


async def test_a_publish_behind_a_barrier_is_not_confirmed_by_it(nursery: trio.Nursery) -> None:
    broker = FakeBroker()
    confirmed: list[tuple[bytes, int]] = []

    async def publish(body: bytes) -> None:
        await client.publish("demo", body)
        confirmed.append((body, broker.bodies().count(body)))

    async with connected(broker, nursery) as client, trio.open_nursery() as publishers:
        for number in range(200):
            publishers.start_soon(publish, b"%d" % number)
            if number % 7 == 0:
                await trio.lowlevel.checkpoint()
    assert len(confirmed) == 200
    assert {count for _, count in confirmed} == {1}


async def test_messages_of_one_task_arrive_in_order(nursery: trio.Nursery) -> None:
    broker = FakeBroker()
    async with connected(broker, nursery) as client:
        for number in range(20):
            await client.publish("demo", b"%d" % number, qos=number % 2)
    assert sorted(m.tag for m in broker.committed) == list(range(1, 21))
    assert [m.body for m in sorted(broker.committed, key=lambda m: m.tag)] == [
        b"%d" % number for number in range(20)
    ]


async def test_a_qos_0_publish_waits_for_no_answer(nursery: trio.Nursery) -> None:
    broker = FakeBroker()
    async with connected(broker, nursery) as client:
        broker.commits = trio.Event()
        await client.publish("demo", b"hello", qos=0)
        await wait_all_tasks_blocked()
        assert broker.bodies() == [b"hello"]
        assert broker.count(PING) == 0
        broker.commits.set()


async def test_a_refused_qos_0_publish_is_counted(
    nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    broker = FakeBroker()
    broker.refuse[b"demo"] = (503, "backlog full")
    async with connected(broker, nursery) as client:
        await client.publish("demo", b"hello", qos=0)
        await client.ping()
        assert client.refusals.publishes == 1
        assert isinstance(client.refusals.last, Unavailable)
        assert "publish refused: backlog full (code 503)" in caplog.text


@pytest.mark.parametrize("answered", ["before", "after"])
async def test_the_refusal_of_a_cancelled_publish_is_counted(
    nursery: trio.Nursery, answered: str
) -> None:
    broker = FakeBroker()
    broker.refuse[b"hello"] = (500, "durable publish failed: disk full")
    async with connected(broker, nursery) as client:
        broker.commits = trio.Event()
        with trio.CancelScope() as scope:
            nursery.start_soon(cancel_when_blocked, scope, broker, answered)
            await client.publish("demo", b"hello")
        assert scope.cancelled_caught
        broker.commits.set()
        await client.ping()
        assert client.refusals.publishes == 1


async def cancel_when_blocked(scope: trio.CancelScope, broker: FakeBroker, answered: str) -> None:
    await wait_all_tasks_blocked()
    if answered == "before":
        broker.answer = lambda frame: b"" if frame.type == PING else None
        broker.commits.set()
        await wait_all_tasks_blocked()
        broker.answer = lambda _: None
    scope.cancel()


@pytest.mark.parametrize("qos", [0, 1])
async def test_a_publish_waits_for_room_while_nothing_can_be_sent(
    nursery: trio.Nursery, qos: int
) -> None:
    broker, stalled = FakeBroker(), []

    def wrap(stream: trio.abc.Stream) -> trio.abc.Stream:
        stalled.append(Stalled(stream))
        stalled[0].flowing.set()
        return stalled[0]

    async with connected(broker, nursery, wrap) as client:
        stalled[0].flowing = trio.Event()
        body, begun = bytes(300_000), []

        async def publish() -> None:
            for number in range(10):
                begun.append(number)
                await client.publish("demo", body, qos=0)

        async with trio.open_nursery() as publishers:
            publishers.start_soon(publish)
            publishers.start_soon(publish)
            await wait_all_tasks_blocked()
            assert len(begun) < 20
            with trio.CancelScope() as scope:
                publishers.start_soon(cancel, scope)
                await client.publish("demo", b"cancelled", qos=qos)
            assert scope.cancelled_caught
            stalled[0].flowing.set()
        await client.ping()
        assert broker.bodies() == [body] * 20


async def test_who_waits_for_room_when_the_connection_is_lost_is_told(
    nursery: trio.Nursery,
) -> None:
    broker, stalled, lost = FakeBroker(), [], []

    def wrap(stream: trio.abc.Stream) -> trio.abc.Stream:
        stalled.append(Stalled(stream))
        stalled[0].flowing.set()
        return stalled[0]

    async def publish(client: Client) -> None:
        try:
            for _ in range(10):
                await client.publish("demo", bytes(300_000), qos=0)
        except ConnectionLost as error:
            lost.append(error)

    async def use() -> None:
        async with connected(broker, nursery, wrap) as client:
            stalled[0].flowing = trio.Event()
            async with trio.open_nursery() as publishers:
                publishers.start_soon(publish, client)
                publishers.start_soon(publish, client)
                await wait_all_tasks_blocked()
                assert not lost
                await broker.hang_up()

    with pytest.raises(ConnectionLost, match="may not have reached fake"):
        await use()
    assert len(lost) == 2


async def test_a_nack_after_the_commit_is_counted(nursery: trio.Nursery) -> None:
    broker = FakeBroker()
    async with connected(broker, nursery) as client:
        await client.publish("demo", b"hello")
        (published,) = (frame for frame in broker.seen if frame.type == PUBLISH)
        await broker.say(encoder.nack(published.correlation_id, 500, "too late"))
        await client.ping()
        assert client.refusals.publishes == 1


async def cancel(scope: trio.CancelScope) -> None:
    await wait_all_tasks_blocked()
    scope.cancel()


async def test_what_cannot_be_published_is_refused_before_it_is_sent(
    nursery: trio.Nursery,
) -> None:
    broker = FakeBroker()
    async with connected(broker, nursery) as client:
        with pytest.raises(ValueError, match="empty topic"):
            await client.publish("", b"")
        with pytest.raises(ValueError, match="65536 bytes"):
            await client.publish("t" * 65_536, b"")
        with pytest.raises(ValueError, match="half of a surrogate pair in the topic"):
            await client.publish("a\udc80", b"")
        with pytest.raises(ValueError, match="invalid QoS value 2"):
            await client.publish("t", b"", qos=2)
        with pytest.raises(TypeError, match="a body is bytes, not str"):
            await client.publish("t", "text")  # type: ignore[arg-type]
        largest = LENGTH_MAX_PUBLISH - 9 - 3 - 1
        with pytest.raises(TooLarge):
            await client.publish("t", bytes(largest + 1))
        assert broker.count(PUBLISH) == 0
        await client.publish("t", bytes(largest))
        await client.publish("t" * 65_535, b"")
        await client.publish("t", bytearray(b"x"))
        await client.publish("t", memoryview(b"x"))
        assert broker.count(PUBLISH) == 4


async def test_a_malformed_publish_that_the_broker_refuses_raises_its_code(
    nursery: trio.Nursery,
) -> None:
    broker = FakeBroker()
    broker.refuse[b"demo"] = (400, "invalid PUBLISH payload")
    async with connected(broker, nursery) as client:
        with pytest.raises(BadRequest, match="invalid PUBLISH payload"):
            await client.publish("demo", b"")


async def test_publishes_that_wait_when_the_connection_is_lost_raise(
    nursery: trio.Nursery,
) -> None:
    broker, lost = FakeBroker(), []

    async def publish(client: Client) -> None:
        try:
            await client.publish("demo", b"hello")
        except ConnectionLost as error:
            lost.append(error)

    async with connected(broker, nursery) as client:
        broker.commits = trio.Event()
        async with trio.open_nursery() as publishers:
            for _ in range(3):
                publishers.start_soon(publish, client)
            await wait_all_tasks_blocked()
            await broker.hang_up()
        for qos in (0, 1):
            with pytest.raises(ConnectionLost, match="closed the connection"):
                await client.publish("demo", b"hello", qos=qos)
    assert len({id(error) for error in lost}) == 3
