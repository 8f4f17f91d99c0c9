"""What the figures were measured on, as the kernel tells it."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import attrs


@attrs.frozen
class Machine:
    """`load` is that of the last minute before anything was measured."""

    cpu: str
    cores: int
    memory_gib: float
    kernel: str
    file_system: str
    load: float


def describe(directory: Path, proc: Path = Path("/proc")) -> Machine:
    """This machine; the file system is that of `directory`."""
    return Machine(
        cpu=_value(proc / "cpuinfo", "model name") or platform.machine(),
        cores=len(os.sched_getaffinity(0)),
        memory_gib=int((_value(proc / "meminfo", "MemTotal") or "0").split()[0]) / 2**20,
        kernel=f"{platform.system()} {platform.release()}",
        file_system=_file_system((proc / "mounts").read_text(), directory.resolve()),
        load=os.getloadavg()[0],
    )


def _value(path: Path, key: str) -> str | None:
    for line in path.read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return None


def _file_system(mounts: str, directory: Path) -> str:
    """Type and options of what is mounted nearest above the directory."""
    nearest, found = Path(), "unknown"
    for line in mounts.splitlines():
        _, place, kind, options, *_ = line.split()
        mounted = Path(place.encode().decode("unicode_escape"))
        # What was mounted last over the same place is what is seen.
        if directory.is_relative_to(mounted) and len(mounted.parts) >= len(nearest.parts):
            nearest, found = mounted, f"{kind} ({options})"
    return found
