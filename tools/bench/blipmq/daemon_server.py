"""`blipmqd` as a server, and one that runs already."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import attrs

from tools.bench.daemon import running_daemon
from tools.bench.directory import log_directory
from tools.bench.load.server import Address

LIMITS = {
    "BLIPMQ_LIMITS_QUEUE_CAPACITY": "1000000",
    "BLIPMQ_LIMITS_QUEUE_BYTES": str(1 << 30),
    "BLIPMQ_RETRY_BACKOFF_MS": "60000",
}
"""So that version 1 drops nothing, and nothing comes twice."""


@attrs.frozen
class Daemon:
    address: Address
    pids: Sequence[int] = ()


@attrs.frozen(kw_only=True)
class BlipmqServer:
    """A broker of this project. `fsync_policy` None: without a log.

    `python` is the interpreter of the environment that has it, by default this one; `environment`
    are more variables of it.
    """

    fsync_policy: str | None = None
    directory: Path = attrs.Factory(lambda: Path(tempfile.gettempdir()))
    environment: Mapping[str, str] = attrs.Factory(dict)
    python: str | None = None
    name: str = "blipmq"

    @property
    def settings(self) -> Mapping[str, str]:
        log = self.fsync_policy or "no log"
        return {"wal": log, **LIMITS, **self.environment}

    @contextmanager
    def start(self) -> Iterator[Daemon]:
        environment = {**LIMITS, **self.environment}
        with log_directory(self.directory) as log:
            wal_path = "" if self.fsync_policy is None else str(log)
            policy = self.fsync_policy or "none"
            with running_daemon(wal_path, policy, environment, python=self.python) as daemon:
                yield Daemon(daemon.address, (daemon.process.pid,))


@attrs.frozen
class GivenServer:
    """One that runs already; nothing is known of its processes and settings."""

    address: Address
    name: str = "blipmq"

    @property
    def settings(self) -> Mapping[str, str]:
        return {"address": f"{self.address[0]}:{self.address[1]}"}

    @contextmanager
    def start(self) -> Iterator[Daemon]:
        yield Daemon(self.address)
