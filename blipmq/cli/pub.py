"""`blipmq pub`: an argument, a file, or the lines of standard input as messages."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from functools import partial
from io import RawIOBase
from pathlib import Path
from typing import BinaryIO, Final

import attrs
import click
import trio

from blipmq.cli.counter import counter
from blipmq.cli.outside import Blocking, Outside
from blipmq.cli.survey_report import counted
from blipmq.cli.target import Target, broker_options
from blipmq.client.publisher import Publisher
from blipmq.errors import ConfigError

_READ_BYTES: Final = 64 * 1024
LINE_BYTES_MAX: Final = 16 * 1024 * 1024
"""No message is longer, and so no line."""


@attrs.frozen(kw_only=True)
class Publishing:
    """What to publish. `body` is None for lines; `rate` is messages a second, 0: any number."""

    topic: str
    body: bytes | None
    qos: int
    rate: float
    ttl: float | None
    delay: float | None
    key: str | None
    headers: tuple[tuple[str, str], ...]
    message_id: str | None
    content_type: str | None
    reply_to: str | None

    async def run(self, outside: Outside, target: Target) -> int:
        """Returns how many messages were published, and at QoS 1 confirmed.

        Raises PublisherFailed for those that were not, and ConfigError for options that cannot be.
        """
        with counter(f"publishing to {self.topic}", self._total, outside.errors()) as done:
            async with outside.client(target) as client:
                try:
                    async with (
                        client.open_publisher(self.topic, qos=self.qos) as publisher,
                        aclosing(self._bodies(outside)) as bodies,
                    ):
                        await self._send(publisher, bodies, done)
                        return publisher.sent
                except ValueError as error:
                    raise ConfigError(str(error)) from None

    async def _send(
        self, publisher: Publisher, bodies: AsyncIterator[bytes], done: Callable[[int], None]
    ) -> None:
        start = trio.current_time()
        headers = {name: value.encode() for name, value in self.headers}
        async for body in bodies:
            if self.rate:
                await trio.sleep_until(start + publisher.sent / self.rate)
            await publisher.send(
                body,
                ttl=self.ttl,
                delay=self.delay,
                key=_bytes(self.key),
                headers=headers,
                message_id=_bytes(self.message_id),
                content_type=self.content_type,
                reply_to=self.reply_to,
            )
            done(1)

    @property
    def _total(self) -> int | None:
        return None if self.body is None else 1

    async def _bodies(self, outside: Outside) -> AsyncGenerator[bytes, None]:
        if self.body is not None:
            yield self.body
            return
        async with aclosing(lines(outside.stdin(), outside.blocking)) as found:
            async for line in found:
                yield line


async def lines(file: RawIOBase | BinaryIO, blocking: Blocking) -> AsyncGenerator[bytes, None]:
    """The lines of a file as they come, without their ends. Raises ConfigError for a long one."""
    rest = bytearray()
    while True:
        read = partial(getattr(file, "read1", file.read), _READ_BYTES)
        data: bytes = await blocking(read)
        *whole, last = data.split(b"\n")
        for line in whole:
            yield bytes(rest + line)
            rest.clear()
        rest += last
        if len(rest) > LINE_BYTES_MAX:
            raise ConfigError(f"a line is longer than {LINE_BYTES_MAX} bytes; see --file")
        if not data:
            break
    if rest:
        yield bytes(rest)


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else text.encode()


def _headers(
    context: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> tuple[tuple[str, str], ...]:
    pairs = [value.partition("=") for value in values]
    for name, equals, _ in pairs:
        if not name or not equals:
            raise click.BadParameter("expected NAME=VALUE")
    return tuple((name, value) for name, _, value in pairs)


@click.command()
@click.argument("topic")
@click.argument("body", required=False)
@click.option(
    "--file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Publish what is in this file, as one message.",
)
@click.option("--qos", type=click.IntRange(0, 1), default=1, show_default=True)
@click.option(
    "--rate",
    type=click.FloatRange(0, min_open=True),
    help="At most so many messages a second.",
)
@click.option("--ttl", type=click.FloatRange(0), help="Seconds until it is given up; 0: never.")
@click.option("--delay", type=click.FloatRange(0), help="Seconds until it is published.")
@click.option("--key", help="Messages of one key go to one consumer, in order.")
@click.option(
    "--header",
    "headers",
    multiple=True,
    callback=_headers,
    metavar="NAME=VALUE",
    help="May be given again.",
)
@click.option("--message-id", help="A second message with this id is dropped.")
@click.option("--content-type")
@click.option("--reply-to", metavar="TOPIC")
@click.option("--json", "as_json", is_flag=True, help="For programs: what was done as JSON.")
@broker_options
@click.pass_obj
def pub(
    outside: Outside,
    topic: str,
    body: str | None,
    file: Path | None,
    qos: int,
    rate: float | None,
    ttl: float | None,
    delay: float | None,
    key: str | None,
    headers: tuple[tuple[str, str], ...],
    message_id: str | None,
    content_type: str | None,
    reply_to: str | None,
    as_json: bool,
    config_path: Path | None,
    url: str | None,
    api_key_file: Path | None,
) -> None:
    """Publish BODY to TOPIC; without BODY, each line of standard input.

    Ends when the broker has confirmed all of them. With --qos 0 nothing is confirmed.
    """
    if body is not None and file is not None:
        raise click.UsageError("give BODY or --file, not both")
    if message_id is not None and body is None and file is None:
        raise click.UsageError("lines would all have the id that --message-id says")
    content = _content(file) if file is not None else _bytes(body)
    publishing = Publishing(
        topic=topic,
        body=content,
        qos=qos,
        rate=rate or 0.0,
        ttl=ttl,
        delay=delay,
        key=key,
        headers=headers,
        message_id=message_id,
        content_type=content_type,
        reply_to=reply_to,
    )
    target = Target(config_path, url_option=url, api_key_file=api_key_file)
    published = outside.run(partial(publishing.run, outside, target))
    assert isinstance(published, int)
    if as_json:
        click.echo(json.dumps({"published": published, "topic": topic}))
    else:
        click.echo(f"published {counted(published, 'message')}", err=True)


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}") from None
