"""`docs/operations.md`: its table of log lines is complete."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from tests.docs.markdown import ROOT, Document

OPERATIONS = Document.read("docs/operations.md")


def logged_events() -> Iterator[str]:
    """The text of every log line that the code of the daemon writes."""
    for path in [*(ROOT / "blipmq/nursery").glob("*.py"), ROOT / "blipmq/cli/blipmqd.py"]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                yield from _event(node.func, node.args)


def _event(called: ast.Attribute, arguments: list[ast.expr]) -> Iterator[str]:
    of_a_logger = ast.unparse(called.value).endswith("log")
    if of_a_logger and called.attr in ("info", "warning", "error"):
        event = arguments[0]
    elif called.attr == "warn":
        event = arguments[1]
    else:
        return
    assert isinstance(event, ast.Constant), ast.unparse(event)
    yield str(event.value)


def test_the_table_of_log_lines_has_every_line_of_the_daemon() -> None:
    rows = OPERATIONS.tables("event", "level", "meaning")
    described = {event for row in rows for event in re.findall(r"`([^`]+)`", row[0])}
    assert described == set(logged_events())
