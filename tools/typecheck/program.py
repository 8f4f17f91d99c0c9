"""What a user of the client library writes; every use is right, and no type is lost."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import assert_type

import trio

import blipmq


async def publish(client: blipmq.Client, bodies: trio.MemoryReceiveChannel[bytes]) -> None:
    async for body in bodies:
        await client.publish("demo", body)
        await client.publish("demo", body, qos=1)


async def consume(client: blipmq.Client, results: trio.MemorySendChannel[str]) -> None:
    async with client.subscribe("demo") as messages:
        async for message in messages:
            assert_type(message, blipmq.Message)
            assert_type(message.body, bytes)
            assert_type(message.topic, str)
            assert_type(message.qos, int)
            await results.send(message.body.decode())
            await message.accept()


async def work(client: blipmq.Client) -> None:
    async with client.subscribe("orders.>", name="billing", prefetch=512) as messages:
        assert_type(messages, blipmq.Subscription)
        async for message in messages:
            async with message as same:
                assert_type(same, blipmq.Message)
                assert_type(message.headers.get("shop"), bytes | None)
                assert_type(message.attempt, int)
                await message.retry(delay=1.5)
                await message.reject()
                await message.reply(b"done", headers={"a": b"b"})
        async with await messages.batch(100, within=0.5) as batch:
            assert_type(batch, blipmq.Batch)
            assert_type([message.body for message in batch], list[bytes])


async def pipeline(client: blipmq.Client) -> None:
    async with client.open_publisher("orders.eu", window=4096) as publisher:
        assert_type(publisher, blipmq.Publisher)
        await publisher.send(b"body", ttl=60, key=b"42", headers={"a": b"b"})
        publisher.send_nowait(b"body", content_type="text/plain")
        await publisher.send_many([b"a", bytearray(b"b")], key=b"42")
        await publisher.flush()
        assert_type(publisher.sent, int)
    reply = await client.request("prices.get", b"body", timeout=1)
    assert_type(reply, blipmq.Message)
    async for state in client.states():
        assert_type(state, blipmq.State)


async def main() -> None:
    opening = blipmq.open_client("blipmq://127.0.0.1:5555", api_key="dev-key-1")
    assert_type(opening, AbstractAsyncContextManager[blipmq.Client])
    send_body, receive_body = trio.open_memory_channel[bytes](10)
    send_result, receive_result = trio.open_memory_channel[str](10)
    try:
        async with opening as client, trio.open_nursery() as nursery:
            assert_type(client, blipmq.Client)
            nursery.start_soon(publish, client, receive_body)
            nursery.start_soon(consume, client, send_result)
            nursery.start_soon(work, client)
            nursery.start_soon(pipeline, client)
            await send_body.send(b"hello")
            with trio.fail_after(5):
                assert_type(await receive_result.receive(), str)
            nursery.cancel_scope.cancel()
    except blipmq.Refused as error:
        assert_type(error.code, int)


trio.run(main)
