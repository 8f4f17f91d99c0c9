"""Clients that were written against other brokers get the same bytes from this one."""

from __future__ import annotations

import attrs
import pytest
import trio
from trio.testing import MockClock

from blipmq.wal.policy import FsyncPolicy
from tests.golden.player import Player, Scenario, scenarios
from tests.nursery.daemon import serving


@pytest.mark.parametrize("cut", [None, 1], ids=["whole", "cut"])
@pytest.mark.parametrize("scenario", scenarios(), ids=lambda scenario: scenario.name)
async def test_a_recorded_exchange(
    autojump_clock: MockClock, scenario: Scenario, cut: int | None
) -> None:
    changes = attrs.asdict(scenario.config)
    changes["fsync_policy"] = FsyncPolicy.parse(scenario.config.fsync_policy)
    async with serving(**changes) as daemon:

        async def connect() -> trio.abc.HalfCloseableStream:
            return daemon.connect(cut=cut).stream

        await Player(connect, trio.sleep).play(scenario)
