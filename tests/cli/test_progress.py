from __future__ import annotations

from collections.abc import Iterator
from io import StringIO

import pytest
from rich.console import Console

from blipmq.cli.progress import progress

MiB = 1 << 20


def shown(times: list[float], *, terminal: bool = True, step: int = MiB) -> str:
    """What is written to the console while, at each of the times, a step is done."""
    output = StringIO()
    console = Console(file=output, force_terminal=terminal, width=80)
    clock: Iterator[float] = iter([0.0, *times])
    with progress("reading", 10 * MiB, console, lambda: next(clock)) as done:
        for _ in times:
            done(step)
    return output.getvalue()


def test_what_is_quick_shows_no_bar() -> None:
    assert shown([0.1, 0.5, 0.9]) == ""


def test_what_takes_a_second_shows_how_far_it_is() -> None:
    text = shown([0.5, 1.0])
    assert "reading" in text
    assert "2.0/10.0 MiB" in text


def test_a_file_gets_no_bar() -> None:
    assert shown([0.5, 1.0], terminal=False) == ""


@pytest.mark.parametrize("parts", [2, 64])
def test_small_steps_add_up(parts: int) -> None:
    output = StringIO()
    console = Console(file=output, force_terminal=True, width=80)
    clock = iter([0.0, *[9.0] * parts])
    with progress("reading", 10 * MiB, console, lambda: next(clock)) as done:
        for _ in range(parts):
            done(MiB // parts)
    assert "1.0/10.0 MiB" in output.getvalue()
