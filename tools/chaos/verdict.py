"""How a drill ends: what was found, a verdict, and an exit status."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import NoReturn, ParamSpec

import trio

from tools.chaos.connection import Lost, Refused
from tools.chaos.daemon import DaemonEnded

P = ParamSpec("P")
_SHOWN = 20


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
