"""Flood a daemon with strangers, and see that a client of its own is served all the while.

The strangers are more connections than are allowed, garbage, handshakes that stop half-way, and
announcements of large frames that never come.
"""

from __future__ import annotations

import random
import tempfile
from pathlib import Path
from typing import Final

import click
import trio

from blipmq.protocol import encoder
from blipmq.protocol.frames import HELLO, LENGTH_MAX, LENGTH_MAX_UNAUTHENTICATED, U32
from tools.chaos.connection import Connection
from tools.chaos.daemon import Daemon
from tools.chaos.verdict import conclude

CONNECTIONS_MAX: Final = 64
HANDSHAKE_TIMEOUT_MS: Final = 300
WAVES: Final = 10
AFTERWARDS_SECONDS: Final = 30.0
TOPIC: Final = b"demo"


def nonsense(chance: random.Random) -> bytes:
    """What a stranger sends."""
    return chance.choice(
        (
            b"",
            b"GET / HTTP/1.1\r\nHost: blipmq\r\n\r\n",
            chance.randbytes(chance.randrange(1, 5_000)),
            encoder.hello(1, 1)[: chance.randrange(1, 15)],
            encoder.hello(1, 1),
            encoder.hello(1, 1) + encoder.auth(2, b"no such key"),
            U32.pack(LENGTH_MAX),
            U32.pack(LENGTH_MAX_UNAUTHENTICATED) + bytes((HELLO,)),
        )
    )


async def drill(directory: Path, strangers: int, chance: random.Random) -> list[str]:
    """Have so many strangers come, in waves; what was not as it must be."""
    violations: list[str] = []
    async with trio.open_nursery() as nursery:
        daemon = await Daemon.launch(
            nursery,
            directory / "log",
            limits__max_connections=CONNECTIONS_MAX,
            limits__handshake_timeout_ms=HANDSHAKE_TIMEOUT_MS,
        )
        address = await daemon.ready()
        async with await Connection.open(address) as client, trio.open_nursery() as serving:
            serving.start_soon(_be_served, client, violations)
            async with trio.open_nursery() as flood:
                for _ in range(strangers):
                    flood.start_soon(_intrude, address, nonsense(chance))
            serving.cancel_scope.cancel()
        await _another_gets_in(address, violations)
        status = await daemon.terminate()
        if status:
            violations.append(f"the shutdown ended with status {status}")
    return violations


async def _be_served(client: Connection, violations: list[str]) -> None:
    """Publish and take one message after the other, until cancelled."""
    subscription = await client.subscribe(TOPIC)
    served = 0
    try:
        while True:
            body = b"message %d" % served
            await client.publish(TOPIC, [body])
            deliveries = await client.poll(subscription, 2)
            if [delivery.body for delivery in deliveries] != [body]:
                violations.append(f"{body.decode()} was answered by {deliveries}")
            await client.accept(subscription, [delivery.tag for delivery in deliveries])
            served += 1
    finally:
        print(f"  {served} messages published, taken and accepted meanwhile")
        if served < WAVES:
            violations.append("the client was hardly served")


async def _intrude(address: tuple[str, int], data: bytes) -> None:
    """Send it, and wait until the daemon has had enough."""
    try:
        async with await trio.open_tcp_stream(*address) as stream:
            await stream.send_all(data)
            async for _ in stream:
                pass
    except (OSError, trio.BrokenResourceError):
        pass  # thrown out, as it should be


async def _another_gets_in(address: tuple[str, int], violations: list[str]) -> None:
    with trio.move_on_after(AFTERWARDS_SECONDS):
        async with await Connection.open(address) as connection:
            if await connection.exchange():
                violations.append("an empty exchange was answered")
            return
    violations.append("nobody gets in after the flood")


@click.command()
@click.option("--strangers", default=1_500, show_default=True, help="How many connections come.")
@click.option("--seed", default=1, show_default=True, help="Repeats what they send.")
def main(strangers: int, seed: int) -> None:
    """Flood a daemon with strangers, and see that its own client is served."""
    print(f"flood: {strangers} strangers, {CONNECTIONS_MAX} connections allowed")
    with tempfile.TemporaryDirectory(prefix="blipmq-flood-") as directory:
        chance = random.Random(seed)  # noqa: S311, no secret
        conclude("flood", drill, Path(directory), strangers, chance)


if __name__ == "__main__":
    main()
