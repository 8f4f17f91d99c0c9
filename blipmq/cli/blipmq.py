"""`blipmq`: what an operator does beside the daemon, and what its exit status means.

0: done, and nothing is wrong. 1: failed, or the log is damaged. 2: the command line or the path
cannot be used.
"""

from __future__ import annotations

import sys
from typing import Final

import click

from blipmq.cli.wal import wal
from blipmq.errors import BlipMQError
from blipmq.wal.scan import NoLog

FAILED: Final = 1
UNUSABLE: Final = 2
INTERRUPTED: Final = 130


def main() -> None:
    """The `blipmq` command; exits the process."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Carry out one command; its exit status."""
    try:
        status = command.main(arguments, prog_name="blipmq", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        click.echo("blipmq: interrupted", err=True)
        return INTERRUPTED
    except BlipMQError as error:
        click.echo(f"blipmq: {error}", err=True)
        return UNUSABLE if isinstance(error, NoLog) else FAILED
    return status if isinstance(status, int) else 0


@click.group()
@click.version_option(package_name="blipmq", prog_name="blipmq")
def command() -> None:
    """Tools for the BlipMQ message broker."""


command.add_command(wal)
