"""`blipmq pub` and `blipmq sub`, against a daemon in memory."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from blipmq.broker.limits import Limits
from blipmq.cli.outside import Blocking
from blipmq.cli.pub import LINE_BYTES_MAX, lines
from blipmq.cli.statuses import (
    FAILED,
    NOT_PERMITTED,
    NOTHING_CAME,
    UNREACHABLE,
    UNUSABLE,
)
from blipmq.errors import ConfigError
from tests.cli.shell import Shell, opened


async def test_an_argument_is_published_and_received(
    shell: Shell, autojump_clock: MockClock
) -> None:
    assert await shell("pub", "t", "hello") == 0
    assert (shell.out, shell.err) == ("", "published 1 message\n")
    assert await shell("sub", "t", "--count", "1") == 0
    assert shell.out == "hello\n"


async def test_lines_of_standard_input_are_messages(
    shell: Shell, autojump_clock: MockClock
) -> None:
    assert await shell("pub", "t", "--json", stdin=b"a\nb\n\nlast") == 0
    assert shell.lines == [{"published": 4, "topic": "t"}]
    assert await shell("sub", "t", "--count", 4) == 0
    assert shell.out == "a\nb\n\nlast\n"


async def test_a_file_is_one_message(
    shell: Shell, autojump_clock: MockClock, tmp_path: Path
) -> None:
    file = tmp_path / "body"
    file.write_bytes(b"two\nlines")
    assert await shell("pub", "t", "--file", file) == 0
    assert await shell("sub", "t", "--count", 1, "--json") == 0
    assert shell.lines[0]["body"] == "two\nlines"


async def test_every_property_arrives(shell: Shell, autojump_clock: MockClock) -> None:
    options = [
        *("--ttl", 60, "--key", "k", "--message-id", "m", "--content-type", "text/plain"),
        *("--reply-to", "answers", "--header", "a=1", "--header", "b=x=y"),
    ]
    assert await shell("pub", "t", "hello", *options) == 0
    assert await shell("sub", "t", "--count", 1, "--json") == 0
    (line,) = shell.lines
    assert line["properties"] == {
        "ttl_ms": 60_000,
        "content_type": "text/plain",
        "message_id": "m",
        "key": "k",
        "reply_to": "answers",
        "headers": [{"name": "a", "value": "1"}, {"name": "b", "value": "x=y"}],
    }


async def test_a_delayed_message_comes_when_it_is_due(
    shell: Shell, autojump_clock: MockClock
) -> None:
    start = trio.current_time()
    assert await shell("pub", "t", "later", "--delay", 5) == 0
    assert await shell("sub", "t", "--count", 1) == 0
    assert trio.current_time() - start >= 5


async def test_a_rate_is_kept(shell: Shell, autojump_clock: MockClock) -> None:
    start = trio.current_time()
    assert await shell("pub", "t", "--rate", 2, stdin=b"1\n2\n3\n4\n5\n") == 0
    assert trio.current_time() - start >= 2
    assert shell.daemon.stats.published[1] == 5


async def test_qos_0_is_published_to_who_is_there(shell: Shell, autojump_clock: MockClock) -> None:
    assert await shell("pub", "t", "x", "--qos", 0) == 0
    assert shell.daemon.stats.published[0] == 1


async def test_messages_are_accepted_when_they_are_written(
    shell: Shell, autojump_clock: MockClock
) -> None:
    await shell("pub", "t", stdin=b"a\nb")
    assert await shell("sub", "t", "--name", "n", "--count", 1) == 0
    assert await shell("sub", "t", "--name", "n", "--count", 1) == 0
    assert shell.out == "b\n"


async def test_who_only_looks_leaves_the_messages_there(
    shell: Shell, autojump_clock: MockClock
) -> None:
    await shell("pub", "t", "a")
    for _ in range(2):
        assert await shell("sub", "t", "--name", "n", "--count", 1, "--no-accept") == 0
        assert shell.out == "a\n"


async def test_a_pattern_shows_the_topics(shell: Shell, autojump_clock: MockClock) -> None:
    await shell("pub", "t.a", "1")
    await shell("pub", "t.b", "2")
    assert await shell("sub", "t.*", "--count", 2, "--show-topic") == 0
    assert sorted(shell.out.splitlines()) == ["t.a\t1", "t.b\t2"]


async def test_a_start_is_where_a_new_subscription_begins(
    shell: Shell, autojump_clock: MockClock
) -> None:
    await shell("pub", "t", stdin=b"a\nb")
    assert await shell("sub", "t", "--name", "x", "--start", "new", "--no-follow") == NOTHING_CAME
    assert await shell("sub", "t", "--start", "earliest", "--wait", 1) == 0
    assert shell.out == "a\nb\n"
    await shell("pub", "t", "c")
    assert await shell("sub", "t", "--name", "x", "--count", 2, "--wait", 1) == NOTHING_CAME
    assert shell.out == "c\n"


async def test_an_end_before_the_count_is_told_by_the_status(
    shell: Shell, autojump_clock: MockClock
) -> None:
    await shell("pub", "t", "a")
    assert await shell("sub", "t", "--count", 2, "--wait", 3) == NOTHING_CAME
    assert shell.out == "a\n"
    assert await shell("sub", "t", "--wait", 3) == NOTHING_CAME


@pytest.mark.parametrize("command", [["pub", "t", "x"], ["sub", "t"]])
async def test_a_broker_that_does_not_answer_is_unreachable(
    shell: Shell, autojump_clock: MockClock, command: list[str]
) -> None:
    shell.reachable = False
    assert await shell(*command) == UNREACHABLE
    assert "broker:5555" in shell.err
    assert "is blipmqd running" in shell.err


@pytest.mark.parametrize("command", [["pub", "t", "x"], ["sub", "t"]])
async def test_an_unknown_key_is_not_permitted(
    shell: Shell, autojump_clock: MockClock, command: list[str]
) -> None:
    shell.set(BLIPMQ_CLIENT_API_KEY="wrong")
    assert await shell(*command) == NOT_PERMITTED
    assert "invalid API key" in shell.err
    assert "give a key of allowed_api_keys" in shell.err
    assert "wrong" not in shell.err


async def test_a_topic_of_the_broker_is_not_permitted(
    shell: Shell, autojump_clock: MockClock
) -> None:
    assert await shell("pub", "$dead.t", "x") == NOT_PERMITTED
    assert "not permitted" in shell.err
    assert "topics that begin with $" in shell.err


async def test_what_the_broker_refuses_fails(
    autojump_clock: MockClock, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(capsys, monkeypatch, limits=Limits(max_topics=1)) as shell:
        assert await shell("pub", "t", "x") == 0
        assert await shell("pub", "u", "x") == FAILED
        assert "too many topics (code 429)" in shell.err


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["pub"], "Missing argument 'TOPIC'"),
        (["pub", "t", "x", "--file", __file__], "give BODY or --file, not both"),
        (["pub", "t", "--message-id", "m"], "lines would all have the id"),
        (["pub", "t", "x", "--header", "novalue"], "expected NAME=VALUE"),
        (["pub", "t", "x", "--file", "/nowhere"], "does not exist"),
        (["pub", "t", "x", "--rate", "0"], "0.0 is not in the range"),
        (["pub", "t", "x", "--qos", "2"], "2 is not in the range"),
        (["pub", "", "x"], "topic"),
        (["pub", "t", "x", "--key", "k" * 2000], "key"),
        (["pub", "t", "x", "--qos", "0", "--delay", "1"], "QoS 1"),
        (["pub", "t", "x", "--url", "http://x"], "unsupported scheme"),
        (["sub", "t", "--start", "yesterday"], "expected new, earliest, the number"),
        (["sub", "t", "--count", "0"], "0 is not in the range"),
        (["sub", "t", "--name", "n", "--qos", "0"], "QoS 1"),
        (["sub", "t", "--name", "n" * 200], "expected 1 to 128 bytes"),
        (["sub", ""], "topic"),
        (["sub", "t", "--api-key-file", "/nowhere"], "cannot read the key"),
        (["nothing"], "No such command 'nothing'"),
    ],
)
async def test_what_cannot_be_is_told(
    shell: Shell, autojump_clock: MockClock, command: list[str], message: str
) -> None:
    assert await shell(*command) == UNUSABLE
    assert message in shell.err


async def test_a_reader_that_has_gone_ends_it_and_takes_nothing_along(
    shell: Shell, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(data: bytes) -> None:
        raise BrokenPipeError

    await shell("pub", "t", "a")
    with monkeypatch.context() as patched:
        patched.setattr("blipmq.cli.outside._write", broken)
        patched.setattr("blipmq.cli.blipmq.discard_output", lambda: None)
        assert await shell("sub", "t", "--name", "n") == FAILED
        assert "Traceback" not in shell.err
    assert await shell("sub", "t", "--name", "n", "--count", 1) == 0
    assert shell.out == "a\n"


async def test_a_line_that_is_too_long_is_refused() -> None:
    file = io.BytesIO(b"a\n" + bytes(LINE_BYTES_MAX + 1))
    found = lines(file, Blocking())
    assert await anext(found) == b"a"
    with pytest.raises(ConfigError, match="a line is longer"):
        await anext(found)
    await found.aclose()
