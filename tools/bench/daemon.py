"""A broker process to measure: starting it, ending it, and what the kernel knows of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import attrs

from tools.bench.load import server as account

API_KEY = "bench"


class DidNotStart(Exception):
    """The broker ended before it took clients; what it said."""


@attrs.define
class MeasuredDaemon:
    """A running `blipmqd`; figures are read from the kernel's account of the process.

    `start_seconds` is what passed from its creation until it took clients.
    """

    process: subprocess.Popen[str]
    address: tuple[str, int]
    start_seconds: float

    def _account(self, name: str) -> Path:
        return Path(f"/proc/{self.process.pid}/{name}")

    def _number(self, account: str, key: str) -> int:
        for line in self._account(account).read_text().splitlines():
            if line.startswith(f"{key}:"):
                return int(line.split()[1])
        raise RuntimeError(f"the kernel does not tell {key} of a process")

    def cpu_seconds(self) -> float:
        """Processor time so far, user and system."""
        return account.cpu_seconds([self.process.pid])

    def memory_bytes(self) -> int:
        """What it has in memory now, files that it has mapped included."""
        return self._number("status", "VmRSS") * 1024

    def peak_memory_bytes(self) -> int:
        """The most that it had in memory, since its start or `forget_peak`."""
        return account.peak_memory_bytes([self.process.pid])

    def forget_peak(self) -> None:
        """Let `peak_memory_bytes` begin anew."""
        account.forget_peak([self.process.pid])

    def wakings(self) -> int:
        """How often its threads have waited, and gone on."""
        name = "voluntary_ctxt_switches"
        return sum(
            self._number(f"task/{thread.name}/status", name)
            for thread in self._account("task").iterdir()
        )

    def written_bytes(self) -> int:
        """Bytes that it gave to files."""
        return self._number("io", "wchar")

    def kill(self) -> None:
        """End it as a crash would."""
        self.process.kill()
        self.process.wait()


@contextmanager
def running_daemon(
    wal_path: str,
    fsync_policy: str,
    settings: Mapping[str, str] | None = None,
    *,
    python: str | None = None,
) -> Iterator[MeasuredDaemon]:
    """Start a broker on free ports, and end it with SIGTERM. An empty `wal_path`: no log.

    `settings` are variables of its environment; what they do not name is as by default.
    `python` is the interpreter that has the broker, if it is not this one.
    """
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("BLIPMQ_")}
    environment = {
        **inherited,
        "BLIPMQ_PORT": "0",
        "BLIPMQ_METRICS_PORT": "0",
        "BLIPMQ_WAL_PATH": wal_path,
        "BLIPMQ_FSYNC_POLICY": fsync_policy,
        "BLIPMQ_ALLOWED_API_KEYS": API_KEY,
        "BLIPMQ_LOGGING_FORMAT": "json",
        **(settings or {}),
    }
    command = [python or sys.executable, "-P", "-m", "blipmq"]
    began = time.perf_counter()
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        try:
            host, _, port = _ready(process)["address"].rpartition(":")
            yield MeasuredDaemon(process, (host, int(port)), time.perf_counter() - began)
        finally:
            process.send_signal(signal.SIGTERM)


def _ready(process: subprocess.Popen[str]) -> dict[str, str]:
    assert process.stderr is not None
    told = ""
    for line in process.stderr:
        told += line
        if line.startswith("{"):
            event: dict[str, str] = json.loads(line)
            if event["event"] == "ready":
                return event
    raise DidNotStart(f"the broker did not start:\n{told}")
