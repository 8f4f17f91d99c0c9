from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from blipmq import Client, ConnectionLost, Message, RequestTimeout
from blipmq.testing import open_broker

pytestmark = pytest.mark.usefixtures("carrier")


async def respond(
    client: Client,
    prefix: bytes,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Answers every question with its prefix and the question."""
    async with client.subscribe("questions", name="answers") as messages:
        task_status.started()
        async for message in messages:
            async with message:
                await message.reply(prefix + message.body, headers={"by": prefix})


async def test_a_request_gets_its_reply(autojump_clock: MockClock) -> None:
    async with (
        open_broker() as broker,
        broker.client() as client,
        broker.client() as other,
        trio.open_nursery() as nursery,
    ):
        await nursery.start(respond, other, b"re: ")
        reply = await client.request("questions", b"why", timeout=1, headers={"x": b"y"})
        assert (reply.body, reply.qos, reply.headers["by"]) == (b"re: why", 0, b"re: ")
        nursery.cancel_scope.cancel()


async def test_replies_to_many_requests_do_not_mix(autojump_clock: MockClock) -> None:
    replies: dict[int, bytes] = {}

    async def ask(client: Client, number: int) -> None:
        replies[number] = (await client.request("questions", b"%d" % number, timeout=5)).body

    async with open_broker() as broker, broker.client() as client, broker.client() as other:
        async with trio.open_nursery() as nursery:
            await nursery.start(respond, other, b"")
            async with trio.open_nursery() as askers:
                for number in range(100):
                    askers.start_soon(ask, client, number)
            nursery.cancel_scope.cancel()
        assert replies == {number: b"%d" % number for number in range(100)}


async def test_a_request_without_a_reply_times_out_and_expires(
    autojump_clock: MockClock,
) -> None:
    async with open_broker() as broker, broker.client() as client:
        begin = trio.current_time()
        with pytest.raises(RequestTimeout, match="no reply from 'questions' within 3 seconds"):
            await client.request("questions", b"why", timeout=3)
        assert trio.current_time() - begin == pytest.approx(3)
        await trio.sleep(1)
        async with client.subscribe("questions", name="answers") as messages:
            with trio.move_on_after(60) as scope:
                await messages.receive()
            assert scope.cancelled_caught


async def test_a_reply_that_comes_too_late_is_dropped(autojump_clock: MockClock) -> None:
    async with (
        open_broker() as broker,
        broker.client() as client,
        client.subscribe("questions", name="answers") as messages,
    ):
        with pytest.raises(RequestTimeout):
            await client.request("questions", b"why", timeout=1)
        await (await messages.receive()).reply(b"late")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reply_to_next, messages.receive)
            assert (await client.request("questions", b"why", timeout=1)).body == b"now"


async def reply_to_next(receive: Callable[[], Awaitable[Message]]) -> None:
    await (await receive()).reply(b"now")


async def test_requests_work_after_a_reconnect(autojump_clock: MockClock) -> None:
    async with (
        open_broker() as broker,
        broker.client() as client,
        broker.client() as other,
        trio.open_nursery() as nursery,
    ):
        await nursery.start(respond, other, b"")
        await client.request("questions", b"why", timeout=1)
        await broker.hang_up()
        assert (await client.request("questions", b"again", timeout=5)).body == b"again"
        nursery.cancel_scope.cancel()


async def test_a_request_without_a_connection_says_so(autojump_clock: MockClock) -> None:
    async with open_broker() as broker, broker.client(reconnect=False) as client:
        await broker.hang_up()
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(ConnectionLost):
            await client.request("questions", b"why", timeout=1)


async def test_a_message_that_wants_no_reply_gets_none(autojump_clock: MockClock) -> None:
    async with (
        open_broker() as broker,
        broker.client() as client,
        client.subscribe("demo") as messages,
    ):
        await client.publish("demo", b"")
        with pytest.raises(ValueError, match="no reply topic"):
            await (await messages.receive()).reply(b"")
