"""A simulated run, written down: the broker's settings, who asks what of it when, and the faults.

A plan with fewer operations or faults is a plan as well, which is how a failing one is shortened.
Times are seconds from the beginning, sizes bytes.
"""

from __future__ import annotations

from typing import Literal

import attrs

Version = Literal[1, 2]


@attrs.frozen
class Setup:
    """What the broker is told, and how network and disk are when nothing is wrong."""

    fsync: str = "always"
    segment_bytes: int = 4096
    reserve_bytes: int = 0
    heartbeat_ms: int = 2000
    max_retries: int = 3
    retry_backoff_ms: int = 100
    dedup_window_ms: int = 120_000
    max_memory_bytes: int = 1 << 26
    max_backlog_bytes: int = 1 << 22
    window_bytes: int = 1024
    """Of a subscription's backlog, in memory; the rest is read from the log."""
    dead_letters: bool = True
    prepares: bool = False
    """Segments begin in files of zeros."""
    delay: float = 0.0
    piece: int = 1 << 16
    window: int = 1 << 16
    disk_delay: float = 0.0

    @property
    def durable(self) -> bool:
        """Whether what is confirmed outlives a power cut."""
        return self.fsync == "always"


@attrs.frozen
class Group:
    """A subscription, and the members that it has from the beginning on."""

    name: str
    topic: str
    kind: Literal["named", "unnamed", "qos0", "v1", "v1-qos0"] = "named"
    members: int = 1
    prefetch: int = 16
    ack_wait: float = 30.0
    max_attempts: int = 0
    start_new: bool = False
    begins_at: float = 0.0
    moods: tuple[tuple[str, int], ...] = (("accept", 1),)
    """What its members do with messages, with how often."""

    @property
    def durable(self) -> bool:
        return self.kind in ("named", "v1")

    @property
    def qos(self) -> int:
        return 0 if self.kind.endswith("qos0") else 1

    @property
    def labels(self) -> list[str]:
        return [f"{self.name}{number}" for number in range(self.members)]


@attrs.frozen
class Send:
    """A message to publish. Two with one number are one message, published twice."""

    number: int
    topic: str
    qos: int = 1
    size: int = 0
    ttl: float | None = None
    delay: float = 0.0
    key: bytes | None = None
    named: bool = False
    """It carries a message id of its own."""

    @property
    def plain(self) -> bool:
        """Whether version 1 can say it."""
        return self.ttl is None and not self.delay and self.key is None and not self.named


@attrs.frozen
class Burst:
    """One client publishes these, one after the other, or in a pipeline.

    It loses its patience after so many seconds, and cancels what it waits for.
    """

    at: float
    who: str
    sends: tuple[Send, ...]
    version: Version = 2
    pipeline: bool = False
    patience: float = 30.0


@attrs.frozen
class Leave:
    """A member leaves its subscription, and comes back."""

    at: float
    who: str
    seconds: float


Operation = Burst | Leave

FaultKind = Literal[
    "kill",
    "power cut",
    "stop",
    "cancel",
    "full disk",
    "write error",
    "fsync error",
    "slow disk",
    "bit flip",
    "clock jump",
    "reset",
    "half-open",
    "partition",
    "deaf",
]


@attrs.frozen
class Fault:
    """Something goes wrong. `who` is a client, `seconds` for how long.

    `steps` and `calls` are how many steps of tasks, or calls of the disk, later it happens.
    """

    at: float
    kind: FaultKind
    who: str = ""
    seconds: float = 0.0
    steps: int = 0
    calls: int | None = None


@attrs.frozen
class Plan:
    seed: int
    setup: Setup
    groups: tuple[Group, ...]
    operations: tuple[Operation, ...]
    faults: tuple[Fault, ...]

    @property
    def messages(self) -> int:
        return sum(len(o.sends) for o in self.operations if isinstance(o, Burst))
