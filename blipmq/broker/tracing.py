"""What the broker tells of its steps to who traces messages. Knows no spans, and no clock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Protocol

import attrs

from blipmq.protocol.trace_context import TraceContext


class Step(StrEnum):
    """What is done with a message."""

    PUBLISH = "publish"
    """It is taken, numbered and put into its topic; or refused."""
    COMMIT = "commit"
    """From there until it is in the log, as the fsync policy has it; or fails."""
    DELIVER = "deliver"
    """It is handed to a connection."""
    SETTLE = "settle"
    """A consumer has said what becomes of it."""


@attrs.frozen
class Traced:
    """A message with a sampled context. `tag` 0: it has no number."""

    context: TraceContext
    tag: int
    attempt: int = 1


class Tracer(Protocol):
    """Who makes spans of steps."""

    def now(self) -> int:
        """The time of day, in nanoseconds since 1970."""

    def ended(
        self,
        step: Step,
        began: int,
        topic: bytes,
        messages: Sequence[Traced],
        *,
        error: str | None = None,
        attributes: Mapping[str, str | int] | None = None,
    ) -> None:
        """A step that began at `began` is over, for these messages. With an `error` it failed."""
