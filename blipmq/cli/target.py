"""Which daemon a command is for: its addresses and keys, from options, the environment, a file.

An option goes before its variable `BLIPMQ_CLIENT_...`, and that before the configuration of the
daemon: the one that BLIPMQ_CONFIG names, or --config, with the variables of its settings. So on the
machine of the daemon nothing needs to be said.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, ParamSpec, TypeVar
from urllib.parse import urlsplit

import attrs
import click

from blipmq.config import Config, load_config
from blipmq.errors import ConfigError

URL: Final = "BLIPMQ_CLIENT_URL"
API_URL: Final = "BLIPMQ_CLIENT_API"
API_KEY: Final = "BLIPMQ_CLIENT_API_KEY"
ADMIN_KEY: Final = "BLIPMQ_CLIENT_ADMIN_KEY"

P = ParamSpec("P")
R = TypeVar("R")

_EVERYWHERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104
"""Where to connect to a daemon that listens on all addresses."""

_CONFIG = click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="The daemon's configuration, for its addresses and keys; else BLIPMQ_CONFIG.",
)
_URL = click.option("--url", metavar="URL", help=f"The broker, as blipmq://HOST:PORT; else {URL}.")
_API_KEY_FILE = click.option(
    "--api-key-file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help=f"Has the API key in its first line; else {API_KEY} is the key.",
)
_API_URL = click.option(
    "--api",
    "api_url",
    metavar="URL",
    help=f"The daemon's metrics address, as http://HOST:PORT; else {API_URL}.",
)
_ADMIN_KEY_FILE = click.option(
    "--admin-key-file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help=f"Has the admin key in its first line; else {ADMIN_KEY} is the key.",
)


def broker_options(function: Callable[P, R]) -> Callable[P, R]:
    """What a command takes that talks to the broker as a client."""
    return _URL(_API_KEY_FILE(_CONFIG(function)))


def api_options(function: Callable[P, R]) -> Callable[P, R]:
    """What a command takes that asks the API."""
    return _API_URL(_ADMIN_KEY_FILE(_CONFIG(function)))


@attrs.define
class Target:
    """Looks up each value when it is asked for. Raises ConfigError for what cannot be found."""

    config_path: Path | None = None
    url_option: str | None = None
    api_url_option: str | None = None
    api_key_file: Path | None = None
    admin_key_file: Path | None = None
    environ: Mapping[str, str] = attrs.field(factory=lambda: os.environ, repr=False)
    _config: Config | None = attrs.field(default=None, init=False, repr=False)

    @property
    def config(self) -> Config:
        if self._config is None:
            self._config = load_config(self.config_path, self.environ)
        return self._config

    @property
    def url(self) -> str:
        """The broker's."""
        given = self.url_option or self.environ.get(URL)
        if given is not None:
            return given
        return f"blipmq://{_address(self.config.bind_addr, self.config.port, URL)}"

    @property
    def api_key(self) -> str:
        key = _key(self.api_key_file, self.environ.get(API_KEY))
        if key is None and self.config.allowed_api_keys:
            key = self.config.allowed_api_keys[0]
        if key is None:
            raise ConfigError(
                f"no API key; set {API_KEY}, or give --api-key-file or the daemon's --config"
            )
        return key

    @property
    def api_url(self) -> str:
        """The API's base."""
        given = self.api_url_option or self.environ.get(API_URL)
        if given is None:
            config = self.config
            return f"http://{_address(config.metrics_addr, config.metrics_port, API_URL)}"
        if not _is_base(given):
            raise ConfigError(f"{given!r} is no address of the API; expected http://HOST:PORT")
        return given.rstrip("/")

    @property
    def admin_key(self) -> str | None:
        """None where there is none: much can be read without."""
        key = _key(self.admin_key_file, self.environ.get(ADMIN_KEY))
        if key is None and self.api_url_option is None and API_URL not in self.environ:
            key = next(iter(self.config.admin.allowed_keys), None)
        if key is not None and not (key.isascii() and key.isprintable()):
            raise ConfigError("an admin key that is sent has printable ASCII characters alone")
        return key


def _is_base(url: str) -> bool:
    try:
        parts = urlsplit(url)
        named = bool(parts.hostname) and parts.port != 0 and url.isascii() and url.isprintable()
    except ValueError:
        return False
    bare = parts.path in ("", "/") and not parts.query and not parts.fragment
    return parts.scheme == "http" and named and bare and "@" not in parts.netloc


def _address(host: str, port: int, variable: str) -> str:
    if not port:
        raise ConfigError(f"the daemon's port is 0, any free one; say which, with {variable}")
    host = _EVERYWHERE.get(host, host)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _key(file: Path | None, variable: str | None) -> str | None:
    if file is None:
        return variable or None
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ConfigError(f"{file}: cannot read the key: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{file}: a key is UTF-8") from None
    if not lines or not lines[0]:
        raise ConfigError(f"{file}: the first line has no key")
    return lines[0]
