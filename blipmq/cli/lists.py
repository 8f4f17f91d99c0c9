"""`blipmq topics`, `subs` and `connections`: what there is, as tables or JSON Lines."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import TypeVar

import attrs
import click
from rich.table import Table
from rich.text import Text

from blipmq.broker.overview import SubscriptionView, TopicView
from blipmq.cli.api import Api
from blipmq.cli.counter import counter
from blipmq.cli.outside import Outside
from blipmq.cli.tables import amount_cells, output, shown, table
from blipmq.cli.target import Target, api_options

Row = TypeVar("Row", bound=attrs.AttrsInstance)

_JSON = click.option("--json", "as_json", is_flag=True, help="JSON Lines, an object a row.")
_LIMIT = click.option("--limit", type=click.IntRange(1), help="At most so many rows.")
_BY_BACKLOG = click.option(
    "--by-backlog", is_flag=True, help="The rows with the most messages first, 1000 at most."
)
_MOST_BY_BACKLOG = 1000


@attrs.frozen
class ConnectionRow:
    """One connection. Address and key id are there for who has an admin key."""

    id: int
    version: int
    subscriptions: int
    held: int
    uncommitted: int
    output_bytes: int
    paused: bool
    peer: str | None = None
    owner: str | None = None


@attrs.frozen
class Listing:
    """Which rows to ask for."""

    path: str
    field: str
    limit: int | None = None
    by_backlog: bool = False
    query: dict[str, str | None] = attrs.field(factory=dict)

    async def rows(self, outside: Outside, target: Target, its_type: type[Row]) -> list[Row]:
        """All of them. Raises ApiError or ApiUnreachable."""
        api: Api = outside.api(target)
        query: dict[str, object] = dict(self.query)
        limit = self.limit
        if self.by_backlog:
            query["order"] = "backlog"
            limit = min(limit or _MOST_BY_BACKLOG, _MOST_BY_BACKLOG)
            page = await api.get(self.path, limit=limit, **query)
            return api.structured(page.get(self.field), list[its_type])  # type: ignore[valid-type]
        rows: list[Row] = []
        with counter(f"asking for {self.field}", None, outside.errors()) as done:
            found = api.rows(self.path, self.field, its_type, limit, **query)
            async with aclosing(found) as each:
                async for row in each:
                    rows.append(row)
                    done(1)
        return rows


def print_rows(rows: Sequence[Row], as_json: bool, draw: Callable[[Sequence[Row]], Table]) -> None:
    """As JSON Lines, or as a table."""
    if not as_json:
        output().print(draw(rows))
        return
    for row in rows:
        click.echo(json.dumps(attrs.asdict(row), ensure_ascii=False).encode("utf-8", "replace"))


def _list(
    outside: Outside,
    target: Target,
    listing: Listing,
    its_type: type[Row],
    as_json: bool,
    draw: Callable[[Sequence[Row]], Table],
) -> None:
    found: list[Row] = []

    async def ask() -> None:
        async with outside.waiting(f"asking {target.api_url}"):
            found.extend(await listing.rows(outside, target, its_type))

    outside.run(ask)
    print_rows(found, as_json, draw)


@click.command()
@click.option("--contains", metavar="TEXT", help="Only topics with this in their names.")
@_BY_BACKLOG
@_LIMIT
@_JSON
@api_options
@click.pass_obj
def topics(
    outside: Outside,
    contains: str | None,
    by_backlog: bool,
    limit: int | None,
    as_json: bool,
    config_path: Path | None,
    api_url: str | None,
    admin_key_file: Path | None,
) -> None:
    """List topics, with what was published to them and what waits in them."""
    target = Target(config_path, api_url_option=api_url, admin_key_file=admin_key_file)
    listing = Listing("/topics", "topics", limit, by_backlog, {"contains": contains})
    _list(outside, target, listing, TopicView, as_json, topics_table)


def topics_table(rows: Sequence[TopicView]) -> Table:
    made = table("<topic", "published", "subscriptions", "kept", "waiting", "bytes", "oldest")
    for row in rows:
        counts = str(row.published), str(row.subscriptions), str(row.kept_messages)
        made.add_row(shown(row.topic), *counts, *amount_cells(row.backlog))
    return made


@click.command()
@click.option("--topic", help="Only those of this topic or pattern.")
@_BY_BACKLOG
@_LIMIT
@_JSON
@api_options
@click.pass_obj
def subs(
    outside: Outside,
    topic: str | None,
    by_backlog: bool,
    limit: int | None,
    as_json: bool,
    config_path: Path | None,
    api_url: str | None,
    admin_key_file: Path | None,
) -> None:
    """List subscriptions, with their members and what waits for them."""
    target = Target(config_path, api_url_option=api_url, admin_key_file=admin_key_file)
    listing = Listing("/subscriptions", "subscriptions", limit, by_backlog, {"topic": topic})
    _list(outside, target, listing, SubscriptionView, as_json, subscriptions_table)


def subscriptions_table(rows: Sequence[SubscriptionView]) -> Table:
    made = table(
        "id", "<topic", "<name", "<kind", "qos", "members", "out", "waiting", "bytes", "oldest",
        "<state",
    )  # fmt: skip
    for row in rows:
        made.add_row(
            str(row.id),
            shown(row.topic),
            shown(row.name or ""),
            Text(f"{row.kind}, pattern" if row.pattern else row.kind),
            str(row.qos),
            str(row.members),
            str(row.unsettled),
            *amount_cells(row.backlog),
            state_text(row),
        )
    return made


def state_text(row: SubscriptionView) -> Text:
    """What is special about a subscription."""
    words = {"slow": row.slow, "parked": row.parked, "behind": row.behind}
    text = ", ".join(word for word, is_so in words.items() if is_so)
    return Text(text, style="bold red" if row.slow else "")


@click.command()
@_LIMIT
@_JSON
@api_options
@click.pass_obj
def connections(
    outside: Outside,
    limit: int | None,
    as_json: bool,
    config_path: Path | None,
    api_url: str | None,
    admin_key_file: Path | None,
) -> None:
    """List connections of clients; addresses and key ids only with an admin key."""
    target = Target(config_path, api_url_option=api_url, admin_key_file=admin_key_file)
    listing = Listing("/connections", "connections", limit)
    _list(outside, target, listing, ConnectionRow, as_json, _connections_table)


def _connections_table(rows: Sequence[ConnectionRow]) -> Table:
    made = table(
        "id", "<address", "<key id", "version", "subscriptions", "out", "uncommitted", "to send",
        "<state",
    )  # fmt: skip
    for row in rows:
        made.add_row(
            str(row.id),
            row.peer or "",
            row.owner or "",
            str(row.version),
            str(row.subscriptions),
            str(row.held),
            str(row.uncommitted),
            str(row.output_bytes),
            "paused" if row.paused else "",
        )
    return made
