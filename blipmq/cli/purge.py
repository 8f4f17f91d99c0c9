"""`blipmq purge` and `delete`: dropping what waits, and ending a subscription."""

from __future__ import annotations

import json
from pathlib import Path

import click

from blipmq.cli.api import Json, path_part
from blipmq.cli.confirm import YES, confirm
from blipmq.cli.outside import Outside
from blipmq.cli.survey_report import counted
from blipmq.cli.target import Target, api_options

_JSON = click.option("--json", "as_json", is_flag=True, help="For programs: the answer as JSON.")


def count_of(answer: Json, field: str) -> int:
    """A number of an answer."""
    found = answer.get(field)
    return found if isinstance(found, int) else 0


@click.command()
@click.argument("topic", required=False)
@click.option("--subscription", type=click.IntRange(1), metavar="ID", help="As `subs` has it.")
@YES
@_JSON
@api_options
@click.pass_obj
def purge(
    outside: Outside,
    topic: str | None,
    subscription: int | None,
    yes: bool,
    as_json: bool,
    config_path: Path | None,
    api_url: str | None,
    admin_key_file: Path | None,
) -> None:
    """Drop what waits in TOPIC, for all of its subscriptions; or what waits for one subscription.

    What consumers hold at the moment stays with them. It needs an admin key.
    """
    if (topic is None) == (subscription is None):
        raise click.UsageError("give either TOPIC or --subscription")
    what = f"topic {topic!r}" if subscription is None else f"subscription {subscription}"
    confirm(f"Drop all messages that wait in {what}?", yes)
    target = Target(config_path, api_url_option=api_url, admin_key_file=admin_key_file)
    answers: list[Json] = []

    async def ask() -> None:
        api = outside.api(target)
        async with outside.waiting(f"purging {what}"):
            if subscription is None:
                answers.append(await api.post("/topics/purge", topic=topic))
            else:
                answers.append(await api.post(f"/subscriptions/{subscription}/purge"))

    outside.run(ask)
    if as_json:
        click.echo(json.dumps(answers[0]))
    else:
        click.echo(f"dropped {counted(count_of(answers[0], 'purged'), 'message')}")


@click.command()
@click.argument("subscription", type=click.IntRange(1), metavar="ID")
@YES
@_JSON
@api_options
@click.pass_obj
def delete(
    outside: Outside,
    subscription: int,
    yes: bool,
    as_json: bool,
    config_path: Path | None,
    api_url: str | None,
    admin_key_file: Path | None,
) -> None:
    """End the subscription with this ID (see `subs`), with all that waits for it.

    It needs an admin key.
    """
    confirm(f"End subscription {subscription} and drop its messages?", yes)
    target = Target(config_path, api_url_option=api_url, admin_key_file=admin_key_file)
    answers: list[Json] = []

    async def ask() -> None:
        async with outside.waiting(f"deleting subscription {subscription}"):
            answer = await outside.api(target).delete(f"/subscriptions/{path_part(subscription)}")
            answers.append(answer)

    outside.run(ask)
    if as_json:
        click.echo(json.dumps(answers[0]))
    else:
        messages = counted(count_of(answers[0], "dropped"), "message")
        click.echo(f"deleted subscription {subscription}, with {messages}")
