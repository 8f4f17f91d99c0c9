"""`blipmqd`: the broker daemon as a command, and what its exit status means.

0: ended by a graceful shutdown. 1: failed. 2: the command line or the configuration
cannot be used, an address to listen on included.
"""

from __future__ import annotations

import gc
import os
import resource
import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final

import click
import structlog
import trio
from structlog.typing import FilteringBoundLogger

from blipmq import logs
from blipmq.cli.task_signal import TaskSignal
from blipmq.config import (
    Config,
    config_file,
    environment_variable,
    load_config,
    origin,
    settings,
)
from blipmq.errors import ConfigError, LogError
from blipmq.nursery import root
from blipmq.nursery.outside import Outside

FAILED: Final = 1
_OTHER_FILES: Final = 64
UNUSABLE: Final = 2
INTERRUPTED: Final = 130
"""As shells say it; only before the daemon listens for signals itself."""

log: FilteringBoundLogger = structlog.get_logger()


def main() -> None:
    """The `blipmqd` command; exits the process."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run the BlipMQ message broker."""
    try:
        status = command.main(arguments, prog_name="blipmqd", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        return INTERRUPTED
    assert isinstance(status, int)
    return status


@click.command()
@click.option(
    "--config",
    "path",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="TOML or YAML configuration; else the file that BLIPMQ_CONFIG names; else defaults.",
)
@click.option("--check-config", is_flag=True, help="Check the configuration and exit.")
@click.version_option(package_name="blipmq", prog_name="blipmqd")
def command(path: Path | None, check_config: bool) -> int:
    """Run the BlipMQ message broker until SIGINT or SIGTERM.

    Every setting can also be given in the environment: BLIPMQ_PORT for port,
    BLIPMQ_LIMITS_MAX_TOPICS for max_topics in the table [limits].
    """
    file = config_file(path, os.environ)
    source = "the defaults, no configuration file given" if file is None else str(file)
    try:
        config = load_config(path, os.environ)
    except ConfigError as error:
        return _unusable(str(error))
    if check_config:
        click.echo(f"blipmqd: configuration is valid: {source}")
        return 0
    logs.configure(config.logging.level, config.logging.format)
    log.info("starting", configuration=source)
    if not config.allowed_api_keys:
        log.warning(
            "no API key is allowed, so no client can authenticate",
            config_key="allowed_api_keys",
            environment_variable=environment_variable("allowed_api_keys"),
        )
    _allow_descriptors(config.limits.max_connections)
    return _serve(config, path)


_GC_THRESHOLDS = (50_000, 50, 50)
"""How many more objects there are when the garbage collector looks at them, and at older ones."""


def _allow_descriptors(connections: int) -> None:
    """Let this process have as many open files as the system lets it, and say if they are few."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < connections + _OTHER_FILES:
        log.warning("fewer open files are allowed than max_connections needs", allowed=soft)


def _serve(config: Config, path: Path | None) -> int:
    # What is there now stays; and messages are no cycles, so looking for some is seldom worth it.
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)
    instruments = [TaskSignal(sys.stderr)] if config.enable_trio_console else []
    try:
        outside = Outside(load=partial(load_config, path, os.environ))
        serve = partial(root.serve, config, outside=outside)
        trio.run(serve, instruments=instruments)
    except (Exception, BaseExceptionGroup, KeyboardInterrupt) as error:  # noqa: BLE001, logged
        return _failed(error, path)
    return 0


def _failed(error: BaseException, path: Path | None) -> int:
    causes = list(_leaves(error))
    if all(isinstance(cause, KeyboardInterrupt) for cause in causes):
        return INTERRUPTED
    if all(isinstance(cause, ConfigError) for cause in causes):
        return _unusable(*(_with_origin(str(cause), path) for cause in causes))
    if all(isinstance(cause, ConfigError | LogError) for cause in causes):
        for cause in causes:
            log.error("stopped", error=" ".join(str(cause).split()))
    else:
        log.error("stopped by a bug", exc_info=error)
    return FAILED


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


def _with_origin(text: str, path: Path | None) -> str:
    """The text of a daemon that knows which keys it cannot use, but not who has set them."""
    keys = text.partition(": ")[0].split(", ")
    if not settings().keys() >= set(keys):
        return text
    return f"{origin(keys, path, os.environ)}: {text}"


def _unusable(*texts: str) -> int:
    for text in texts:
        for line in text.splitlines():
            click.echo(f"blipmqd: {line}", err=True)
    return UNUSABLE
