"""Which loops are used: the compiled ones where they were built, else those in plain Python.

`BLIPMQ_PURE=1` in the environment asks for the latter.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import Final

PURE: Final = "BLIPMQ_PURE"
COMPILED: Final = (
    os.environ.get(PURE, "0") in ("", "0") and find_spec("blipmq.protocol._loops") is not None
)
"""Whether the compiled loops are used."""

if COMPILED:
    from blipmq.protocol._loops import (
        scan_publishes,
        scan_topics,
        stamp_offsets,
        stamp_range,
    )
else:
    from blipmq.protocol.loops import (
        scan_publishes,
        scan_topics,
        stamp_offsets,
        stamp_range,
    )

__all__ = ["COMPILED", "PURE", "scan_publishes", "scan_topics", "stamp_offsets", "stamp_range"]
