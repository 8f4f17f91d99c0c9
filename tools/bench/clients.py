"""Client processes: they begin when all are ready, and report as they go on.

A client in the process that starts the broker, or in the broker's own, would share its interpreter
with something else that is measured; so each is a process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Generic, TypeVar

import attrs

T = TypeVar("T")
Go = Callable[[], None]
"""Returns when all clients are ready."""
Work = Callable[[Go], Iterator[T]]
"""What a client does: it prepares, calls `go`, works, and yields what it has to report."""


class ClientFailed(Exception):
    """A client process ended with an error, which it has written to standard error."""


@attrs.define(eq=False)
class Client(Generic[T]):
    """One client process."""

    _process: BaseProcess
    _pipe: Connection

    @classmethod
    def start(cls, work: Work[T]) -> Client[T]:
        """Start it; it prepares."""
        context = get_context("fork")
        ours, theirs = context.Pipe()
        process = context.Process(target=_run, args=(work, theirs), daemon=True)
        process.start()
        # That a client has ended shows only when nobody else holds its side of the pipe.
        theirs.close()
        return cls(process, ours)

    def wait_ready(self) -> None:
        """Return when it has prepared. Raises ClientFailed."""
        try:
            self._pipe.recv()
        except EOFError:
            raise ClientFailed from None

    def go(self) -> None:
        """Let it work."""
        self._pipe.send(None)

    def reports(self) -> Iterator[T]:
        """What it reports, until it has ended. Raises ClientFailed."""
        while True:
            try:
                report: T = self._pipe.recv()
            except EOFError:
                break
            yield report
        self._process.join()
        if self._process.exitcode:
            raise ClientFailed

    def last_report(self) -> T:
        """What it reports at its end. Raises ClientFailed."""
        *_, last = self.reports()
        return last

    def end(self) -> None:
        """End it, if it has not ended."""
        self._process.terminate()
        self._process.join()
        self._pipe.close()


@contextmanager
def working(works: Sequence[Work[T]]) -> Iterator[list[Client[T]]]:
    """Clients that do this, from the moment at which all are ready. Raises ClientFailed."""
    clients: list[Client[T]] = []
    try:
        for work in works:
            clients.append(Client.start(work))
        for client in clients:
            client.wait_ready()
        for client in clients:
            client.go()
        yield clients
    finally:
        for client in clients:
            client.end()


def _run(work: Work[T], pipe: Connection) -> None:
    def go() -> None:
        pipe.send(None)
        pipe.recv()

    for report in work(go):
        pipe.send(report)
