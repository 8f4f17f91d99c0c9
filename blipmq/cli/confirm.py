"""Asking before something is lost."""

from __future__ import annotations

import sys

import click

YES = click.option("--yes", is_flag=True, help="Do not ask.")


def confirm(question: str, yes: bool) -> None:
    """Return if it is to be done. Aborts when the answer is no; nobody can be asked in a script."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError(f"{question} Nobody is there to be asked; say --yes")
    click.confirm(question, abort=True, err=True)
