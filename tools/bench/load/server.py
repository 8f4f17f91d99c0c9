"""A broker to put load on, and what the kernel knows of its processes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Protocol

Address = tuple[str, int]


class Running(Protocol):
    """A broker that takes clients."""

    @property
    def address(self) -> Address: ...

    @property
    def pids(self) -> Sequence[int]:
        """Its processes, those that they started not included; none when it is not ours."""


class Server(Protocol):
    """A broker with its settings, which is started for a measurement."""

    @property
    def name(self) -> str: ...

    @property
    def settings(self) -> Mapping[str, str]:
        """To be shown with the figures: all that is not as by default."""

    def start(self) -> AbstractContextManager[Running]:
        """Run it on free ports and a directory of its own, both gone in the end."""


def with_children(pids: Iterable[int]) -> list[int]:
    """The processes, and those that they have started and that are still there."""
    found = []
    waiting = list(pids)
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        with suppress(FileNotFoundError, ProcessLookupError):
            for task in Path(f"/proc/{pid}/task").iterdir():
                waiting += map(int, (task / "children").read_text().split())
    return found


def cpu_seconds(pids: Iterable[int]) -> float:
    """Processor time so far, user and system, of the processes and their children."""
    ticks = 0
    for pid in with_children(pids):
        with suppress(FileNotFoundError, ProcessLookupError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def peak_memory_bytes(pids: Iterable[int]) -> int:
    """The most memory each of them and their children had, since its start or `forget_peak`."""
    return sum(_status_kib(pid, "VmHWM") for pid in with_children(pids)) * 1024


def forget_peak(pids: Iterable[int]) -> None:
    """Let `peak_memory_bytes` begin anew."""
    for pid in with_children(pids):
        with suppress(FileNotFoundError, ProcessLookupError):
            Path(f"/proc/{pid}/clear_refs").write_text("5")


def pin(pids: Iterable[int], cores: Iterable[int]) -> None:
    """Let the processes, their children and all of their threads run on these cores alone."""
    chosen = set(cores)
    for pid in with_children(pids):
        with suppress(FileNotFoundError, ProcessLookupError):
            for task in Path(f"/proc/{pid}/task").iterdir():
                os.sched_setaffinity(int(task.name), chosen)


def _status_kib(pid: int, key: str) -> int:
    with suppress(FileNotFoundError, ProcessLookupError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(f"{key}:"):
                return int(line.split()[1])
    return 0
