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
            await send_body.send(b"hello")
            with trio.fail_after(5):
                assert_type(await receive_result.receive(), str)
            nursery.cancel_scope.cancel()
    except blipmq.Refused as error:
        assert_type(error.code, int)


trio.run(main)
