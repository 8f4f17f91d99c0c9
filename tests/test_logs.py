from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog
from structlog.typing import FilteringBoundLogger

from blipmq import logs
from blipmq.logs import RateLimited


@pytest.fixture(autouse=True)
def _unconfigured_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


def test_json_lines_are_one_object_each_with_event_level_and_time() -> None:
    stream = io.StringIO()
    logs.configure("info", "json", stream)
    structlog.get_logger().info("ready", port=5555, data=b"\xff")
    line = json.loads(stream.getvalue())
    assert line.pop("timestamp").endswith("Z")
    assert line == {"event": "ready", "level": "info", "port": 5555, "data": "b'\\xff'"}


def test_console_lines_are_plain_text_when_the_stream_is_no_terminal() -> None:
    stream = io.StringIO()
    logs.configure("info", "console", stream)
    structlog.get_logger().warning("slow", seconds=2)
    assert "\x1b" not in stream.getvalue()
    assert "warning" in stream.getvalue()
    assert "slow" in stream.getvalue()
    assert "seconds=2" in stream.getvalue()


def test_lines_below_the_level_are_not_written() -> None:
    stream = io.StringIO()
    logs.configure("warning", "json", stream)
    structlog.get_logger().info("too fine")
    logging.getLogger("library").info("too fine")
    structlog.get_logger().error("written")
    assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == ["written"]


def test_lines_of_libraries_have_the_same_form() -> None:
    stream = io.StringIO()
    logs.configure("info", "json", stream)
    logging.getLogger("library").warning("from %s", "afar")
    line = json.loads(stream.getvalue())
    assert line["event"] == "from afar"
    assert line["level"] == "warning"
    assert "timestamp" in line


def _fail(key: str) -> None:
    raise RuntimeError(f"broken: {len(key)}")


@pytest.mark.parametrize("output_format", ["console", "json"])
def test_a_traceback_does_not_show_local_variables(output_format: logs.Format) -> None:
    stream = io.StringIO()
    logs.configure("info", output_format, stream)
    try:
        _fail(key="".join(["hid", "den"]))
    except RuntimeError:
        structlog.get_logger().exception("failed")
    assert "RuntimeError: broken" in stream.getvalue()
    assert "hidden" not in stream.getvalue()


def test_configuring_again_replaces_the_form_and_the_stream() -> None:
    first, second = io.StringIO(), io.StringIO()
    log: FilteringBoundLogger = structlog.get_logger()
    logs.configure("info", "console", first)
    logs.configure("info", "json", second)
    log.info("once")
    logging.getLogger("library").warning("once")
    assert first.getvalue() == ""
    assert len(second.getvalue().splitlines()) == 2


def rate_limited(**settings: int) -> RateLimited:
    return RateLimited(structlog.get_logger(), **settings)


def test_a_key_gets_its_lines_and_no_more_in_one_second() -> None:
    limited = rate_limited(lines_per_second=2)
    with structlog.testing.capture_logs() as lines:
        for tenth in range(10):
            limited.warning("framing", "bad frame", now=5 + tenth / 10, peer="p")
    assert lines == [{"event": "bad frame", "log_level": "warning", "peer": "p"}] * 2


def test_the_next_line_says_how_many_were_suppressed() -> None:
    limited = rate_limited(lines_per_second=1)
    with structlog.testing.capture_logs() as lines:
        for now in (0.0, 0.1, 0.2, 0.9, 1.0, 2.5):
            limited.warning("framing", "bad frame", now=now)
    assert [line.get("suppressed") for line in lines] == [None, 3, None]


def test_keys_do_not_use_up_the_lines_of_each_other() -> None:
    limited = rate_limited(lines_per_second=1)
    with structlog.testing.capture_logs() as lines:
        limited.warning("framing", "bad frame", now=0)
        limited.warning("auth", "bad key", now=0)
    assert [line["event"] for line in lines] == ["bad frame", "bad key"]


def test_keys_beyond_the_limit_share_one_budget_so_that_memory_is_bounded() -> None:
    limited = rate_limited(lines_per_second=1, max_keys=2)
    with structlog.testing.capture_logs() as lines:
        for key in range(100):
            limited.warning(key, "bad frame", now=0)
    assert len(lines) == 3


def test_keys_that_were_quiet_for_a_second_make_room_for_others() -> None:
    limited = rate_limited(lines_per_second=1, max_keys=2)
    with structlog.testing.capture_logs() as lines:
        for second in range(10):
            limited.warning(f"{second} a", "bad frame", now=second)
            limited.warning(f"{second} b", "bad frame", now=second)
    assert len(lines) == 20
