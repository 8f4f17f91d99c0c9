"""A client for drills by hand: publish numbered messages, take them, accept them.

    python -m tools.chaos.hand publish 100
    python -m tools.chaos.hand take
    python -m tools.chaos.hand accept

The broker has to allow the key `chaos-key`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Awaitable, Callable
from functools import partial
from itertools import groupby
from typing import NoReturn

import click
import trio

from tools.chaos.connection import Connection, Delivery, Lost, Refused

_POLLS = 500


@click.group()
@click.option("--port", default=5555, show_default=True)
@click.option("--topic", default="demo", show_default=True)
@click.pass_context
def main(context: click.Context, port: int, topic: str) -> None:
    """Publish to a broker on this machine and take from it, at QoS 1."""
    context.obj = port, topic.encode()


@main.command()
@click.argument("count", type=click.IntRange(1))
@click.option("--size", default=1_000, show_default=True, help="Bytes of a message, about.")
@click.pass_obj
def publish(where: tuple[int, bytes], count: int, size: int) -> None:
    """Publish COUNT messages, one after the other, until one is refused."""
    _run(partial(_publish, count=count, size=size), where)


async def _publish(connection: Connection, topic: bytes, count: int, size: int) -> int:
    start = f"{time.strftime('%H%M%S')}.{time.time_ns() // 1_000_000 % 1_000:03}".encode()
    for number in range(1, count + 1):
        body = b"%s-%d %s" % (start, number, b"x" * size)
        try:
            refusal = await connection.refusal(topic, body)
        except Lost as error:
            refusal = f"the connection was lost: {error}"
        if refusal:
            print(f"{number - 1} confirmed, then: {refusal}")
            return 1
    print(f"{count} confirmed")
    return 0


@main.command()
@click.pass_obj
def take(where: tuple[int, bytes]) -> None:
    """Take all that waits, and accept nothing, so that it comes again."""
    _run(partial(_take, accepting=False), where)


@main.command()
@click.pass_obj
def accept(where: tuple[int, bytes]) -> None:
    """Take all that waits, and accept it."""
    _run(partial(_take, accepting=True), where)


async def _take(connection: Connection, topic: bytes, accepting: bool) -> int:
    subscription = await connection.subscribe(topic)
    taken: list[Delivery] = []
    while deliveries := await connection.poll(subscription, _POLLS):
        taken += deliveries
    if accepting:
        await connection.accept(subscription, [delivery.tag for delivery in taken])
    print(f"{len(taken)} {'accepted' if accepting else 'taken'}")
    names = [delivery.body.split(b" ")[0].decode().rpartition("-") for delivery in taken]
    for start, group in groupby(names, key=lambda name: name[0]):
        numbers = [number for _, _, number in group]
        print(f"  published at {start}: {numbers[0]} to {numbers[-1]}, {len(numbers)} messages")
    return 0


def _run(act: Callable[[Connection, bytes], Awaitable[int]], where: tuple[int, bytes]) -> NoReturn:
    """Do it over a connection of its own, and exit."""
    port, topic = where

    async def connected() -> int:
        async with await Connection.open(("127.0.0.1", port)) as connection:
            return await act(connection, topic)

    try:
        status = trio.run(connected)
    except (Lost, Refused) as error:
        print(error)
        status = 1
    sys.exit(status)


if __name__ == "__main__":
    main()
