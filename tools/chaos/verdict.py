"""What a drill says: what it did, what it found, a verdict, and an exit status."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import NoReturn, ParamSpec

import attrs
import trio

from tools.chaos.connection import Lost, Refused
from tools.chaos.daemon import DaemonEnded

P = ParamSpec("P")
_SHOWN = 20


@attrs.define
class Report:
    """What a drill did and checked, printed as it goes; `violations` is what it is to return."""

    violations: list[str] = attrs.Factory(list)

    def did(self, what: str) -> None:
        """Something was done to the daemon."""
        print(f"  {what}", flush=True)

    def check(self, holds: bool, what: str, found: object = "") -> None:
        """Something had to be so; `found` is what was there when it is not."""
        print(f"    {'ok' if holds else 'NOT'}: {what}", flush=True)
        if not holds:
            self.violations.append(f"not so: {what}" + (f"; found: {found}" if found else ""))

    def check_equal(self, found: object, expected: object, what: str) -> None:
        """What was found had to be equal to what was expected."""
        self.check(found == expected, what, f"{found!r}, expected {expected!r}"[:2_000])


def conclude(
    name: str,
    drill: Callable[P, Awaitable[Sequence[str]]],
    *args: P.args,
    **kwargs: P.kwargs,
) -> NoReturn:
    """Run a drill, print what it found and the verdict, and exit with the status that says it.

    `drill` returns its violations; what the daemon did to it that it must not do is another one.
    """

    async def run() -> Sequence[str]:
        return await drill(*args, **kwargs)

    try:
        violations = trio.run(run)
    except (Exception, BaseExceptionGroup) as error:
        causes = list(_leaves(error))
        if not all(isinstance(c, DaemonEnded | Lost | Refused | trio.TooSlowError) for c in causes):
            raise
        violations = [f"{type(cause).__name__}: {cause}" for cause in causes]
    for violation in violations[:_SHOWN]:
        print(f"  VIOLATION  {violation}")
    if len(violations) > _SHOWN:
        print(f"  ... and {len(violations) - _SHOWN} more")
    print(f"{name}: {'FAILED' if violations else 'passed'}")
    sys.exit(bool(violations))


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error
