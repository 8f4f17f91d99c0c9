"""`blipmq dead`: looking at dead letters, publishing them again, dropping them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Final, Literal

import attrs
import click
from rich.table import Table

from blipmq.broker.overview import DeadLettersView
from blipmq.cli.api import Api, ApiError, ApiUnreachable, Json
from blipmq.cli.confirm import YES, confirm
from blipmq.cli.counter import counter
from blipmq.cli.json_lines import time_text
from blipmq.cli.lists import Listing, print_rows
from blipmq.cli.outside import Outside
from blipmq.cli.statuses import NOT_FOUND
from blipmq.cli.survey_report import counted
from blipmq.cli.tables import amount_cells, output, shown, table
from blipmq.cli.target import Target, api_options

PAGE: Final = 200
"""Dead letters that are asked for, or resent, at once."""
_BODY_CHARACTERS: Final = 60

_SUBSCRIPTION = click.option(
    "--subscription",
    type=click.IntRange(1),
    metavar="ID",
    help="Whose dead letters, when several subscriptions have them.",
)
_JSON = click.option("--json", "as_json", is_flag=True, help="JSON Lines, an object a row.")


@attrs.frozen
class Letters:
    """The dead letters of a topic: all, or those with these numbers, or the first `limit`."""

    topic: str
    subscription: int | None = None
    numbers: tuple[int, ...] = ()
    limit: int | None = None

    async def all(self, api: Api) -> list[Json]:
        """Each as the API has it."""
        found: list[Json] = []
        after: object = 0
        left = self.limit
        while after is not None and (left is None or left > 0):
            size = PAGE if left is None else min(PAGE, left)
            page = await api.get(
                "/dead-letters/messages",
                topic=self.topic,
                subscription=self.subscription,
                after=after,
                limit=size,
            )
            rows = page.get("messages")
            if not isinstance(rows, list):
                raise ApiUnreachable(f"{api.url} answers, but not as expected")
            found += rows
            left = None if left is None else left - len(rows)
            after = page.get("next")
        return found

    async def change(
        self, outside: Outside, target: Target, what: Literal["resend", "drop"]
    ) -> int:
        """Resend or drop them, page by page; how many were. What is done stays done."""
        api, changed = outside.api(target), 0
        # A consumer may give up what is resent while the rest still is.
        total = len(self.numbers) or await self._count(api)
        field = "resent" if what == "resend" else "dropped"
        with counter(f"{what} dead letters of {self.topic}", total, outside.errors()) as done:
            for body in self._bodies():
                after: object = 0
                while after is not None and changed < total:
                    try:
                        page = await api.post(f"/dead-letters/{what}", **body, after=after)
                    except ApiError as error:
                        if error.status == 404 and changed:
                            break  # the last ones are gone meanwhile
                        raise
                    numbers = page.get(field)
                    count = len(numbers) if isinstance(numbers, list) else 0
                    changed += count
                    done(count)
                    after = page.get("next")
        return changed

    async def _count(self, api: Api) -> int:
        """How many there are now, of all subscriptions. Raises ApiError 404 when there are none."""
        rows = api.rows("/dead-letters", "dead_letters", DeadLettersView, contains=self.topic)
        async with aclosing(rows) as each:
            async for row in each:
                if row.topic == self.topic:
                    return row.backlog.messages
        raise ApiError(404, f"there are no dead letters of {self.topic!r}")

    def _bodies(self) -> Iterator[Json]:
        body: Json = {"topic": self.topic, "subscription": self.subscription, "limit": PAGE}
        if not self.numbers:
            yield body
        for start in range(0, len(self.numbers), PAGE):
            yield {**body, "numbers": list(self.numbers[start : start + PAGE])}


@click.group()
def dead() -> None:
    """Dead letters: messages that were given up, by the topic that they were published to.

    Without an admin key only their counts can be seen.
    """


@dead.command("list")
@click.argument("topic", required=False)
@_SUBSCRIPTION
@click.option("--limit", type=click.IntRange(1), help="At most so many rows.")
@_JSON
@api_options
@click.pass_obj
def list_(
    outside: Outside,
    topic: str | None,
    subscription: int | None,
    limit: int | None,
    as_json: bool,
    config_path: Path | None,
    api_url: str | None,
    admin_key_file: Path | None,
) -> None:
    """Show which topics have dead letters; or those of TOPIC, which stay where they are."""
    target = Target(config_path, api_url_option=api_url, admin_key_file=admin_key_file)
    if topic is None:
        summaries: list[DeadLettersView] = []

        async def sum_up() -> None:
            listing = Listing("/dead-letters", "dead_letters", limit)
            async with outside.waiting(f"asking {target.api_url}"):
                summaries.extend(await listing.rows(outside, target, DeadLettersView))

        outside.run(sum_up)
        print_rows(summaries, as_json, _topics_table)
        return
    found: list[Json] = []
    letters = Letters(topic, subscription, limit=limit)

    async def ask() -> None:
        async with outside.waiting(f"asking {target.api_url}"):
            found.extend(await letters.all(outside.api(target)))

    outside.run(ask)
    if as_json:
        for row in found:
            click.echo(json.dumps(row, ensure_ascii=False).encode("utf-8", "replace"))
    else:
        output().print(_messages_table(found))


def _topics_table(rows: Sequence[DeadLettersView]) -> Table:
    made = table("<topic", "subscriptions", "dead letters", "bytes", "oldest")
    for row in rows:
        made.add_row(shown(row.topic), str(row.subscriptions), *amount_cells(row.backlog))
    return made


def _messages_table(rows: Sequence[Json]) -> Table:
    made = table("number", "<time", "<reason", "<given up by", "bytes", "<body")
    for row in rows:
        properties = row.get("properties")
        letter = properties.get("dead_letter") if isinstance(properties, dict) else None
        origin = letter if isinstance(letter, dict) else {}
        time_ms = row.get("time_ms")
        body = str(row.get("body", row.get("body_base64", "")))
        made.add_row(
            str(row.get("number")),
            (time_text(time_ms) if isinstance(time_ms, int) else None) or "",
            shown(str(origin.get("reason", ""))),
            shown(str(origin.get("subscription", ""))),
            str(row.get("bytes")),
            shown(body if len(body) <= _BODY_CHARACTERS else body[: _BODY_CHARACTERS - 1] + "…"),
        )
    return made


@dead.command()
@click.argument("topic")
@click.argument("numbers", nargs=-1, type=click.IntRange(1), metavar="[NUMBER]...")
@click.option("--all", "everything", is_flag=True, help="All dead letters of TOPIC.")
@_SUBSCRIPTION
@click.option("--json", "as_json", is_flag=True, help="For programs: how many, as JSON.")
@api_options
@click.pass_obj
def retry(
    outside: Outside,
    topic: str,
    numbers: tuple[int, ...],
    everything: bool,
    subscription: int | None,
    as_json: bool,
    config_path: Path | None,
    api_url: str | None,
    admin_key_file: Path | None,
) -> int:
    """Publish dead letters to TOPIC again: those with these numbers (see `list`), or all.

    Each is gone from the dead letters when it is in the log again. The exit status is 5 when not
    all of the NUMBERs were there.
    """
    letters = _letters(topic, subscription, numbers, everything)
    target = Target(config_path, api_url_option=api_url, admin_key_file=admin_key_file)
    return _change(outside, target, letters, "resend", as_json)


@dead.command()
@click.argument("topic")
@click.argument("numbers", nargs=-1, type=click.IntRange(1), metavar="[NUMBER]...")
@click.option("--all", "everything", is_flag=True, help="All dead letters of TOPIC.")
@_SUBSCRIPTION
@YES
@click.option("--json", "as_json", is_flag=True, help="For programs: how many, as JSON.")
@api_options
@click.pass_obj
def drop(
    outside: Outside,
    topic: str,
    numbers: tuple[int, ...],
    everything: bool,
    subscription: int | None,
    yes: bool,
    as_json: bool,
    config_path: Path | None,
    api_url: str | None,
    admin_key_file: Path | None,
) -> int:
    """Drop dead letters of TOPIC: those with these numbers (see `list`), or all.

    The exit status is 5 when not all of the NUMBERs were there.
    """
    letters = _letters(topic, subscription, numbers, everything)
    which = counted(len(letters.numbers), "dead letter") if numbers else "all dead letters"
    confirm(f"Drop {which} of {topic!r}?", yes)
    target = Target(config_path, api_url_option=api_url, admin_key_file=admin_key_file)
    return _change(outside, target, letters, "drop", as_json)


def _letters(
    topic: str, subscription: int | None, numbers: tuple[int, ...], everything: bool
) -> Letters:
    if bool(numbers) == everything:
        raise click.UsageError("give either the numbers of dead letters or --all")
    return Letters(topic, subscription, tuple(dict.fromkeys(numbers)))


def _change(
    outside: Outside,
    target: Target,
    letters: Letters,
    what: Literal["resend", "drop"],
    as_json: bool,
) -> int:
    changed = outside.run(partial(letters.change, outside, target, what))
    assert isinstance(changed, int)
    done = "resent" if what == "resend" else "dropped"
    if as_json:
        click.echo(json.dumps({"topic": letters.topic, done: changed}))
    else:
        click.echo(f"{done} {counted(changed, 'dead letter')} of {letters.topic}")
    missing = len(letters.numbers) - changed
    if missing > 0 and not as_json:
        text = counted(missing, "dead letter")
        click.echo(f"blipmq: {text} not there, or held by a consumer", err=True)
    return NOT_FOUND if missing > 0 else 0
