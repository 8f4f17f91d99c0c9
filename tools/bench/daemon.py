"""A broker process to measure."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs

API_KEY = "bench"


@attrs.define
class MeasuredDaemon:
    """A running `blipmqd`; figures are read from the kernel's account of the process."""

    process: subprocess.Popen[str]
    address: tuple[str, int]

    def cpu_seconds(self) -> float:
        """Processor time so far, user and system."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def peak_memory_bytes(self) -> int:
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
        raise RuntimeError("the kernel does not tell the peak memory of a process")


@contextmanager
def running_daemon(wal_path: str, fsync_policy: str) -> Iterator[MeasuredDaemon]:
    """Start a broker on free ports, and end it with SIGTERM. An empty `wal_path`: no log."""
    environment = {
        **os.environ,
        "BLIPMQ_PORT": "0",
        "BLIPMQ_METRICS_PORT": "0",
        "BLIPMQ_WAL_PATH": wal_path,
        "BLIPMQ_FSYNC_POLICY": fsync_policy,
        "BLIPMQ_ALLOWED_API_KEYS": API_KEY,
        "BLIPMQ_LOGGING_FORMAT": "json",
        "BLIPMQ_LIMITS_QUEUE_CAPACITY": "1000000",
        "BLIPMQ_LIMITS_QUEUE_BYTES": str(1 << 30),
        "BLIPMQ_RETRY_BACKOFF_MS": "60000",
    }
    command = [sys.executable, "-m", "blipmq"]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        try:
            host, _, port = _ready(process)["address"].rpartition(":")
            yield MeasuredDaemon(process, (host, int(port)))
        finally:
            process.send_signal(signal.SIGTERM)


def _ready(process: subprocess.Popen[str]) -> dict[str, str]:
    assert process.stderr is not None
    for line in process.stderr:
        event: dict[str, str] = json.loads(line)
        if event["event"] == "ready":
            return event
    raise RuntimeError("the broker did not start")
