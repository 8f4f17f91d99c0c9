"""Which topics a pattern matches.

`.` splits levels, `*` is exactly one level, a last `>` is one or more. A wildcard in the first
level matches no topic that begins with `$`.
"""

from __future__ import annotations

from typing import Final

from blipmq.errors import BadRequest

ONE: Final = b"*"
REST: Final = b">"


def parse_pattern(pattern: bytes) -> tuple[bytes, ...]:
    """The levels of a pattern. Raises BadRequest for a `>` that is not the last level."""
    levels = tuple(pattern.split(b"."))
    if REST in levels[:-1]:
        raise BadRequest(400, "invalid pattern")
    return levels


def matches(levels: tuple[bytes, ...], topic: bytes) -> bool:
    """Whether a pattern with these levels matches the topic."""
    if topic.startswith(b"$") and levels[0] in (ONE, REST):
        return False
    names = topic.split(b".")
    if levels[-1] == REST:
        if len(names) < len(levels):
            return False
        levels = levels[:-1]
    elif len(names) != len(levels):
        return False
    return all(
        level in (ONE, name) for level, name in zip(levels, names[: len(levels)], strict=True)
    )
