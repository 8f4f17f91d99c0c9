"""When the write-ahead log is fsynced. The value alone: whoever writes the log counts and waits."""

from __future__ import annotations

from typing import Final, Literal, Self, get_args

import attrs

Kind = Literal["always", "every_n", "interval_ms", "none"]

EXPECTED: Final = "always, every_n:<n>, interval_ms:<ms> or none (n and ms 1 or more)"


@attrs.frozen
class FsyncPolicy:
    """One of the four policies.

    `always` fsyncs every commit before it is confirmed, `every_n` after at least `value`
    messages, `interval_ms` at most `value` milliseconds after a write, `none` leaves it to
    the operating system. `value` is 0 for `always` and `none`. An instance is always valid:
    the constructor raises `ValueError`.
    """

    kind: Kind = "always"
    value: int = 0

    def __attrs_post_init__(self) -> None:
        if self.kind not in get_args(Kind) or (
            self.value < 1 if self.kind in ("every_n", "interval_ms") else self.value != 0
        ):
            raise ValueError(f"no fsync policy: {self}; expected {EXPECTED}")

    @classmethod
    def parse(cls, text: str) -> Self:
        """The policy that `text` names, so that `parse(str(policy)) == policy`.

        Raises `ValueError`, whose text says what was found and what is expected.
        """
        kind, colon, digits = text.partition(":")
        if not colon and kind == "always":
            return cls("always")
        if not colon and kind == "none":
            return cls("none")
        if digits.isascii() and digits.isdecimal() and len(digits) <= 18 and int(digits) >= 1:
            if kind == "every_n":
                return cls("every_n", int(digits))
            if kind == "interval_ms":
                return cls("interval_ms", int(digits))
        raise ValueError(f"expected {EXPECTED}, found {text!r}")

    def __str__(self) -> str:
        return f"{self.kind}:{self.value}" if self.value else self.kind
