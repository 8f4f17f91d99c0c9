"""`blipmq sub`: messages of a topic, on standard output as they come."""

from __future__ import annotations

import math
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Final

import attrs
import click
import trio

from blipmq.cli.message_line import message_line
from blipmq.cli.outside import Outside
from blipmq.cli.statuses import NOTHING_CAME
from blipmq.cli.target import Target, broker_options
from blipmq.client.batch import Batch
from blipmq.client.client import Client
from blipmq.client.message import Message
from blipmq.client.source import StartAt
from blipmq.client.subscription import Subscription
from blipmq.errors import ConfigError

BATCH: Final = 500
"""Messages that are written together, when so many have come."""
NO_FOLLOW_SECONDS: Final = 1.0


@attrs.frozen(kw_only=True)
class Receiving:
    """What to receive. It ends after `count` messages, or when none comes for `wait` seconds.

    Both are infinite when they are not given.
    """

    topic: str
    qos: int
    name: str | None
    pattern: bool | None
    prefetch: int | None
    start: StartAt | None
    count: float
    wait: float
    accept: bool
    as_json: bool
    show_topic: bool

    async def run(self, outside: Outside, target: Target) -> int:
        """Returns how many messages came. A message is accepted when it has been written.

        Raises ConfigError for options that cannot be.
        """
        async with (
            outside.client(target) as client,
            self._subscription(client) as subscription,
        ):
            return await self._receive(outside, subscription)

    def _subscription(self, client: Client) -> Subscription:
        prefetch = self.prefetch
        if prefetch is None and not math.isinf(self.count):
            # No more than is wanted: others may wait for the rest.
            prefetch = min(int(self.count), BATCH)
        try:
            return client.subscribe(
                self.topic,
                qos=self.qos,
                name=self.name,
                pattern=self.pattern,
                prefetch=prefetch,
                start=self.start,
            )
        except ValueError as error:
            raise ConfigError(str(error)) from None

    async def _receive(self, outside: Outside, subscription: Subscription) -> int:
        received = 0
        while received < self.count:
            most = int(min(BATCH, self.count - received))
            batch: Batch | None = None
            with trio.move_on_after(self.wait):
                batch = await subscription.batch(most)
            if batch is None:
                break
            await outside.write(b"".join(map(self._line, batch)))
            received += len(batch)
            if self.accept:
                await batch.accept()
        return received

    def _line(self, message: Message) -> bytes:
        if self.as_json:
            return message_line(message)
        head = message.topic.encode() + b"\t" if self.show_topic else b""
        return head + message.body + b"\n"


def _start(context: click.Context, parameter: click.Parameter, text: str | None) -> StartAt | None:
    if text is None:
        return None
    if text in ("new", "earliest"):
        return "new" if text == "new" else "earliest"
    if text.isascii() and text.isdigit():
        return int(text)
    try:
        return datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError):
        raise click.BadParameter(
            "expected new, earliest, the number of a message, or a time as 2026-01-31T12:00"
        ) from None


@click.command()
@click.argument("topic")
@click.option("--name", help="Of a durable subscription, shared by all who give it.")
@click.option("--qos", type=click.IntRange(0, 1), default=1, show_default=True)
@click.option(
    "--pattern/--no-pattern",
    default=None,
    help="Whether TOPIC is a pattern; else it is when it has a level * or ends with >.",
)
@click.option("--prefetch", type=click.IntRange(1), help="Messages that are sent ahead.")
@click.option(
    "--start",
    callback=_start,
    metavar="WHERE",
    help="For a new subscription: new, earliest, a number, or a time.",
)
@click.option("--count", type=click.IntRange(1), help="End after so many messages.")
@click.option(
    "--wait",
    type=click.FloatRange(0, min_open=True),
    help="End when nothing has come for so many seconds.",
)
@click.option(
    "--follow/--no-follow",
    default=True,
    help=f"--no-follow: as --wait {NO_FOLLOW_SECONDS:g}.",
)
@click.option(
    "--accept/--no-accept",
    default=True,
    show_default=True,
    help="--no-accept only looks: the messages go back when it ends.",
)
@click.option("--show-topic", is_flag=True, help="The topic before each message, with a tab.")
@click.option("--json", "as_json", is_flag=True, help="JSON Lines, with all properties.")
@broker_options
@click.pass_obj
def sub(
    outside: Outside,
    topic: str,
    name: str | None,
    qos: int,
    pattern: bool | None,
    prefetch: int | None,
    start: StartAt | None,
    count: int | None,
    wait: float | None,
    follow: bool,
    accept: bool,
    show_topic: bool,
    as_json: bool,
    config_path: Path | None,
    url: str | None,
    api_key_file: Path | None,
) -> int:
    """Write the messages of TOPIC, one a line, until it is interrupted.

    The exit status is 6 when it ended before --count messages came, or before any.
    """
    if not follow and wait is None:
        wait = NO_FOLLOW_SECONDS
    receiving = Receiving(
        topic=topic,
        qos=qos,
        name=name,
        pattern=pattern,
        prefetch=prefetch,
        start=start,
        count=math.inf if count is None else count,
        wait=math.inf if wait is None else wait,
        accept=accept,
        as_json=as_json,
        show_topic=show_topic,
    )
    target = Target(config_path, url_option=url, api_key_file=api_key_file)
    received = outside.run(partial(receiving.run, outside, target))
    assert isinstance(received, int)
    return 0 if received >= (1 if count is None else count) else NOTHING_CAME
