from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from tests.daemon.process import Processes

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.daemon)


@pytest.fixture
async def processes(tmp_path: Path) -> AsyncIterator[Processes]:
    """Starts daemons in a directory of the test's own; those that are left are killed."""
    async with trio.open_nursery() as nursery:
        yield Processes(tmp_path, nursery)
        nursery.cancel_scope.cancel()
