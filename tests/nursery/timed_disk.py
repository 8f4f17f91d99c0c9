"""A disk in memory that notes when it was called, and can fail until it is healed."""

from __future__ import annotations

import attrs
import trio

from tests.wal.memory_disk import Call, MemoryDisk, Operation

_ALWAYS = 10**9


@attrs.frozen
class Called:
    """A call, and when it was made."""

    call: Call
    time: float


class TimedDisk(MemoryDisk):
    """`calls` has all calls in order, those that failed too."""

    def __init__(self, capacity: int | None = None) -> None:
        super().__init__(capacity=capacity)
        self.calls: list[Called] = []

    def times(self, call: Call) -> list[float]:
        """When it was called."""
        return [called.time for called in self.calls if called.call == call]

    def count(self, call: Call) -> int:
        """How often it was called."""
        return len(self.times(call))

    def break_down(self, call: Call, code: int, *, written: int = 0) -> None:
        """Let every such call fail until `heal`. A failing append writes the first `written`."""
        self.heal()
        self.fail(call, code, times=_ALWAYS, written=written)

    def heal(self) -> None:
        """No call fails any more."""
        self._faults.clear()

    @property
    def unsynced(self) -> set[str]:
        """The files of which a power cut could take something."""
        names: set[str] = set()
        for operation in self.operations:
            match operation.call:
                case "append" | "truncate":
                    names.add(operation.name)
                case "sync" | "remove":
                    names.discard(operation.name)
                case _:
                    pass
        return names

    def after_kill(self) -> TimedDisk:
        disk = TimedDisk(self.capacity)
        disk.files = super().after_kill().files
        return disk

    def do(self, operation: Operation) -> None:
        self.calls.append(Called(operation.call, trio.current_time()))
        super().do(operation)
