"""`docs/operations.md`: its table of log lines is complete, and its advice works."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest
import trio

from blipmq.errors import CorruptLog
from blipmq.wal.log import Log
from tests.docs.markdown import ROOT, Document
from tests.nursery.daemon import new_disk, serving
from tests.peer import bodies

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


async def test_a_damaged_log_that_is_cut_off_at_the_offset_named_gives_what_was_before_it(
    autojump_clock: trio.abc.Clock,
) -> None:
    disk = new_disk()
    async with serving(disk=disk) as daemon:
        peer = await daemon.client()
        for body in (b"one", b"two", b"three"):
            assert await peer.publish("demo", body) == []
    data = disk.files["0000000000000001.wal"]
    data[data.index(b"two")] ^= 1

    with pytest.raises(CorruptLog) as caught:
        Log.open(disk.after_kill(), 1 << 20, lambda: 1).recover()
    named = re.fullmatch(r"/log/(\S+): offset (\d+): .*", str(caught.value))
    assert named is not None
    del disk.files[named[1]][int(named[2]) :]

    async with serving(disk=disk) as daemon:
        peer = await daemon.client()
        subscription = await peer.subscribe("demo")
        assert bodies(await peer.poll(subscription, 3)) == [b"one"]
