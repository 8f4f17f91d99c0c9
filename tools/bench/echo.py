"""A bare Trio server that answers so many bytes with so many: what a broker on Trio can come near.

It does nothing else: no frames, no parsing, one task for each connection. Clients ask one request
at a time, as those of a broker do when one message at a time is measured.
"""

from __future__ import annotations

import gc
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial

import attrs
import trio

from tools.bench.load import server as account
from tools.bench.load.clients import Go, ready
from tools.bench.load.kinds import Report
from tools.bench.load.latencies import Latencies
from tools.bench.load.runner import Pinning, Result, pin_all, summary
from tools.bench.load.server import Address
from tools.bench.load.stream import receive_exactly

_READ_BYTES = 1 << 16


@attrs.frozen
class _Echo:
    address: Address
    pids: tuple[int, ...]


@attrs.frozen
class EchoServer:
    """Answers every `request_bytes` with `reply_bytes`."""

    request_bytes: int
    reply_bytes: int
    name: str = "echo"

    @property
    def settings(self) -> Mapping[str, str]:
        return {"request": f"{self.request_bytes} bytes", "reply": f"{self.reply_bytes} bytes"}

    @contextmanager
    def start(self) -> Iterator[_Echo]:
        sizes = [str(self.request_bytes), str(self.reply_bytes)]
        command = [sys.executable, "-m", "tools.bench.echo", *sizes]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                port = int(process.stdout.readline())
                yield _Echo(("127.0.0.1", port), (process.pid,))
            finally:
                process.terminate()


def measure(
    echo: EchoServer, connections: int, count: int, *, pinning: Pinning | None = None
) -> Result:
    """So many requests in all, one at a time on each connection."""
    each = max(1, count // connections)
    with echo.start() as running:
        works = [partial(_ask, running.address, echo, each) for _ in range(connections)]
        with ready(works) as clients:
            pin_all(running, clients, pinning)
            cpu = account.cpu_seconds(running.pids)
            for client in clients:
                client.go()
            reports = [client.last_report() for client in clients]
            cpu = account.cpu_seconds(running.pids) - cpu
            peak = account.peak_memory_bytes(running.pids)
        return summary(running, "wire", [], reports, reports, cpu, peak)


def _ask(address: Address, echo: EchoServer, count: int, go: Go) -> Iterator[Report]:
    gc.disable()
    request = bytes(echo.request_bytes)
    latencies = Latencies()
    with socket.create_connection(address) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        go()
        began = time.monotonic_ns()
        for _ in range(count):
            sent = time.monotonic_ns()
            sock.sendall(request)
            receive_exactly(sock, echo.reply_bytes)
            latencies.add(time.monotonic_ns() - sent)
        yield Report(began, time.monotonic_ns(), count, latencies.encoded())


async def _serve(request_bytes: int, reply_bytes: int) -> None:
    listener = trio.socket.socket()
    await listener.bind(("127.0.0.1", 0))
    listener.listen(128)
    print(listener.getsockname()[1], flush=True)
    async with trio.open_nursery() as nursery:
        while True:
            sock, _ = await listener.accept()
            nursery.start_soon(_answer, sock, request_bytes, bytes(reply_bytes))


async def _answer(sock: trio.socket.SocketType, request_bytes: int, reply: bytes) -> None:
    waiting = 0
    with sock:
        sock.setsockopt(trio.socket.IPPROTO_TCP, trio.socket.TCP_NODELAY, 1)
        while data := await sock.recv(_READ_BYTES):
            requests, waiting = divmod(waiting + len(data), request_bytes)
            unsent = memoryview(reply * requests)
            while unsent:
                unsent = unsent[await sock.send(unsent) :]


if __name__ == "__main__":
    trio.run(_serve, int(sys.argv[1]), int(sys.argv[2]))
