"""W3C trace context: what a traceparent says, and which messages of a run carry a sampled one.

The format is that of https://www.w3.org/TR/trace-context/, section 3.2, version 00.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from typing import Final

import attrs

from blipmq.protocol.frames import MESSAGE, TOPIC_AT, U16
from blipmq.protocol.properties import TRACE_CONTEXT
from blipmq.protocol.run import Run

_FORM: Final = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_BYTES: Final = len("00-") + 32 + len("-") + 16 + len("-") + 2
_PROPERTY: Final = bytes((TRACE_CONTEXT,)) + U16.pack(_BYTES) + b"00-"
"""How a property with such a value begins. A body may hold this as well."""
_SHORT_BYTES: Final = 192
"""Frames that are shorter on average are searched as a whole: that is a nanosecond a byte."""


@attrs.frozen
class TraceContext:
    """A span that belongs to a trace; `sampled`: whether its owner records it."""

    trace_id: int
    span_id: int
    sampled: bool

    @classmethod
    def parse(cls, text: str) -> TraceContext | None:
        """None for what is no traceparent of version 00."""
        match = _FORM.fullmatch(text)
        if match is None:
            return None
        trace_id, span_id, flags = (int(digits, 16) for digits in match.groups())
        return cls(trace_id, span_id, bool(flags & 1)) if trace_id and span_id else None

    def __str__(self) -> str:
        return f"00-{self.trace_id:032x}-{self.span_id:016x}-{self.sampled:02x}"


def sampled_contexts(
    run: Run, start: int = 0, stop: int | None = None
) -> Iterator[tuple[int, TraceContext]]:
    """Which of messages start to stop - 1 of a run carry a sampled context, and that.

    Where none does, the cost is one search through short messages, or a short one in each of those
    that are longer; none for those of type PUBLISH.
    """
    if run.type != MESSAGE:
        return
    stop = run.count if stop is None else stop
    size = run.offsets[stop] - run.offsets[start]
    find = _in_frames if size <= _SHORT_BYTES * (stop - start) else _in_properties
    for index in find(run, start, stop):
        text = run.properties(index).trace_context
        context = None if text is None else TraceContext.parse(text)
        if context is not None and context.sampled:
            yield index, context


def _in_frames(run: Run, start: int, stop: int) -> Iterator[int]:
    """The messages that may have the property: it is somewhere in their frames."""
    buffer, offsets = run.buffer, run.offsets
    at, end = offsets[start], offsets[stop]
    while (at := buffer.find(_PROPERTY, at, end)) >= 0:
        index = bisect_right(offsets, at) - 1
        yield index
        at = offsets[index + 1]


def _in_properties(run: Run, start: int, stop: int) -> Iterator[int]:
    """As `_in_frames`, without a look at the bodies."""
    buffer, find, unpack_from = run.buffer, run.buffer.find, U16.unpack_from
    properties_at = TOPIC_AT + len(run.topic)
    for index, offset in enumerate(run.offsets[start:stop], start):
        at = offset + properties_at
        if find(_PROPERTY, at, at + U16.size + unpack_from(buffer, at)[0]) >= 0:
            yield index
