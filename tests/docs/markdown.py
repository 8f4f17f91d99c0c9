"""Reads the parts of a Markdown document that tests hold against the code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import attrs

ROOT: Final = Path(__file__).parents[2]

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^#+ +(.+)$", re.MULTILINE)
_LINK = re.compile(r"\[[^\]\[]+\]\(([^)\s]+)\)")


@attrs.frozen
class Block:
    """A fenced block: its language, its text, and the line of the document that it begins on."""

    language: str
    text: str
    line: int


@attrs.frozen
class Document:
    """A file of the documentation; `name` is its path from the root of the project."""

    name: str
    text: str

    @classmethod
    def read(cls, name: str) -> Document:
        return cls(name, (ROOT / name).read_text(encoding="utf-8"))

    @property
    def prose(self) -> str:
        """The text without its fenced blocks."""
        return _FENCE.sub("", self.text)

    def blocks(self, *languages: str) -> list[Block]:
        return [
            Block(match[1], match[2], self.text.count("\n", 0, match.start()) + 2)
            for match in _FENCE.finditer(self.text)
            if match[1] in languages
        ]

    def tables(self, *header: str) -> list[list[str]]:
        """The rows, cell by cell, of every table with this header."""
        rows: list[list[str]] = []
        inside = False
        for line in self.prose.splitlines():
            cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
            if not line.startswith("|"):
                inside = False
            elif cells == list(header):
                inside = True
            elif inside and not set(line) <= set("|-"):
                rows.append(cells)
        return rows

    @property
    def anchors(self) -> set[str]:
        """What a link may name behind `#`: each heading, as GitHub writes it."""
        return {_anchor(heading) for heading in _HEADING.findall(self.prose)}

    @property
    def links(self) -> set[str]:
        return set(_LINK.findall(self.prose))


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def documents() -> Iterator[Document]:
    """Every document that users and contributors read."""
    for path in [*ROOT.glob("*.md"), *sorted((ROOT / "docs").glob("*.md"))]:
        yield Document.read(str(path.relative_to(ROOT)))
