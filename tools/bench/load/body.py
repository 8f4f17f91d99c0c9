"""What a body holds: a time stamp in ns, a number within its stream, its stream; then zeros."""

from __future__ import annotations

import struct

STAMP = struct.Struct(">Q")
"""Of `time.monotonic_ns`, which processes of one machine share; 0 where there is none."""
NUMBER_AT = 8
NUMBER = struct.Struct(">IH")
"""A number within a stream, and the stream."""
NUMBER_LOW_AT = 11
"""Its lowest byte."""
BODY_BYTES_MIN = 16


def body(size: int, stream: int, number: int, stamp: int = 0) -> bytes:
    """A body of so many bytes."""
    return (STAMP.pack(stamp) + NUMBER.pack(number, stream)).ljust(size, b"\0")
