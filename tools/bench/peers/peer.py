"""A broker that BlipMQ is compared with, as the load engine takes one."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import attrs

from tools.bench.load.server import Address
from tools.bench.peers.process import HOST, free_port, running


@attrs.frozen
class RunningPeer:
    """A started broker."""

    address: Address
    pids: Sequence[int]


@attrs.frozen
class Launch:
    """How a process of a broker is started in its directory; it is up when it listens there."""

    command: Sequence[str]
    port: int
    environment: Mapping[str, str] = attrs.field(factory=dict)


@attrs.frozen
class PeerServer:
    """A peer's broker with its settings; `launch` says which processes serve on a port.

    `launch` may write files into the directory that it is given. Starting raises Missing and
    DidNotStart.
    """

    name: str
    settings: Mapping[str, str]
    launch: Callable[[Path, int], Sequence[Launch]]
    within: Path | None = None
    """Where its directory is made, on the disk that is meant; None: with other temporary files."""

    @contextmanager
    def _started(self) -> Iterator[RunningPeer]:
        with (
            tempfile.TemporaryDirectory(
                prefix="bench-peer-", dir=self.within, ignore_cleanup_errors=True
            ) as name,
            ExitStack() as processes,
        ):
            directory = Path(name)
            port = free_port()
            pids = [
                processes.enter_context(
                    running(launch.command, directory, launch.port, launch.environment)
                ).pid
                for launch in self.launch(directory, port)
            ]
            yield RunningPeer((HOST, port), pids)

    def start(self) -> AbstractContextManager[RunningPeer]:
        """Run it on a free port and in a directory of its own, both gone in the end."""
        return self._started()
