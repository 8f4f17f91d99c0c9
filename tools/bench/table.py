"""Figures as rows of a table, or as JSON: a row is an attrs object, a column one of its fields."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import attrs
import click

Rows = Sequence[attrs.AttrsInstance]
TITLE = "title"
"""Metadata of a field whose column is not headed by its name."""


def show(tables: Mapping[str, Rows], *, as_json: bool) -> None:
    """Print what was measured; each table by its name."""
    if as_json:
        document = {name: [attrs.asdict(row) for row in rows] for name, rows in tables.items()}
        click.echo(json.dumps(document, indent=1))
        return
    for name, rows in tables.items():
        if rows:
            click.echo(f"\n{name}\n")
            _show_table(rows)


def _show_table(rows: Rows) -> None:
    fields = attrs.fields(type(rows[0]))
    names = [field.name for field in fields]
    lines = [[str(field.metadata.get(TITLE, _words(field.name))) for field in fields]]
    lines += [[_text(getattr(row, name)) for name in names] for row in rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        click.echo("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)))


def _words(name: str) -> str:
    return name.replace("_", " ")


def _text(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.0f}" if value >= 1000 else f"{value:,.2f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
