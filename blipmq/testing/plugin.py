"""The fixtures, for pytest with pytest-trio. Nothing is imported until a test asks for them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

try:
    from pytest_trio import trio_fixture  # type: ignore[import-untyped]
except ImportError:  # pytest without Trio: there is nobody to use them
    pass
else:
    if TYPE_CHECKING:
        from blipmq.client.client import Client
        from blipmq.testing.broker import InProcessBroker

    @trio_fixture  # type: ignore[untyped-decorator]
    async def blipmq_broker() -> AsyncIterator[InProcessBroker]:
        """A broker in this process, which ends with the test."""
        from blipmq.testing.broker import open_broker

        async with open_broker() as broker:
            yield broker

    @trio_fixture  # type: ignore[untyped-decorator]
    async def blipmq_client(blipmq_broker: InProcessBroker) -> AsyncIterator[Client]:
        """A client of `blipmq_broker`."""
        async with blipmq_broker.client() as client:
            yield client
