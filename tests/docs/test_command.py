"""`docs/command.md` has every command, exit status and path of the API."""

from __future__ import annotations

import re

import click

from blipmq.cli import statuses, target
from blipmq.cli.blipmq import command
from blipmq.config import Config
from blipmq.nursery import root
from blipmq.nursery.admin import admin_routes
from blipmq.nursery.api import read_routes
from blipmq.nursery.http_app import Routes
from blipmq.nursery.outside import Outside
from tests.docs.markdown import Document

COMMAND = Document.read("docs/command.md")


def first_cells(*header: str) -> list[str]:
    return [row[0] for row in COMMAND.tables(*header)]


def test_every_command_has_a_row() -> None:
    rows = [cell.strip("`").split()[1] for cell in first_cells("command", "does")]
    assert rows == list(command.commands)


def test_every_command_inside_a_group_is_named() -> None:
    described = {row[0].strip("`").split()[1]: row[1] for row in COMMAND.tables("command", "does")}
    for name, group in command.commands.items():
        if isinstance(group, click.Group) and name != "wal":
            named = set(re.findall(r"`(\w+)`", described[name]))
            assert set(group.commands) <= named


def test_every_exit_status_has_a_row() -> None:
    numbers = {
        value for name, value in vars(statuses).items() if name.isupper() and type(value) is int
    }
    assert {int(cell) for cell in first_cells("exit status", "meaning")} == {0, *numbers}


def test_every_variable_has_a_row() -> None:
    names = {target.URL, target.API_KEY, target.API_URL, target.ADMIN_KEY}
    assert {cell.strip("`") for cell in first_cells("variable", "option", "")} == names


async def test_every_path_of_the_api_has_a_row() -> None:
    state = root.new_state(Config(wal_path=""), Outside())
    assert rows_with("") == requests(read_routes(state))
    assert rows_with("admin") == requests(admin_routes(state))


def rows_with(key: str) -> set[str]:
    rows = [row for row in COMMAND.tables("request", "key", "answer") if row[1] == key]
    return {row[0].strip("`").partition("?")[0] for row in rows}


def requests(routes: Routes) -> set[str]:
    return {
        f"{method} {path.replace('{}', 'ID')}"
        for path, handlers in routes.items()
        for method in handlers
    }
