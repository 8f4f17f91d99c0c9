"""The programs of the client's page, as they stand, against the broker's own code."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from blipmq.testing import open_broker
from tests.testing.applications import pytest_of

PAGE = (Path(__file__).parents[2] / "docs" / "client.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```\n", PAGE, re.DOTALL)
RUN = "\n\ntrio.run(main)\n"
PROGRAMS = [
    (source, output)
    for (language, source), (_, output) in zip(BLOCKS, [*BLOCKS[1:], ("", "")], strict=True)
    if language == "python" and source.endswith(RUN)
]
TESTS = [source for language, source in BLOCKS if language == "python" and RUN not in source]


def test_the_page_has_programs_and_a_test() -> None:
    assert len(PROGRAMS) == 5
    assert len(TESTS) == 1


@pytest.mark.parametrize(("source", "output"), PROGRAMS)
async def test_a_program_prints_what_the_page_says(
    autojump_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    source: str,
    output: str,
) -> None:
    async with open_broker(api_key="dev-key-1") as broker:

        async def open_tcp_stream(host: str, port: int) -> trio.abc.Stream:
            assert (host, port) == ("127.0.0.1", 5555)
            return await broker.connect()

        monkeypatch.setattr(trio, "open_tcp_stream", open_tcp_stream)
        names: dict[str, Callable[[], Awaitable[None]]] = {}
        exec(source.removesuffix(RUN), names)  # noqa: S102
        await names["main"]()
    assert capsys.readouterr().out == output


def test_the_test_passes_in_a_pytest_of_its_own(tmp_path: Path) -> None:
    assert "1 passed" in pytest_of(tmp_path, TESTS[0], "-o", "trio_mode=true")
