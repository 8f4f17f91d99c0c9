"""`python -m tools.bench MODE...`: messages through one broker, counted, timed, and paid for."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import attrs
import click

from tools.bench.blipmq.connection import connect
from tools.bench.daemon import API_KEY, DidNotStart
from tools.bench.load.clients import ClientFailed
from tools.bench.load.runner import Pinning
from tools.bench.load.server import Address
from tools.bench.load.wire import Refused
from tools.bench.load.work import AHEAD_MESSAGES, WINDOW_MESSAGES, Miscounted
from tools.bench.measure import NotPossible, Options, Row, measure
from tools.bench.modes import MODES, Shape
from tools.bench.options import directory_option, json_option
from tools.bench.table import show

ALL = "all"
DEFAULT_PORT = 5555
KINDS = ("wire", "client")
_NOTE = """
wire: raw sockets, frames encoded beforehand, deliveries counted without making objects; what the
broker can do. client: the client library, a handler for each message; what a program gets.
Latencies are in microseconds: of one message at a time the whole trip, at a --rate from the time
at which a message should have been sent. CPU: seconds of the broker for a million messages."""


class BadUse(click.ClickException):
    """The user asked for what cannot be."""

    exit_code = 2


class Sizes(click.ParamType[tuple[int, ...]]):
    """One or several numbers of bytes, with commas between them."""

    name = "bytes[,bytes...]"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        try:
            return tuple(int(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r} is not a list of numbers", param, ctx)


class AddressType(click.ParamType[Address]):
    """HOST[:PORT]."""

    name = "host[:port]"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> Address:
        host, _, port = str(value).partition(":")
        if not host or not (port or str(DEFAULT_PORT)).isdecimal():
            self.fail(f"{value!r} is not HOST[:PORT]", param, ctx)
        return host, int(port or DEFAULT_PORT)


class PinningType(click.ParamType[Pinning]):
    """Cores of the broker, and after a colon those of the clients."""

    name = "cores[:cores]"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> Pinning:
        server, _, clients = str(value).partition(":")
        try:
            found = Pinning(_cores(server), _cores(clients or server))
        except ValueError:
            self.fail(f"{value!r} is not like 0 or 0:1 or 0:1,2", param, ctx)
        if unknown := {*found.server, *found.clients} - os.sched_getaffinity(0):
            self.fail(f"there is no core {min(unknown)}", param, ctx)
        return found


def _cores(text: str) -> frozenset[int]:
    return frozenset(int(part) for part in text.split(","))


@click.command(context_settings={"show_default": True})
@click.argument("modes", metavar="MODE...", nargs=-1, type=click.Choice([*MODES, ALL]))
@click.option("--publishers", type=click.IntRange(1))
@click.option("--subscribers", type=click.IntRange(0))
@click.option("--topics", type=click.IntRange(1))
@click.option("--message-size", "sizes", type=Sizes(), help="Of a body; several are mixed.")
@click.option("--qos", type=click.IntRange(0, 1))
@click.option("--use-wal/--no-wal", default=None)
@click.option("--fsync-policy", help="always, interval_ms:20, every_n:1000, none.")
@click.option("--duration-secs", "seconds", type=click.FloatRange(0, min_open=True))
@click.option("--total-messages", "messages", type=click.IntRange(1), help="Of all publishers.")
@click.option("--delivery", type=click.Choice(["push", "poll"]), help="Version 2, or 1.")
@click.option(
    "--rate",
    type=click.FloatRange(0, min_open=True),
    help="Messages a second of all publishers, whether or not the broker keeps up.",
)
@click.option(
    "--window",
    type=click.IntRange(1),
    default=WINDOW_MESSAGES,
    help="Unconfirmed, of each publisher.",
)
@click.option(
    "--ahead",
    type=click.IntRange(1),
    default=AHEAD_MESSAGES,
    help="Sent, and not received by a subscriber.",
)
@click.option("--prefetch", type=click.IntRange(1), help="Unsettled, of each subscriber.")
@click.option("--polls", type=click.IntRange(1), help="At a time, with --delivery poll.")
@click.option("--client", "kind", type=click.Choice([*KINDS, "both"]), default="wire")
@click.option("--address", type=AddressType(), help="Of a running broker, instead of an own one.")
@click.option("--api-key", default=API_KEY, help="For that broker.")
@click.option("--pin", "pinning", type=PinningType(), help="Hold broker and clients to cores.")
@click.option("--repeat", default=1, type=click.IntRange(1), help="Each mode, in turn.")
@click.option(
    "--python", help="An interpreter whose environment has the broker to measure.", hidden=True
)
@json_option
@directory_option
def main(
    modes: tuple[str, ...],
    publishers: int | None,
    subscribers: int | None,
    topics: int | None,
    sizes: tuple[int, ...] | None,
    qos: int | None,
    use_wal: bool | None,
    fsync_policy: str | None,
    seconds: float | None,
    messages: int | None,
    delivery: str | None,
    rate: float | None,
    window: int,
    ahead: int,
    prefetch: int | None,
    polls: int | None,
    kind: str,
    address: Address | None,
    api_key: str,
    pinning: Pinning | None,
    repeat: int,
    python: str | None,
    as_json: bool,
    directory: Path,
) -> None:
    """Measure one broker. Each MODE has its own defaults, which options replace.

    Exits with 2 for what cannot be, and with 1 when a message was lost, or came twice.
    """
    options = Options(
        publishers=publishers,
        subscribers=subscribers,
        topics=topics,
        sizes=sizes,
        qos=qos,
        use_wal=use_wal,
        fsync_policy=fsync_policy,
        seconds=seconds,
        messages=messages,
        delivery=delivery,
        rate=rate,
        window=window,
        ahead=ahead,
        prefetch=prefetch,
        polls=polls,
        address=address,
        api_key=api_key,
        directory=directory,
        python=python,
        pinning=pinning,
    )
    if not modes:
        raise BadUse(f"which mode? {', '.join([*MODES, ALL])}")
    everything = ALL in modes
    kinds = KINDS if kind == "both" else (kind,)
    if address is not None:
        _check_broker(address, api_key)
    rows = []
    for _ in range(repeat):
        for mode in MODES if everything else modes:
            for each in kinds:
                if not (everything or len(kinds) > 1) or _has(mode, each):
                    rows.append(_measure(mode, attrs.evolve(options, kind=each)))
    if as_json:
        show({"bench": rows}, as_json=True)
        return
    show({f"{_machine()}": [row.line for row in rows]}, as_json=False)
    click.echo()
    for mode in dict.fromkeys(row.mode for row in rows):
        click.echo(f"{mode}: {MODES[mode].says}")
    click.echo(_NOTE)


def _has(mode: str, kind: str) -> bool:
    """Whether both kinds of client know the mode."""
    return kind == "wire" or MODES[mode].shape not in (Shape.ECHO, Shape.POLLS)


def _measure(mode: str, options: Options) -> Row:
    try:
        return measure(mode, options)
    except (NotPossible, DidNotStart) as error:
        raise BadUse(f"{mode}: {error}") from None
    except (Miscounted, ClientFailed, Refused) as error:
        raise click.ClickException(f"{mode}: {error}") from None


def _check_broker(address: Address, api_key: str) -> None:
    where = f"{address[0]}:{address[1]}"
    try:
        connect(address, api_key).close()
    except OSError as error:
        raise BadUse(f"no broker at {where}: {error}") from None
    except Refused as error:
        raise BadUse(f"the broker at {where} refuses: {error}") from None


def _machine() -> str:
    cores = len(os.sched_getaffinity(0))
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return f"{cores} cores, {platform.system()} {platform.release()}, {python}"


if __name__ == "__main__":
    main()
