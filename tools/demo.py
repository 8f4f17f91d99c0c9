"""A broker, a publisher and two subscribers in one terminal; `make demo`.

Starts a daemon of its own on free ports, with its log in a temporary directory; publishes
messages at QoS 1 for a few seconds; checks that each subscriber got every one, in order; stops
the daemon and says how it went. The exit status is 0 if all was well.
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

import attrs
import trio
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.table import Table

import blipmq

TOPIC: Final = "demo"
API_KEY: Final = "demo-key"
MESSAGES: Final = 400
PAUSE_S: Final = 0.005
START_TIMEOUT_S: Final = 20.0
RUN_TIMEOUT_S: Final = 60.0

BODY: Final = struct.Struct(">Qd")
"""The number of the message, and when it was published by the clock of this process."""


class DemoFailed(Exception):
    """Something that this demonstration was to show did not happen."""


@attrs.define
class Daemon:
    """A running `blipmqd`."""

    process: trio.Process
    address: str
    log: list[str]


@attrs.define
class Received:
    """What a subscriber got. A message may come again, when the machine stalls: at least once."""

    name: str
    latencies_s: dict[int, float] = attrs.field(factory=dict)
    """Of each message, by number, in the order of first deliveries."""
    again: int = 0

    @property
    def complete(self) -> bool:
        return list(self.latencies_s) == list(range(MESSAGES))


@asynccontextmanager
async def daemon(directory: Path) -> AsyncIterator[Daemon]:
    """A daemon that is ready. Leaving stops it with SIGTERM and waits for its end."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("BLIPMQ_")}
    environment |= {
        "BLIPMQ_BIND_ADDR": "127.0.0.1",
        "BLIPMQ_PORT": "0",
        "BLIPMQ_METRICS_ADDR": "127.0.0.1",
        "BLIPMQ_METRICS_PORT": "0",
        "BLIPMQ_WAL_PATH": str(directory / "wal"),
        "BLIPMQ_ALLOWED_API_KEYS": API_KEY,
        "BLIPMQ_LOGGING_FORMAT": "json",
    }
    run = partial(
        trio.run_process,
        [sys.executable, "-m", "blipmq"],
        env=environment,
        cwd=directory,
        stderr=subprocess.PIPE,
        check=False,
    )
    async with trio.open_nursery() as nursery:
        process: trio.Process = await nursery.start(run)
        log: list[str] = []
        addresses, ready = trio.open_memory_channel[str](1)
        nursery.start_soon(read_log, process, log, addresses)
        try:
            with trio.fail_after(START_TIMEOUT_S):
                address = await ready.receive()
        except (trio.TooSlowError, trio.EndOfChannel):
            raise DemoFailed("the daemon did not start:\n" + "\n".join(log)) from None
        yield Daemon(process, address, log)
        process.send_signal(signal.SIGTERM)
        await process.wait()


async def read_log(
    process: trio.Process, log: list[str], addresses: trio.MemorySendChannel[str]
) -> None:
    """Keeps the daemon's log lines, and sends the address of the one that says `ready`."""
    assert process.stderr is not None
    rest = b""
    async with addresses, process.stderr:
        async for data in process.stderr:
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                log.append(line.decode(errors="replace"))
                address = ready_address(log[-1])
                if address is not None:
                    await addresses.send(address)


def ready_address(line: str) -> str | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    if not isinstance(record, dict) or record.get("event") != "ready":
        return None
    return str(record["address"])


async def publish(url: str, progress: Progress, bar: TaskID) -> None:
    """Publishes at QoS 1: each message is committed before the next one is sent."""
    async with blipmq.open_client(url, api_key=API_KEY) as client:
        for number in range(MESSAGES):
            await client.publish(TOPIC, BODY.pack(number, trio.current_time()), qos=1)
            progress.advance(bar)
            await trio.sleep(PAUSE_S)


async def subscribe(
    url: str,
    received: Received,
    progress: Progress,
    bar: TaskID,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Receives and accepts until it has as many messages as were published."""
    async with (
        blipmq.open_client(url, api_key=API_KEY) as client,
        client.subscribe(TOPIC, qos=1) as messages,
    ):
        task_status.started()
        async for message in messages:
            number, published = BODY.unpack(message.body)
            await message.accept()
            if number in received.latencies_s:
                received.again += 1
                continue
            received.latencies_s[number] = trio.current_time() - published
            progress.advance(bar)
            if len(received.latencies_s) == MESSAGES:
                return


async def show(console: Console) -> None:
    """The whole demonstration. Raises `DemoFailed` when it does not come out as it should."""
    received = [Received("subscriber 1"), Received("subscriber 2")]
    columns = (TextColumn("{task.description:<14}"), BarColumn(), MofNCompleteColumn())
    with tempfile.TemporaryDirectory(prefix="blipmq-demo-") as directory:
        async with daemon(Path(directory)) as broker:
            console.print(f"[bold]broker[/]         listens on {broker.address}")
            url = f"blipmq://{broker.address}"
            with Progress(*columns, console=console) as progress:
                publisher = progress.add_task("publisher", total=MESSAGES)
                async with trio.open_nursery() as nursery:
                    for each in received:
                        bar = progress.add_task(each.name, total=MESSAGES)
                        await nursery.start(subscribe, url, each, progress, bar)
                    nursery.start_soon(publish, url, progress, publisher)
        if broker.process.returncode != 0:
            raise DemoFailed(
                f"the daemon ended with {broker.process.returncode}:\n" + "\n".join(broker.log)
            )
    console.print(table(received))
    incomplete = [each.name for each in received if not each.complete]
    if incomplete:
        raise DemoFailed(f"not every message in order: {', '.join(incomplete)}")


def table(received: list[Received]) -> Table:
    table = Table()
    for heading in ("", "messages", "in order", "again", "median latency", "slowest"):
        table.add_column(heading, justify="right")
    for each in received:
        table.add_row(
            each.name,
            f"{len(each.latencies_s)}",
            "yes" if each.complete else "NO",
            f"{each.again}",
            f"{statistics.median(each.latencies_s.values()) * 1000:.1f} ms",
            f"{max(each.latencies_s.values()) * 1000:.1f} ms",
        )
    return table


async def run() -> int:
    console = Console()
    try:
        with trio.fail_after(RUN_TIMEOUT_S):
            await show(console)
    except* (DemoFailed, blipmq.BlipMQError, trio.TooSlowError) as failed:
        for error in leaves(failed):
            reason = str(error) or f"not done within {RUN_TIMEOUT_S:.0f} seconds"
            console.print("[bold red]failed[/]:", escape(reason), highlight=False)
        return_code = 1
    else:
        console.print(f"[bold green]ok[/]: {MESSAGES} messages, each received by both")
        return_code = 0
    return return_code


def leaves(error: BaseException) -> list[BaseException]:
    """The errors in a group, and in the groups in it."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for each in error.exceptions for leaf in leaves(each)]
    return [error]


if __name__ == "__main__":
    sys.exit(trio.run(run))
