"""`blipmq config`: checking, showing, making and changing the configuration of a daemon."""

from __future__ import annotations

import json
import os
import stat
import tempfile
from operator import attrgetter
from pathlib import Path

import click

from blipmq.cli.keys import new_key
from blipmq.cli.tables import output, shown, table
from blipmq.config import Config, config_file, edit, load_config, origin, settings
from blipmq.errors import ConfigError

_SECRET_MODE = 0o600
_FILE = click.argument("file", required=False, type=click.Path(path_type=Path, dir_okay=False))


@click.group()
def config() -> None:
    """The configuration of a daemon. FILE is what --config of `blipmqd` names.

    Without FILE it is the one that BLIPMQ_CONFIG names; variables in the environment go before it.
    """


@config.command()
@_FILE
def check(file: Path | None) -> None:
    """Check a configuration, with the environment. The exit status is 2 when it cannot be used."""
    load_config(file, os.environ)
    found = config_file(file, os.environ)
    click.echo(f"valid: {found or 'the defaults, no configuration file given'}")


@config.command()
@_FILE
@click.option("--json", "as_json", is_flag=True, help="For programs: one JSON object.")
def show(file: Path | None, as_json: bool) -> None:
    """Show every setting, and where its value comes from. Keys are not shown, only counted."""
    loaded = load_config(file, os.environ)
    rows = [(key, _shown_value(key, loaded), _origin(key, loaded, file)) for key in settings()]
    if as_json:
        document = {key: {"value": value, "from": source} for key, value, source in rows}
        click.echo(json.dumps(document, ensure_ascii=False, indent=2))
        return
    made = table("<setting", "<value", "<from")
    for key, value, source in rows:
        made.add_row(key, shown(str(value)), shown(source))
    output().print(made)


def _shown_value(key: str, loaded: Config) -> object:
    value: object = attrgetter(key)(loaded)
    if isinstance(value, tuple):
        return f"{len(value)} keys"
    return value if isinstance(value, bool | int | str) else str(value)


def _origin(key: str, loaded: Config, file: Path | None) -> str:
    getter = attrgetter(key)
    if getter(loaded) == getter(Config()):
        return "default"
    return origin([key], file, os.environ)


@config.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="KEY=VALUE",
    help="Another value than the default; may be given again.",
)
@click.option("--force", is_flag=True, help="Also when FILE is there.")
def init(file: Path, changes: tuple[str, ...], force: bool) -> None:
    """Write FILE, a commented configuration with every setting and one new API key.

    Only its owner can read it.
    """
    _require_toml(file)
    if file.exists() and not force:
        raise ConfigError(f"{file}: is there already; `blipmq config set` changes it, or --force")
    pairs = [_pair(change) for change in changes]
    if not any(key == "allowed_api_keys" for key, _ in pairs):
        pairs.append(("allowed_api_keys", new_key()))
    text = edit.new_file(pairs)
    _check(text, file)
    edit.write(file, text, _SECRET_MODE)
    click.echo(f"written: {file}; start the daemon with `blipmqd --config {file}`")


@config.command("set")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.argument("key")
@click.argument("value")
def set_(file: Path, key: str, value: str) -> None:
    """Change one setting of FILE; its comments stay. KEY is as `show` has it: limits.max_topics.

    Lists, as allowed_api_keys, are separated by commas. Nothing is written that the daemon would
    refuse.
    """
    _require_toml(file)
    try:
        before = file.read_text(encoding="utf-8")
        mode = stat.S_IMODE(file.stat().st_mode)
    except OSError as error:
        raise ConfigError(
            f"{file}: cannot read it: {error.strerror}; `blipmq config init` makes one"
        ) from None
    except UnicodeDecodeError:
        raise ConfigError(f"{file}: expected UTF-8 text, found something else") from None
    try:
        text = edit.changed(before, [(key, value)])
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from None
    _check(text, file)
    edit.write(file, text, mode)
    click.echo(f"changed: {file}; the daemon reads it when it starts")


def _pair(change: str) -> tuple[str, str]:
    key, equals, value = change.partition("=")
    if not equals:
        raise click.BadParameter(f"expected KEY=VALUE, found {change!r}", param_hint="--set")
    return key.strip(), value


def _require_toml(file: Path) -> None:
    if file.suffix.lower() != ".toml":
        raise ConfigError(f"{file}: expected a name that ends in .toml; edit others by hand")


def _check(text: str, file: Path) -> None:
    """Raises ConfigError for what a daemon would refuse, with the name of the file."""
    with tempfile.TemporaryDirectory() as directory:
        beside = Path(directory) / file.name
        beside.write_text(text, encoding="utf-8")
        try:
            load_config(beside, {})
        except ConfigError as error:
            raise ConfigError(str(error).replace(str(beside), str(file))) from None
