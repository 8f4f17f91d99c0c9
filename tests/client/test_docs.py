from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio

import blipmq
from tests.client.fake_broker import KEY, FakeBroker, connected

PAGE = Path(__file__).parent.parent.parent / "docs" / "client.md"


async def test_the_example_of_the_page_works(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    source, ran, rest = example.partition("trio.run(main)\n")
    assert ran
    assert rest == ""
    broker = FakeBroker()

    def open_client(url: str, *, api_key: str) -> object:
        assert (url, api_key) == ("blipmq://127.0.0.1:5555", KEY)
        return connected(broker, nursery)

    monkeypatch.setattr(blipmq, "open_client", open_client)
    names: dict[str, Callable[[], Awaitable[None]]] = {}
    exec(source, names)  # noqa: S102
    await names["main"]()
    assert capsys.readouterr().out == "demo b'hello'\n"
    assert broker.accepted() == [1]
