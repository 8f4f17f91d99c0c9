from __future__ import annotations

from functools import partial

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from blipmq import BadRequest, ClientClosed, ConnectionLost, LimitExceeded, Message, Subscription
from blipmq.protocol import encoder
from blipmq.protocol.frames import ACK, POLL, SUBSCRIBE
from tests.client.fake_broker import FakeBroker, connected
from tests.client.streams import Stalled


async def receive(subscription: Subscription, count: int) -> list[bytes]:
    """The bodies of so many messages, each accepted."""
    bodies = []
    for _ in range(count):
        message = await subscription.receive()
        await message.accept()
        bodies.append(message.body)
    return bodies


async def test_messages_come_in_order_and_accepted_ones_are_settled(
    nursery: trio.Nursery,
    autojump_clock: MockClock,
) -> None:
    broker = FakeBroker()
    sent = [b"%d" % number for number in range(300)]
    async with connected(broker, nursery) as client, client.subscribe("demo", qos=1) as messages:
        broker.put(b"demo", *sent)
        received = []
        async for message in messages:
            await message.accept()
            received.append(message.body)
            if len(received) == len(sent):
                break
        assert received == sent
    assert broker.accepted() == list(range(1, 301))


async def test_a_message_carries_its_topic_qos_and_tag(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    broker = FakeBroker()
    async with connected(broker, nursery) as client, client.subscribe("dé", qos=1) as messages:
        broker.put("dé".encode(), b"durable", qos=1)
        broker.put("dé".encode(), b"", qos=0)
        first, second = await messages.receive(), await messages.receive()
    assert (first.body, first.topic, first.qos, first.tag) == (b"durable", "dé", 1, 1)
    assert (second.body, second.topic, second.qos, second.tag) == (b"", "dé", 0, None)


async def test_the_delivery_qos_is_the_lower_one(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    broker = FakeBroker()
    async with connected(broker, nursery) as client, client.subscribe("demo", qos=0) as messages:
        broker.put(b"demo", b"hello", qos=1)
        message = await messages.receive()
        assert (message.qos, message.tag) == (0, None)


async def test_accepting_at_qos_0_or_twice_sends_nothing(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    broker = FakeBroker()
    async with connected(broker, nursery) as client:
        async with client.subscribe("demo", qos=1) as messages:
            broker.put(b"demo", b"0", qos=0)
            broker.put(b"demo", b"1", qos=1)
            for _ in range(2):
                message = await messages.receive()
                await message.accept()
                await message.accept()
                async with trio.open_nursery() as both:
                    both.start_soon(message.accept)
                    both.start_soon(message.accept)
        await client.ping()
        assert broker.count(ACK) == 1
        assert client.refusals.accepts == 0


async def test_a_message_may_be_accepted_after_its_subscription_was_left(
    nursery: trio.Nursery,
    autojump_clock: MockClock,
) -> None:
    broker = FakeBroker()
    async with connected(broker, nursery) as client:
        async with client.subscribe("demo", qos=1) as messages:
            broker.put(b"demo", b"hello")
            message = await messages.receive()
        await message.accept()
        await client.ping()
        assert broker.accepted() == [1]


async def test_an_acceptance_that_the_broker_refuses_disturbs_no_other_call(
    nursery: trio.Nursery,
    autojump_clock: MockClock,
) -> None:
    broker = FakeBroker()
    async with connected(broker, nursery) as client:
        async with client.subscribe("demo", qos=1) as messages:
            broker.put(b"demo", b"hello")
            message = await messages.receive()
            broker.subscriptions[1].held.clear()
            await message.accept()
            await client.publish("demo", b"more")
            assert await receive(messages, 1) == [b"more"]
        assert client.refusals.accepts == 1
        assert str(client.refusals.last) == "unknown subscription or delivery tag (code 404)"


@pytest.mark.parametrize("qos", [0, 1])
async def test_subscriptions_to_one_topic_do_not_mix(
    nursery: trio.Nursery, autojump_clock: MockClock, qos: int
) -> None:
    broker = FakeBroker()
    sent = [b"%d" % number for number in range(200)]
    received: dict[str, list[bytes]] = {}

    async def consume(name: str, subscription: Subscription, started: trio.Event) -> None:
        async with subscription as messages:
            started.set()
            received[name] = await receive(messages, len(sent))

    async with connected(broker, nursery) as client:
        async with trio.open_nursery() as consumers:
            for name in ("a", "b", "c"):
                started = trio.Event()
                consumers.start_soon(consume, name, client.subscribe("demo", qos=qos), started)
                await started.wait()
            broker.put(b"demo", *sent)
        assert received == {"a": sent, "b": sent, "c": sent}
    accepted = [sub.accepted for sub in broker.subscriptions.values()]
    assert accepted == [list(range(1, 201)) if qos else []] * 3


async def test_several_tasks_receive_each_message_once(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    broker = FakeBroker()
    received: list[int] = []
    complete = trio.Event()

    async def consume(messages: Subscription) -> None:
        async for message in messages:
            await message.accept()
            received.append(int(message.body))
            if len(received) == 100:
                complete.set()

    async with connected(broker, nursery) as client:
        async with client.subscribe("demo", qos=1) as messages, trio.open_nursery() as consumers:
            for _ in range(5):
                consumers.start_soon(consume, messages)
            await wait_all_tasks_blocked()
            broker.put(b"demo", *(b"%d" % number for number in range(100)))
            await complete.wait()
            consumers.cancel_scope.cancel()
        await client.ping()
        assert sorted(received) == list(range(100))
        assert len(broker.accepted()) == 100


async def test_an_empty_queue_is_polled_ever_more_slowly(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    broker = FakeBroker()
    async with connected(broker, nursery) as client, client.subscribe("demo", qos=1) as messages:
        with trio.move_on_after(60):
            await messages.receive()
        assert 600 <= broker.count(POLL) <= 610


async def test_a_message_in_an_idle_queue_is_received_within_100_ms(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    broker = FakeBroker()

    async def put_later() -> None:
        await trio.sleep(30.05)
        broker.put(b"demo", b"hello")

    async with connected(broker, nursery) as client, client.subscribe("demo", qos=1) as messages:
        begin = trio.current_time()
        nursery.start_soon(put_later)
        await messages.receive()
        assert 30.05 <= trio.current_time() - begin <= 30.16


async def test_nothing_is_polled_while_nobody_receives(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    broker = FakeBroker()
    async with connected(broker, nursery) as client, client.subscribe("demo", qos=1) as messages:
        with trio.move_on_after(1):
            await messages.receive()
        polls = broker.count(POLL)
        await trio.sleep(60)
        assert broker.count(POLL) <= polls + 1


async def test_a_slow_consumer_causes_no_redelivery(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    broker = FakeBroker(retry_backoff=0.1)
    sent = [b"%d" % number for number in range(20)]
    async with connected(broker, nursery) as client, client.subscribe("demo", qos=1) as messages:
        broker.put(b"demo", *sent)
        received = []
        for _ in sent:
            message = await messages.receive()
            await trio.sleep(0.09)
            await message.accept()
            received.append(message.body)
        await client.ping()
        assert received == sent
        assert broker.redeliveries == 0
        assert client.refusals.accepts == 0


async def test_a_consumer_that_slows_down_gets_no_message_twice(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    broker = FakeBroker(retry_backoff=0.1)
    sent = [b"%d" % number for number in range(300)]
    async with connected(broker, nursery) as client, client.subscribe("demo", qos=1) as messages:
        broker.put(b"demo", *sent)
        received = []
        for number in range(len(sent)):
            message = await messages.receive()
            received.append(message.body)
            await message.accept()
            if number == 100:
                await trio.sleep(10)
        await client.ping()
        assert received == sent
        assert len(broker.accepted()) == len(sent)


async def test_a_redelivery_of_a_message_that_still_waits_is_dropped(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    broker = FakeBroker(retry_backoff=0.1)
    async with connected(broker, nursery) as client, client.subscribe("demo", qos=1) as messages:
        broker.put(b"demo", *(b"%d" % number for number in range(20)))
        received = await receive(messages, 4)
        await trio.sleep(1)
        received += await receive(messages, 16)
        assert received == [b"%d" % number for number in range(20)]
        with trio.move_on_after(1) as scope:
            await messages.receive()
        assert scope.cancelled_caught


async def test_a_message_that_is_not_accepted_comes_again_with_its_tag(
    nursery: trio.Nursery,
    autojump_clock: MockClock,
) -> None:
    broker = FakeBroker(retry_backoff=0.1)
    async with connected(broker, nursery) as client, client.subscribe("demo", qos=1) as messages:
        broker.put(b"demo", b"hello")
        first, second = await messages.receive(), await messages.receive()
        assert (first.tag, first.body) == (second.tag, second.body)
        await second.accept()
        with trio.move_on_after(10) as scope:
            await messages.receive()
        assert scope.cancelled_caught
        assert broker.accepted() == [1]


async def test_a_redelivery_that_crosses_its_acceptance_is_dropped(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    broker = FakeBroker()
    held: list[Message] = []

    async def accept_while_polling() -> None:
        await wait_all_tasks_blocked()
        await held[0].accept()
        broker.commits.set()

    async with connected(broker, nursery) as client, client.subscribe("demo", qos=1) as messages:
        broker.put(b"demo", b"first")
        held.append(await messages.receive())
        broker.subscriptions[1].held[1].due = 0
        broker.put(b"demo", b"second")
        broker.commits = trio.Event()
        nursery.start_soon(accept_while_polling)
        assert (await messages.receive()).body == b"second"
        assert broker.redeliveries == 1


async def test_accepting_a_message_drops_its_redelivery_that_waits(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    broker = FakeBroker()
    async with connected(broker, nursery) as client, client.subscribe("demo", qos=1) as messages:
        broker.put(b"demo", b"1", b"2", b"3")
        first, second, third = [await messages.receive() for _ in range(3)]
        await third.accept()
        broker.subscriptions[1].held[1].due = 0
        broker.subscriptions[1].held[2].due = 0
        broker.put(b"demo", b"4")
        assert (await messages.receive()).tag == first.tag
        await second.accept()
        assert (await messages.receive()).body == b"4"
        assert broker.redeliveries == 2


async def test_a_message_that_comes_again_though_it_was_accepted_is_received(
    nursery: trio.Nursery,
    autojump_clock: MockClock,
) -> None:
    broker = FakeBroker()
    async with connected(broker, nursery) as client, client.subscribe("demo", qos=1) as messages:
        broker.put(b"demo", b"hello")
        message = await messages.receive()
        await message.accept()
        await client.ping()
        broker.subscriptions[1].queue.append(broker.committed[0])
        assert (await messages.receive()).tag == message.tag


async def test_an_acceptance_that_two_tasks_wait_to_send_is_sent_once(
    nursery: trio.Nursery,
    autojump_clock: MockClock,
) -> None:
    broker, stalled = FakeBroker(), []

    def wrap(stream: trio.abc.Stream) -> trio.abc.Stream:
        stalled.append(Stalled(stream))
        stalled[0].flowing.set()
        return stalled[0]

    async with connected(broker, nursery, wrap) as client:
        async with client.subscribe("demo", qos=1) as messages:
            broker.put(b"demo", b"hello")
            message = await messages.receive()
            stalled[0].flowing = trio.Event()
            async with trio.open_nursery() as tasks:
                for _ in range(3):
                    tasks.start_soon(partial(client.publish, "x", bytes(2**20), qos=0))
                    await wait_all_tasks_blocked()
                tasks.start_soon(message.accept)
                tasks.start_soon(message.accept)
                await wait_all_tasks_blocked()
                stalled[0].flowing.set()
        await client.ping()
        assert broker.count(ACK) == 1


async def test_leaving_and_subscribing_again_goes_on_with_what_was_fetched(
    nursery: trio.Nursery,
    autojump_clock: MockClock,
) -> None:
    broker = FakeBroker()
    sent = [b"%d" % number for number in range(60)]
    received: list[bytes] = []
    async with connected(broker, nursery) as client:
        async with client.subscribe("demo", qos=1):
            broker.put(b"demo", *sent)
        while len(received) < len(sent):
            async with client.subscribe("demo", qos=1) as messages:
                received += await receive(messages, 5)
        assert received == sent
        assert broker.count(SUBSCRIBE) == 1


async def test_subscribing_again_may_change_the_prefetch(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    broker = FakeBroker()
    async with connected(broker, nursery) as client:
        async with client.subscribe("demo", qos=1):
            broker.put(b"demo", *(b"%d" % number for number in range(20)))
        async with client.subscribe("demo", qos=1, prefetch=1) as messages:
            for number in range(20):
                message = await messages.receive()
                await wait_all_tasks_blocked()
                assert list(broker.subscriptions[1].held) == [number + 1]
                await message.accept()


async def test_another_topic_or_qos_is_another_subscription(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    broker = FakeBroker()
    async with connected(broker, nursery) as client:
        for topic, qos in (("a", 0), ("a", 1), ("b", 0), ("a", 0)):
            async with client.subscribe(topic, qos=qos):
                pass
        assert broker.count(SUBSCRIBE) == 3


async def test_leaving_wakes_whoever_still_receives(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    broker = FakeBroker()
    woken = trio.Event()

    async def consume(messages: Subscription) -> None:
        with pytest.raises(ClientClosed):
            await messages.receive()
        woken.set()

    async with connected(broker, nursery) as client:
        async with client.subscribe("demo") as messages:
            nursery.start_soon(consume, messages)
            await wait_all_tasks_blocked()
        await woken.wait()
        with pytest.raises(ClientClosed):
            await messages.receive()


async def test_a_subscription_is_used_in_its_block_only_and_entered_once(
    nursery: trio.Nursery,
    autojump_clock: MockClock,
) -> None:
    async with connected(FakeBroker(), nursery) as client:
        subscription = client.subscribe("demo")
        with pytest.raises(ClientClosed):
            await subscription.receive()
        async with subscription:
            pass
        with pytest.raises(RuntimeError, match="entered once"):
            await subscription.__aenter__()


async def test_what_cannot_be_subscribed_to_is_refused_at_once(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    async with connected(FakeBroker(), nursery) as client:
        with pytest.raises(ValueError, match="empty topic"):
            client.subscribe("")
        with pytest.raises(ValueError, match="half of a surrogate pair in the topic"):
            client.subscribe("a\udc80")
        with pytest.raises(ValueError, match="invalid QoS value -1"):
            client.subscribe("demo", qos=-1)
        with pytest.raises(ValueError, match="prefetch 0"):
            client.subscribe("demo", prefetch=0)


async def test_a_refused_subscribe_raises_its_code(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    broker = FakeBroker()
    broker.refuse[b"demo"] = (429, "too many topics")
    async with connected(broker, nursery) as client:
        with pytest.raises(LimitExceeded, match="too many topics"):
            async with client.subscribe("demo"):
                pytest.fail("entered")
        async with client.subscribe("other"):
            pass


async def test_a_refused_poll_raises_from_receive(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    broker = FakeBroker()
    broker.answer = lambda frame: (
        encoder.nack(frame.correlation_id, 400, "invalid POLL payload")
        if frame.type == POLL
        else None
    )
    async with connected(broker, nursery) as client:
        async with client.subscribe("demo") as messages:
            for _ in range(2):
                with pytest.raises(BadRequest, match="invalid POLL payload"):
                    await messages.receive()
        await client.ping()
        broker.answer = lambda _: None


async def test_when_the_connection_is_lost_qos_0_messages_that_came_are_received_first(
    nursery: trio.Nursery,
    autojump_clock: MockClock,
) -> None:
    broker = FakeBroker()
    async with connected(broker, nursery) as client, client.subscribe("demo", qos=1) as messages:
        broker.put(b"demo", b"1", b"2", b"3", qos=1)
        broker.put(b"demo", b"4", qos=0)
        broker.put(b"demo", b"5", qos=1)
        assert (await messages.receive()).body == b"1"
        held = await messages.receive()
        await wait_all_tasks_blocked()
        assert (await messages.receive()).body == b"3"
        await wait_all_tasks_blocked()
        await broker.hang_up()
        await wait_all_tasks_blocked()
        assert (await messages.receive()).body == b"4"
        with pytest.raises(ConnectionLost):
            await messages.receive()
        with pytest.raises(ConnectionLost):
            await held.accept()
        with pytest.raises(ConnectionLost):
            async with client.subscribe("demo"):
                pytest.fail("entered")


async def test_a_receive_that_waits_when_the_connection_is_lost_raises(
    nursery: trio.Nursery,
    autojump_clock: MockClock,
) -> None:
    broker = FakeBroker()
    async with connected(broker, nursery) as client, client.subscribe("demo") as messages:

        async def hang_up() -> None:
            await wait_all_tasks_blocked()
            await broker.hang_up()

        nursery.start_soon(hang_up)
        with pytest.raises(ConnectionLost):
            await anext(aiter(messages))


async def test_prefetch_1_fetches_nothing_ahead(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    broker = FakeBroker()
    async with (
        connected(broker, nursery) as client,
        client.subscribe("demo", prefetch=1) as messages,
    ):
        broker.put(b"demo", *(b"%d" % number for number in range(50)))
        for number in range(50):
            message = await messages.receive()
            await wait_all_tasks_blocked()
            assert list(broker.subscriptions[1].held) == [number + 1]
            await message.accept()
