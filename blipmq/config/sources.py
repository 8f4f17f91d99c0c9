"""Where settings come from: a file and the environment, merged but not checked yet."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final, get_origin

import tomlkit
import tomlkit.exceptions
import yaml

from blipmq.config.settings import (
    ENVIRONMENT_PREFIX,
    OLDER_NAMES,
    environment_variable,
    settings,
)
from blipmq.errors import ConfigError

CONFIG_VARIABLE: Final = "BLIPMQ_CONFIG"
_NO_SETTINGS: Final = frozenset({CONFIG_VARIABLE, "BLIPMQ_PURE"})
"""Variables that are looked at before there is a configuration."""
CLIENT_PREFIX: Final = "BLIPMQ_CLIENT_"
"""Variables that begin so are for the command `blipmq`, and no settings."""


class Sources:
    """Settings before they are checked, what is wrong so far, and where a setting comes from."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.tables: dict[object, object] = {}
        self.problems: list[str] = []
        self._variables: dict[str, str] = {}
        self._names: dict[str, str] = {}

    def origin(self, key: str) -> str:
        """How an error names `key`: by its environment variable, or by file and key."""
        variable = self._variables.get(key)
        if variable is not None:
            return f"environment variable {variable}"
        return f"{self.file}: {self._names.get(key, key)}"

    def add_file(self, tables: dict[object, object]) -> None:
        self.tables = dict(tables)
        for older, name in OLDER_NAMES.items():
            if older in self.tables:
                if name in self.tables:
                    self.problems.append(
                        f"{self.file}: {older}: expected only one of {older} and {name}, found both"
                    )
                self._names[name] = older
                self.tables[name] = self.tables.pop(older)

    def add_environment(self, environ: Mapping[str, str]) -> None:
        known = {environment_variable(key): key for key in settings()}
        known |= {environment_variable(old): name for old, name in OLDER_NAMES.items()}
        for older, name in OLDER_NAMES.items():
            both = environment_variable(older), environment_variable(name)
            if all(variable in environ for variable in both):
                self.problems.append(
                    f"environment variable {both[0]}: "
                    f"expected only one of {both[0]} and {both[1]}, found both"
                )
        for variable in sorted(environ):
            if variable in _NO_SETTINGS or not variable.startswith(ENVIRONMENT_PREFIX):
                continue
            if variable.startswith(CLIENT_PREFIX):
                continue
            key = known.get(variable)
            if key is not None:
                self._set(key, variable, from_text(environ[variable], settings()[key]))
            else:
                self.problems.append(
                    f"environment variable {variable}: unknown; {_variable_hint(variable, known)}"
                )

    def _set(self, key: str, variable: str, value: object) -> None:
        table, _, name = key.rpartition(".")
        within = self.tables
        if table:
            current = within.get(table)
            if current is not None and not isinstance(current, dict):
                return  # the table itself is a problem, and reported as one
            within[table] = within = dict(current or {})
        within[name] = value
        self._variables[key] = variable


def read(file: Path) -> dict[object, object]:
    """What the file holds, in plain types. Raises `ConfigError`, whose text names the file."""
    parse = _PARSERS.get(file.suffix.lower())
    if parse is None:
        raise ConfigError(f"{file}: expected a name that ends in .toml, .yaml or .yml")
    try:
        found = parse(file.read_text(encoding="utf-8"))
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise ConfigError(f"{file}: cannot read the configuration file: {reason}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: expected UTF-8 text, found something else") from error
    except ValueError as error:
        raise ConfigError(f"{file}: {error}") from error
    if found is None:
        return {}
    if not isinstance(found, dict):
        # by its type alone: what is not in its place may well be an API key
        kind = "list" if isinstance(found, list) else "single value"
        raise ConfigError(f"{file}: expected keys and values, found a {kind}")
    return found


def _from_toml(text: str) -> object:
    try:
        return tomlkit.parse(text).unwrap()
    except (tomlkit.exceptions.TOMLKitError, ValueError) as error:
        raise ValueError(f"expected TOML: {error}") from error


class _YamlLoader(yaml.SafeLoader):
    """Refuses a key that is twice in a table, where PyYAML would take the last."""

    def compose_mapping_node(self, anchor: object) -> yaml.MappingNode:
        # the constructor is too late: by then "<<" has added keys that the table may override
        # and the stubs are wrong: an anchor is a name or None
        node = super().compose_mapping_node(anchor)  # type: ignore[arg-type]
        found = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in found:
                    raise yaml.MarkedYAMLError(
                        problem=f"duplicate key {key.value}", problem_mark=key.start_mark
                    )
                found.add(key.value)
        return node


def _from_yaml(text: str) -> object:
    try:
        return yaml.load(text, _YamlLoader)  # noqa: S506, a safe one
    except RecursionError:
        raise ValueError("expected YAML: nested too deeply") from None
    except yaml.MarkedYAMLError as error:
        # its own text quotes the line, which may hold an API key
        mark = error.problem_mark
        where = f" at line {mark.line + 1} col {mark.column + 1}" if mark else ""
        raise ValueError(f"expected YAML: {error.problem}{where}") from error
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(f"expected YAML: {error}") from error
    except (LookupError, AttributeError) as error:
        # so fails PyYAML for a value that its tag does not fit, as in `!!bool 7`
        raise ValueError("expected YAML: a value does not fit its tag") from error


_PARSERS: Final[dict[str, Callable[[str], object]]] = {
    ".toml": _from_toml,
    ".yaml": _from_yaml,
    ".yml": _from_yaml,
}


_TRUE: Final = frozenset({"true", "1", "yes", "on"})
_FALSE: Final = frozenset({"false", "0", "no", "off"})


def from_text(text: str, its_type: type) -> object:
    """`text` as a setting of this type; as it is where that cannot be, for the check to refuse."""
    if get_origin(its_type) is tuple:
        return [item for item in (part.strip() for part in text.split(",")) if item]
    stripped = text.strip()
    if its_type is bool:
        lowered = stripped.lower()
        return lowered in _TRUE if lowered in _TRUE | _FALSE else text
    if its_type in (int, float):
        try:
            number: object = its_type(stripped)
            return number
        except ValueError:
            return text
    return text if its_type is str else stripped


def _variable_hint(variable: str, known: Iterable[str]) -> str:
    # without the prefix, which would make all of them look alike
    names = {name.removeprefix(ENVIRONMENT_PREFIX): name for name in [*known, *_NO_SETTINGS]}
    names = {  # the first of those that share one
        key.rpartition(".")[2].upper(): environment_variable(key) for key in reversed(settings())
    } | names
    if near := nearest(variable.removeprefix(ENVIRONMENT_PREFIX), names, cutoff=0.6):
        return f"did you mean {names[near]}?"
    return f"expected the name of a setting after {ENVIRONMENT_PREFIX}"


def nearest(name: str, known: Iterable[str], *, cutoff: float) -> str | None:
    """The one of `known` that `name` is most likely meant to be."""
    return next(iter(difflib.get_close_matches(name, known, n=1, cutoff=cutoff)), None)
