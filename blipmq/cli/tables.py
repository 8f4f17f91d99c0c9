"""Tables for people: of what the API tells."""

from __future__ import annotations

from rich.console import Console
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from blipmq.broker.overview import Amount
from blipmq.cli.survey_report import age_text

_WIDTH_OF_A_FILE = 160


def output() -> Console:
    """A console on standard output: as wide as the terminal, or wide enough for a file."""
    console = Console()
    return console if console.is_terminal else Console(width=_WIDTH_OF_A_FILE)


def table(*columns: str, title: str | None = None) -> Table:
    """An empty one. Columns are of numbers, and stand right, but for those that begin with `<`."""
    made = Table(title=title, title_justify="left")
    for column in columns:
        left = column.startswith("<")
        made.add_column(
            column.removeprefix("<"),
            justify="left" if left else "right",
            overflow="fold" if left else "ellipsis",
        )
    return made


def shown(text: str) -> Text:
    """What a client chose, on one line, whatever characters it has."""
    return Text(text if text.isprintable() else ascii(text))


def amount_cells(amount: Amount) -> tuple[str, str, str]:
    """Messages, bytes, and the age of the oldest."""
    if not amount.messages:
        return "0", "0", ""
    oldest = amount.oldest_seconds
    age = "on disk" if oldest is None else age_text(round(oldest * 1000))
    return str(amount.messages), decimal(amount.bytes), age
