"""Client processes: they begin when they are told to, and report as they go on.

A client in the process that starts the broker, or in the broker's own, would share its interpreter
with something else that is measured; so each is a process.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Generic, TypeVar

import attrs

from tools.bench.load.wire import Refused
from tools.bench.load.work import Miscounted

T = TypeVar("T")
Go = Callable[[], None]
"""Returns when all clients are ready."""
Work = Callable[[Go], Iterator[T]]
"""What a client does: it prepares, calls `go`, works, and yields what it has to report."""
_EXPECTED = (Refused, Miscounted, ConnectionError)


class ClientFailed(Exception):
    """A client process ended with an error; its traceback went to standard error if it is a bug."""


@attrs.frozen
class _Failure:
    text: str


@attrs.define(eq=False)
class Client(Generic[T]):
    """One client process."""

    _process: BaseProcess
    pipe: Connection
    """Readable when there is a report, or the client has ended."""

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

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def wait_ready(self) -> None:
        """Return when it has prepared. Raises ClientFailed."""
        try:
            self._receive()
        except EOFError:
            raise ClientFailed("a client ended before it was ready") from None

    def go(self) -> None:
        """Let it work."""
        self.pipe.send(None)

    def reports(self) -> Iterator[T]:
        """What it reports, until it has ended. Raises ClientFailed."""
        while True:
            try:
                report = self._receive()
            except EOFError:
                break
            yield report
        self._process.join()
        if self._process.exitcode:
            raise ClientFailed(f"a client ended with status {self._process.exitcode}")

    def last_report(self) -> T:
        """What it reports at its end. Raises ClientFailed."""
        *_, last = self.reports()
        return last

    def _receive(self) -> T:
        report: T | _Failure = self.pipe.recv()
        if isinstance(report, _Failure):
            raise ClientFailed(report.text)
        return report

    def end(self) -> None:
        """End it, if it has not ended."""
        self._process.terminate()
        self._process.join()
        self.pipe.close()


@contextmanager
def ready(works: Sequence[Work[T]]) -> Iterator[list[Client[T]]]:
    """Clients that will do this when they are told to go. Raises ClientFailed."""
    clients: list[Client[T]] = []
    try:
        for work in works:
            clients.append(Client.start(work))
        for client in clients:
            client.wait_ready()
        yield clients
    finally:
        for client in clients:
            client.end()


@contextmanager
def working(works: Sequence[Work[T]]) -> Iterator[list[Client[T]]]:
    """Clients that do this, from the moment at which all are ready. Raises ClientFailed."""
    with ready(works) as clients:
        for client in clients:
            client.go()
        yield clients


def _run(work: Work[T], pipe: Connection) -> None:
    def go() -> None:
        pipe.send(None)
        pipe.recv()

    try:
        for report in work(go):
            pipe.send(report)
    except Exception as error:  # noqa: BLE001, the process that waits for us is told of any
        if not isinstance(error, _EXPECTED):
            traceback.print_exc()
        pipe.send(_Failure(f"{type(error).__name__}: {error}"))
    except KeyboardInterrupt:
        pass  # the process that started us says what there is to be said
