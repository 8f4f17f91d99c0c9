from __future__ import annotations

import threading
from pathlib import Path

import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from blipmq import AuthenticationFailed, ConnectionLost, State, connect_stream
from blipmq.config import Config
from blipmq.testing import open_broker


async def test_it_needs_no_thread(autojump_clock: MockClock) -> None:
    before = threading.active_count()
    async with open_broker() as broker, broker.client() as client:
        async with client.subscribe("demo") as messages:
            await client.publish("demo", b"hello")
            async with await messages.receive() as message:
                assert message.body == b"hello"
        assert threading.active_count() == before


async def test_its_deadlines_pass_on_the_mock_clock(autojump_clock: MockClock) -> None:
    async with open_broker() as broker, broker.client() as client:
        await client.publish("demo", b"later", delay=86_400)
        async with client.subscribe("demo") as messages:
            assert (await messages.receive()).body == b"later"
        assert trio.current_time() == pytest.approx(86_400, abs=1)


async def test_it_can_be_configured(autojump_clock: MockClock) -> None:
    config = attrs.evolve(Config(), max_retries=1)
    async with (
        open_broker(config=config, api_key="mine") as broker,
        broker.client() as client,
        client.subscribe("demo", name="work") as messages,
    ):
        await client.publish("demo", b"hello")
        with pytest.raises(KeyError):
            async with await messages.receive():
                raise KeyError
        async with client.subscribe("$dead.demo") as dead:
            assert (await dead.receive()).body == b"hello"


async def test_a_raw_stream_speaks_the_protocol(autojump_clock: MockClock) -> None:
    async with open_broker() as broker:
        stream = await broker.connect()
        async with connect_stream(stream, api_key=broker.api_key) as client:
            await client.ping()
        with pytest.raises(AuthenticationFailed):
            async with connect_stream(await broker.connect(), api_key="wrong"):
                pytest.fail("connected")


async def test_it_can_be_out_of_reach(autojump_clock: MockClock) -> None:
    async with open_broker() as broker:
        broker.reachable = False
        with pytest.raises(ConnectionLost, match="connection refused"):
            async with broker.client():
                pytest.fail("connected")


async def test_a_restart_forgets_everything(autojump_clock: MockClock) -> None:
    async with open_broker() as broker, broker.client() as client:
        await client.publish("demo", b"gone")
        await broker.restart()
        await client.publish("demo", b"new")
        async with client.subscribe("demo") as messages:
            assert (await messages.receive()).body == b"new"


async def test_with_a_log_a_restart_forgets_nothing(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_broker(wal_path=tmp_path / "wal") as broker, broker.client() as client:
        async with client.subscribe("demo", name="work") as messages:
            for number in range(3):
                await client.publish("demo", b"%d" % number)
            async with await messages.receive():
                pass
            await client.ping()
            await trio.sleep(1)
        await broker.restart()
        async with client.subscribe("demo", name="work") as messages:
            assert [(await messages.receive()).body for _ in range(2)] == [b"1", b"2"]
    async with (
        open_broker(wal_path=tmp_path / "wal") as broker,
        broker.client() as client,
        client.subscribe("demo", name="work") as messages,
    ):
        assert [(await messages.receive()).body for _ in range(2)] == [b"1", b"2"]


async def test_draining_closes_connections_gracefully(autojump_clock: MockClock) -> None:
    async with open_broker() as broker, broker.client(reconnect_timeout=10) as client:
        await broker.drain()
        assert broker.connections == 0
        await wait_all_tasks_blocked()
        assert client.state is State.RECONNECTING


async def test_an_exception_of_the_block_comes_out_as_itself(autojump_clock: MockClock) -> None:
    with pytest.raises(KeyError):
        async with open_broker() as broker, broker.client():
            raise KeyError
