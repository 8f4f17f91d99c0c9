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


def literal_prefix(levels: tuple[bytes, ...]) -> bytes:
    """What every topic that matches begins with."""
    for place, level in enumerate(levels):
        if level in (ONE, REST):
            return b"".join(name + b"." for name in levels[:place])
    return b".".join(levels)


def matches(levels: tuple[bytes, ...], topic: bytes) -> bool:
    """Whether a pattern with these levels matches the topic."""
    if topic.startswith(b"$") and levels[0] in (ONE, REST):
        return False
    dots = topic.count(b".")
    count = len(levels)
    if levels[-1] == REST:
        if dots + 1 < count:
            return False
        count -= 1
    elif dots + 1 != count:
        return False
    names = topic.split(b".", count)
    for place in range(count):
        level = levels[place]
        if level not in (names[place], ONE):
            return False
    return True
