"""Keeps a nursery that a caller does not see out of the exceptions that it gets."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import trio


@contextmanager
def unwrapped() -> Iterator[None]:
    """Around one nursery: raises what its body raised, as itself, without the nursery's group.

    A group that the body raised is left as it is; `trio.Cancelled` beside another error is
    dropped. When tasks fail of several things at once the group comes out, unless there is a
    `KeyboardInterrupt` among them: then one comes out, with the group as its cause if it holds
    anything else.
    """
    found: BaseException | None = None
    try:
        yield
    except BaseExceptionGroup as group:
        errors = [error for error in group.exceptions if not _only_cancelled(error)]
        found = (errors or group.exceptions)[0]
        if len(errors) > 1:
            interrupts, others = group.split(KeyboardInterrupt)
            if interrupts is None:
                raise
            if others is not None and not _only_cancelled(others):
                raise KeyboardInterrupt from group  # a new one: no cause holds its effect
            found = _first_leaf(interrupts)
    if found is not None:
        context = found.__context__
        try:
            raise found
        finally:
            found.__context__ = context  # not the group
            del found


def _only_cancelled(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return error.split(trio.Cancelled)[1] is None
    return isinstance(error, trio.Cancelled)


def _first_leaf(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
