from __future__ import annotations

import attrs
import pytest
import trio
import trio.testing

from blipmq.client.url import Address
from blipmq.client.websocket import open_websocket
from blipmq.nursery.state import DaemonState
from blipmq.nursery.websocket import serve_websocket
from blipmq.testing import FaultyStream, InProcessBroker


@attrs.define(eq=False)
class _OverWebSocket:
    """In place of a `Connection` of the broker."""

    state: DaemonState
    stream: trio.abc.Stream
    peer: str

    async def run(self) -> None:
        await serve_websocket(self.state, self.stream, self.peer, trio.current_time())


async def _connect(broker: InProcessBroker, address: Address | None = None) -> trio.abc.Stream:
    """As `InProcessBroker.connect`."""
    await trio.lowlevel.checkpoint()
    if not broker.reachable:
        raise ConnectionRefusedError("connection refused")
    ours, theirs = trio.testing.memory_stream_pair()
    assert broker._tasks is not None
    broker._tasks.start_soon(broker._serve, FaultyStream(theirs))
    try:
        return broker.wrap(await open_websocket(ours, broker._nursery, "in-process", "/"))
    except trio.BrokenResourceError as error:
        raise ConnectionRefusedError(str(error)) from error


@pytest.fixture(params=["in memory", "over WebSocket"])
def carrier(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests that use it run with in-process brokers on plain streams, and on WebSockets."""
    if request.param == "over WebSocket":
        monkeypatch.setattr("blipmq.testing.broker.Connection", _OverWebSocket)
        monkeypatch.setattr(InProcessBroker, "connect", _connect)
