"""`blipmq keys`: making API keys and admin keys."""

from __future__ import annotations

import json
import secrets
from typing import Final

import click

from blipmq.auth import key_id

KEY_BYTES: Final = 32
"""What a key has of chance."""


def new_key() -> str:
    """A key that nobody guesses; of letters, digits, `-` and `_`, so it needs no quotes."""
    return secrets.token_urlsafe(KEY_BYTES)


@click.group()
def keys() -> None:
    """API keys, for clients, and admin keys, for the API."""


@keys.command()
@click.option("--count", type=click.IntRange(1, 10_000), default=1, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="JSON Lines, with the id of each key.")
def new(count: int, as_json: bool) -> None:
    """Make keys, one a line.

    Put one into allowed_api_keys for clients, or into admin.allowed_keys for the API, and restart
    the daemon. The log of the daemon names keys by their ids.
    """
    for _ in range(count):
        key = new_key()
        if as_json:
            click.echo(json.dumps({"key": key, "id": key_id(key.encode())}))
        else:
            click.echo(key)
            click.echo(f"its id: {key_id(key.encode())}", err=True)
