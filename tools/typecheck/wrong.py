"""Wrong uses of the client library. Each marked line must be reported, with that error code."""

from __future__ import annotations

import trio

import blipmq


async def consume(client: blipmq.Client, wanted: int) -> None:
    async with client.subscribe("demo", qos=1) as messages:
        async for message in messages:
            print(message.body + wanted)  # wrong: operator
            message.accept()  # wrong: unused-coroutine
            print(message.body.encode())  # wrong: attr-defined
        for message in messages:  # wrong: attr-defined
            print(message)


async def main() -> None:
    async with blipmq.open_client("blipmq://127.0.0.1:5555") as client:  # wrong: call-arg
        await client.publish("demo", "text")  # wrong: arg-type
        await client.publish("demo", b"body", 1)  # wrong: misc
        await client.publish("demo", b"body", qos="1")  # wrong: arg-type
        client.publish("demo", b"body")  # wrong: unused-coroutine
        await client.subscribe("demo")  # wrong: misc
        await client.settle("demo")  # wrong: attr-defined
        async with trio.open_nursery() as nursery:
            nursery.start_soon(consume, client, 5)
            nursery.start_soon(consume, client)  # wrong: arg-type
            nursery.start_soon(consume, client, "5")  # wrong: arg-type


trio.run(main)
