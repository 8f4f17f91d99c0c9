"""From the sources to a checked `Config`, or to errors that tell a user what to change."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import get_type_hints

import cattrs

from blipmq.config.checks import CONVERTER, contradictions
from blipmq.config.settings import Config, environment_variable, settings
from blipmq.config.sources import CONFIG_VARIABLE, Sources, nearest, read
from blipmq.errors import ConfigError


def config_file(path: Path | None, environ: Mapping[str, str]) -> Path | None:
    """The file that is read: `path`, else the one that BLIPMQ_CONFIG names; None: no file."""
    if path is not None:
        return path
    named = environ.get(CONFIG_VARIABLE)
    return Path(named) if named else None


def origin(keys: Iterable[str], path: Path | None, environ: Mapping[str, str]) -> str:
    """Where `load_config` has the values of `keys` from, as its errors name it.

    The environment variables that are set for them; with none the file, or "defaults".
    """
    variables = [variable for key in keys if (variable := environment_variable(key)) in environ]
    if not variables:
        return str(config_file(path, environ) or "defaults")
    noun = "variable" if len(variables) == 1 else "variables"
    return f"environment {noun} {', '.join(variables)}"


def load_config(path: Path | None, environ: Mapping[str, str]) -> Config:
    """The configuration from `config_file(path, environ)`, overridden by the environment.

    Raises `ConfigError` with a line for every problem found. A line names the file or the
    environment variable, the key, what was expected and what was found.
    """
    file = config_file(path, environ)
    sources = Sources(str(file or "defaults"))
    if file is not None:
        sources.add_file(read(file))
    sources.add_environment(environ)
    try:
        config = CONVERTER.structure(sources.tables, Config)
    except cattrs.ClassValidationError as error:
        sources.problems.extend(_problems(error, sources))
    else:
        sources.problems.extend(
            f"{sources.origin(key)}: {problem}" for key, problem in contradictions(config)
        )
        if not sources.problems:
            return config
    raise ConfigError("\n".join(sources.problems))


def _problems(
    error: cattrs.ClassValidationError, sources: Sources, table: str = ""
) -> Iterator[str]:
    of_settings, of_table = error.group_exceptions()
    for problem, note in of_settings:
        if isinstance(problem, cattrs.ClassValidationError):
            yield from _problems(problem, sources, f"{note.name}.")
        else:
            yield f"{sources.origin(table + note.name)}: {problem}"
    for problem in of_table:
        if not isinstance(problem, cattrs.ForbiddenExtraKeysError):
            raise problem
        for name in sorted(map(str, problem.extra_fields)):
            yield f"{sources.file}: {table}{name}: unknown key; {_hint(name, table, problem.cl)}"


def _hint(name: str, table: str, its_type: type) -> str:
    here = list(get_type_hints(its_type))
    # the first of those that share a name
    keys = {key.rpartition(".")[2]: key for key in reversed(settings())}
    keys |= {name_here: table + name_here for name_here in here}
    if near := nearest(name, keys, cutoff=0.6):
        return f"did you mean {keys[near]}?"
    return f"expected one of {', '.join(here)}"
