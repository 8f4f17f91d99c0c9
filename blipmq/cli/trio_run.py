"""`trio-run`: start a service by its name.

A service is an entry point in the group `trio_run.services`: a callable that takes the list
of its arguments, runs until it is done, and returns its exit status. The first line of its
docstring is its description. Any installed package may register services.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import Final

import click

GROUP: Final = "trio_run.services"

Service = Callable[[list[str]], int]


def main() -> None:
    """The `trio-run` command; exits the process."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run the service that the first argument names; without arguments list all services.

    Returns the service's exit status; 2 for a name that is unknown or cannot be loaded.
    """
    services = {entry.name: entry for entry in entry_points(group=GROUP)}
    if not arguments:
        click.echo("usage: trio-run NAME [ARGUMENTS...]\n\nservices:")
        for name in sorted(services):
            click.echo(f"  {name:<16} {_description(services[name])}".rstrip())
        return 0
    name, *rest = arguments
    if name in ("-h", "--help"):
        return run([])
    if name not in services:
        near = difflib.get_close_matches(name, services, n=1)
        known = f"did you mean {near[0]}?" if near else f"known: {', '.join(sorted(services))}"
        click.echo(f"trio-run: no service {name!r}; {known}", err=True)
        return 2
    try:
        service = _load(services[name])
    except (ImportError, AttributeError, TypeError) as error:
        click.echo(f"trio-run: cannot load service {name!r}: {error}", err=True)
        return 2
    return service(rest)


def _load(entry: EntryPoint) -> Service:
    """Raises ImportError, AttributeError or TypeError when there is no such callable."""
    service: Service = entry.load()
    if not callable(service):
        raise TypeError(f"{entry.value} is not callable")
    return service


def _description(entry: EntryPoint) -> str:
    try:
        text = _load(entry).__doc__ or ""
    except (ImportError, AttributeError, TypeError) as error:
        return f"(cannot be loaded: {error})"
    return next(iter(text.strip().splitlines()), "")
