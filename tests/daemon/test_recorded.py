"""A handful of the recorded exchanges, over TCP with a daemon of its own."""

from __future__ import annotations

import pytest
import trio

from tests.daemon.process import Processes
from tests.golden.player import Player, Scenario, scenarios
from tests.peer import Peer

CHOSEN = {
    "ack_ok_twice",
    "good_frames_then_bad_in_one_write",
    "publish_empty_message",
    "two_subscribers_two_conns",
    "unknown_type_7f",
}


async def no_pause(seconds: float) -> None:
    """What comes too much is found at the next step, or at the end."""
    await trio.lowlevel.checkpoint()


@pytest.mark.parametrize(
    "scenario",
    [scenario for scenario in scenarios() if scenario.name in CHOSEN],
    ids=lambda scenario: scenario.name,
)
async def test_a_recorded_exchange(processes: Processes, scenario: Scenario) -> None:
    config = scenario.config
    daemon = await processes.start(
        BLIPMQ_ALLOWED_API_KEYS=",".join(config.allowed_api_keys),
        BLIPMQ_FSYNC_POLICY=config.fsync_policy,
        BLIPMQ_MAX_RETRIES=config.max_retries,
        BLIPMQ_RETRY_BACKOFF_MS=config.retry_backoff_ms,
    )
    address = await daemon.address()

    async def connect() -> Peer:
        return Peer(await trio.open_tcp_stream(*address))

    await Player(connect, no_pause).play(scenario)
