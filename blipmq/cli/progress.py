"""A progress bar on the terminal, for what takes longer than a second."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

PATIENCE_SECONDS: Final = 1.0
_STEP_BYTES: Final = 1 << 20


@contextmanager
def progress(
    text: str,
    total: int,
    console: Console | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Callable[[int], None]]:
    """Yields what is to be told how many bytes more of `total` were done.

    The bar is on standard error, if that is a terminal, and goes when the block ends.
    """
    bar = Progress(
        TextColumn(text, markup=False),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=console or Console(stderr=True),
        transient=True,
    )
    task = bar.add_task(text, total=total)
    show_at = clock() + PATIENCE_SECONDS
    pending = 0

    def advance(done: int) -> None:
        nonlocal pending
        pending += done
        if pending < _STEP_BYTES:
            return
        bar.advance(task, pending)
        pending = 0
        if not bar.live.is_started and bar.console.is_terminal and clock() >= show_at:
            bar.start()

    try:
        yield advance
    finally:
        if bar.live.is_started:
            bar.stop()
