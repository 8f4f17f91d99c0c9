"""Clients that were written against other brokers get the same bytes from this one."""

from __future__ import annotations

import attrs
import pytest
import trio
from trio.testing import MockClock

from blipmq.wal.policy import FsyncPolicy
from tests.golden.player import Player, Scenario, scenarios
from tests.nursery.daemon import serving
from tests.nursery.web import WEB, open_web
from tests.peer import Peer

WAYS = {
    "whole": (False, None, None),
    "cut": (False, 1, None),
    "websocket": (True, None, None),
    "websocket, cut": (True, 1, None),
    "websocket, in messages of a byte": (True, None, 1),
}
"""Whether over WebSocket, how many bytes the daemon receives at a time, how many are a message."""


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("scenario", scenarios(), ids=lambda scenario: scenario.name)
async def test_a_recorded_exchange(
    autojump_clock: MockClock, nursery: trio.Nursery, scenario: Scenario, way: str
) -> None:
    websocket, cut, size = WAYS[way]
    changes = attrs.asdict(scenario.config)
    changes["fsync_policy"] = FsyncPolicy.parse(scenario.config.fsync_policy)
    async with serving(**changes, websocket=WEB) as daemon:

        async def connect() -> Peer:
            if websocket:
                return await open_web(daemon, nursery, size=size, cut=cut)
            return daemon.connect(cut=cut)

        await Player(connect, trio.sleep).play(scenario)
