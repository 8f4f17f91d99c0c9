"""How far a command is that goes through many messages, shown when that takes a while."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import trio
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from blipmq.cli.outside import PATIENCE_SECONDS


@contextmanager
def counter(text: str, total: int | None, console: Console) -> Iterator[Callable[[int], None]]:
    """Yields what is to be told how many more were done. `total` is None when nobody knows.

    It is on the console, if that is a terminal, and goes when the block ends.
    """
    bar = Progress(
        TextColumn(text, markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    )
    task = bar.add_task(text, total=total)
    show_at = trio.current_time() + PATIENCE_SECONDS

    def advance(done: int) -> None:
        bar.advance(task, done)
        if console.is_terminal and not bar.live.is_started and trio.current_time() >= show_at:
            bar.start()

    try:
        yield advance
    finally:
        if bar.live.is_started:
            bar.stop()
