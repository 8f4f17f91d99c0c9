"""The fixtures, as the tests of an application use them: in a pytest of its own."""

from __future__ import annotations

from pathlib import Path

from tests.testing.applications import pytest_of

TEST = """
from blipmq import Client
from blipmq.testing import InProcessBroker


async def test_of_three_lines(blipmq_client: Client, autojump_clock: object) -> None:
    async with blipmq_client.subscribe("demo") as messages:
        await blipmq_client.publish("demo", b"hello")
        assert (await messages.receive()).body == b"hello"


async def test_they_share_the_broker(
    blipmq_broker: InProcessBroker, blipmq_client: Client
) -> None:
    await blipmq_client.ping()
    assert blipmq_broker.connections == 1
"""


def test_an_applications_test_is_three_lines(tmp_path: Path) -> None:
    assert "2 passed" in pytest_of(tmp_path, TEST, "-o", "trio_mode=true")


def test_a_project_without_trio_is_not_disturbed(tmp_path: Path) -> None:
    output = pytest_of(tmp_path, TEST, "-p", "no:trio", "--collect-only")
    assert "2 tests collected" in output
