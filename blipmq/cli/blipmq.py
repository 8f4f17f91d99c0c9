"""`blipmq`: what an operator does beside the daemon. `statuses` says what its exit status means."""

from __future__ import annotations

import sys

import click

from blipmq.cli.completion import completion
from blipmq.cli.config import config
from blipmq.cli.console import console
from blipmq.cli.dead import dead
from blipmq.cli.keys import keys
from blipmq.cli.lists import connections, subs, topics
from blipmq.cli.outside import Outside, discard_output
from blipmq.cli.pub import pub
from blipmq.cli.purge import delete, purge
from blipmq.cli.statuses import FAILED, INTERRUPTED, advice, status_of
from blipmq.cli.sub import sub
from blipmq.cli.top import top
from blipmq.cli.wal import wal
from blipmq.errors import BlipMQError


def main() -> None:
    """The `blipmq` command; exits the process."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str], outside: Outside | None = None) -> int:
    """Carry out one command; its exit status."""
    try:
        status = command.main(
            arguments, prog_name="blipmq", standalone_mode=False, obj=outside or Outside()
        )
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("blipmq: interrupted", err=True)
        return INTERRUPTED
    except BrokenPipeError:
        discard_output()
        return FAILED
    except BlipMQError as error:
        return _failed(error)
    return status if isinstance(status, int) else 0


def _failed(error: BlipMQError) -> int:
    for line in str(error).splitlines():
        click.echo(f"blipmq: {line}", err=True)
    hint = advice(error)
    if hint is not None:
        click.echo(f"blipmq: {hint}", err=True)
    return status_of(error)


@click.group()
@click.version_option(package_name="blipmq", prog_name="blipmq")
def command() -> None:
    """Tools for the BlipMQ message broker."""


for each in (
    pub,
    sub,
    topics,
    subs,
    connections,
    dead,
    purge,
    delete,
    top,
    console,
    config,
    keys,
    wal,
    completion,
):
    command.add_command(each)
