"""Any file and any environment are a configuration, or a ConfigError says what is wrong.

The first byte of an input says what the file is; with its top bit the first line of the rest goes
into a variable of the environment.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final, get_type_hints

import attrs

from blipmq.config import Config, environment_variable, load_config, settings
from blipmq.errors import ConfigError
from tests.fuzz.choices import Choices

_SUFFIXES: Final = (".toml", ".yaml", ".yml", ".ini")
_VARIABLES: Final = [*map(environment_variable, settings()), "BLIPMQ_NONE", "PATH"]


def check(data: bytes) -> None:
    """Raises for what neither is a configuration nor is refused as none."""
    choices = Choices(data)
    kind = choices.number()
    environ = {}
    if kind & 0x80:
        variable = _VARIABLES[choices.number() % len(_VARIABLES)]
        line = choices.take(choices.number())
        environ[variable] = line.replace(b"\0", b"").decode("utf-8", "surrogateescape")
    with tempfile.NamedTemporaryFile(suffix=_SUFFIXES[kind % len(_SUFFIXES)]) as file:
        file.write(choices.rest())
        file.flush()
        try:
            found = load_config(Path(file.name), environ)
        except ConfigError:
            return
    assert isinstance(found, Config)
    assert b"\0" not in found.wal_path.encode()
    for value in _values(found):
        assert not isinstance(value, str) or value == value.encode().decode()
        assert not isinstance(value, int) or -1 < value < 2**63


def _values(settings: object) -> Iterator[object]:
    if attrs.has(type(settings)):
        for name in get_type_hints(type(settings)):
            yield from _values(getattr(settings, name))
    elif isinstance(settings, tuple):
        for item in settings:
            yield from _values(item)
    else:
        yield settings
