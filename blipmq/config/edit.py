"""Writing configuration files: a new one with a comment for every setting, and single changes.

Comments, order and layout of a file stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, MutableMapping
from importlib.resources import files
from pathlib import Path
from typing import cast

import tomlkit
import tomlkit.exceptions
from tomlkit.items import Item

from blipmq.config.settings import settings
from blipmq.config.sources import from_text, nearest
from blipmq.errors import ConfigError

Changes = Iterable[tuple[str, str]]
"""Settings as `table.key`, and their values as text."""


def new_file(changes: Changes = ()) -> str:
    """The text of a file with every setting, its default or what `changes` say, and comments.

    No API key is in it, unless `changes` bring one. Raises ConfigError.
    """
    text = files("blipmq.config").joinpath("example.toml").read_text(encoding="utf-8")
    lines = text.splitlines(keepends=True)
    start = next(number for number, line in enumerate(lines) if not line.strip())
    head = (
        "# The settings of blipmqd, with their defaults unless they were changed.\n#\n"
        "# A variable in the environment goes before this file: BLIPMQ_PORT for port,\n"
        "# BLIPMQ_LIMITS_MAX_TOPICS for max_topics in [limits], and so on.\n"
        "# Times are in milliseconds, sizes in bytes.\n"
    )
    return changed(head + "".join(lines[start:]), [("allowed_api_keys", ""), *changes])


def changed(text: str, changes: Changes) -> str:
    """The text of a TOML file with these settings changed, and all else as it was.

    Raises ConfigError for what is no setting; whether the values can be is for `load_config`.
    """
    try:
        document = tomlkit.parse(text)
    except (tomlkit.exceptions.TOMLKitError, ValueError) as error:
        raise ConfigError(f"expected TOML: {error}") from None
    for key, value in changes:
        its_type = settings().get(key)
        if its_type is None:
            raise ConfigError(f"{key}: unknown key; {_hint(key)}")
        table, _, name = key.rpartition(".")
        within = cast("MutableMapping[str, object]", document)
        if table:
            found = within.get(table)
            if found is None:
                found = within[table] = tomlkit.table()
            if not isinstance(found, MutableMapping):
                raise ConfigError(f"{table}: expected a table [{table}]")
            within = cast("MutableMapping[str, object]", found)
        within[name] = _item(from_text(value, its_type), within.get(name))
    return tomlkit.dumps(document)


def _item(value: object, before: object) -> Item:
    """With the comment on the line of the value before."""
    item = tomlkit.item(value)
    if isinstance(before, Item):
        item.trivia.comment_ws = before.trivia.comment_ws
        item.trivia.comment = before.trivia.comment
        item.trivia.trail = before.trivia.trail
    return item


def write(file: Path, text: str, mode: int) -> None:
    """Write a file whole or not at all. Raises ConfigError."""
    beside = file.with_name(f".{file.name}.new")
    try:
        beside.unlink(missing_ok=True)
        beside.touch(mode)
        beside.write_text(text, encoding="utf-8")
        beside.replace(file)
    except OSError as error:
        raise ConfigError(f"{file}: cannot write it: {error.strerror}") from None


def _hint(key: str) -> str:
    known = settings()
    names = {name.rpartition(".")[2]: name for name in known} | {name: name for name in known}
    near = nearest(key, names, cutoff=0.6)
    return f"did you mean {names[near]}?" if near else "`blipmq config show` lists all"
