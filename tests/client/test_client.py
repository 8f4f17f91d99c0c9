from __future__ import annotations

import socket
from functools import partial

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

import blipmq
from blipmq import AuthenticationFailed, Client, ClientClosed, ConnectionLost, UnsupportedVersion
from blipmq.client.client import connect_stream
from blipmq.protocol.frames import AUTH, HELLO
from tests.client.fake_broker import KEY, FakeBroker, connected


async def test_a_client_over_tcp(nursery: trio.Nursery) -> None:
    broker = FakeBroker()
    sockets = []

    async def serve(stream: trio.SocketStream) -> None:
        sockets.append(stream)
        await broker.serve(stream)

    (listener,) = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
    port = listener.socket.getsockname()[1]
    async with blipmq.open_client(f"blipmq://127.0.0.1:{port}", api_key=KEY) as client:
        assert client.broker_version == 1
        async with client.subscribe("demo", qos=1) as messages:
            await client.publish("demo", b"hello", qos=1)
            message = await messages.receive()
            await message.accept()
    assert broker.accepted() == [1]


async def test_tcp_sends_small_frames_at_once(nursery: trio.Nursery) -> None:
    """Trio sets TCP_NODELAY on the streams that it opens; the client relies on it."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        stream = await trio.open_tcp_stream("127.0.0.1", listener.socket.getsockname()[1])
        async with stream:
            assert stream.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0


async def test_an_unreachable_broker_is_named() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        with pytest.raises(ConnectionLost, match=f"cannot connect to 127.0.0.1:{port}: .*refused"):
            async with blipmq.open_client(f"blipmq://127.0.0.1:{port}", api_key=KEY):
                pytest.fail("connected")


async def test_a_bad_url_or_key_is_refused_before_the_block() -> None:
    with pytest.raises(ValueError, match="expected blipmq://"):
        blipmq.open_client("127.0.0.1:5555", api_key=KEY)
    with pytest.raises(ValueError, match="65536 bytes"):
        blipmq.open_client("blipmq://127.0.0.1", api_key="k" * 65_536)
    with pytest.raises(TypeError, match="an API key is str, not bytes"):
        blipmq.open_client("blipmq://127.0.0.1", api_key=b"key")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="surrogate pair in the API key") as caught:
        blipmq.open_client("blipmq://127.0.0.1", api_key="key\udc80")
    assert type(caught.value) is ValueError  # the codec's own shows the key


async def test_a_host_that_only_trio_refuses_is_named() -> None:
    with pytest.raises(ConnectionLost, match=r"cannot connect to \u2603:1: .*not allowed"):
        async with blipmq.open_client("blipmq://\u2603:1", api_key=KEY):
            pytest.fail("connected")


async def test_a_broker_that_does_not_answer_is_given_up(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    begin = trio.current_time()
    with pytest.raises(ConnectionLost, match="mute did not answer within 3000 ms"):
        async with connect_stream(ours, api_key=KEY, name="mute", connect_timeout_ms=3000):
            pytest.fail("connected")
    assert trio.current_time() - begin == pytest.approx(3)
    assert (await theirs.receive_some())[4] == HELLO
    assert await theirs.receive_some() == b""


async def test_an_unknown_key_raises_authentication_failed() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(FakeBroker().serve, theirs)
        with pytest.raises(AuthenticationFailed) as caught:
            async with connect_stream(ours, api_key="wrong"):
                pytest.fail("connected")
    assert (caught.value.code, caught.value.message) == (401, "invalid API key")


async def test_a_broker_of_another_version_raises_unsupported_version(
    nursery: trio.Nursery,
) -> None:
    broker = FakeBroker()
    broker.refuse[b"\x00\x01"] = (426, "unsupported protocol version")
    with pytest.raises(UnsupportedVersion):
        async with connected(broker, nursery):
            pytest.fail("connected")
    assert broker.count(AUTH) == 0


class Mine(Exception):
    """Raised by a test's block."""


async def test_an_exception_of_the_block_comes_out_as_itself(nursery: trio.Nursery) -> None:
    mine = Mine()
    mine.__context__ = context = ValueError()
    with pytest.raises(Mine) as caught:
        async with connected(FakeBroker(), nursery) as client, client.subscribe("demo"):
            raise mine
    assert caught.value is mine
    assert mine.__context__ is context
    assert mine.__cause__ is None


async def test_an_exception_group_of_the_block_comes_out_as_itself(
    nursery: trio.Nursery,
) -> None:
    group = ExceptionGroup("mine", [Mine(), ExceptionGroup("inner", [Mine()])])
    with pytest.raises(ExceptionGroup) as caught:
        async with connected(FakeBroker(), nursery):
            raise group
    assert repr(caught.value) == repr(group)  # Trio may copy groups


@pytest.mark.parametrize("error", [StopAsyncIteration(), StopIteration(), KeyboardInterrupt()])
async def test_so_does_one_that_python_treats_specially(
    nursery: trio.Nursery, error: BaseException
) -> None:
    with pytest.raises(type(error)) as caught:
        async with connected(FakeBroker(), nursery):
            raise error
    assert caught.value is error


class Interrupted(trio.abc.Stream):
    """A stream in whose reader Ctrl-C arrives, once `pressed` is set."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.pressed = trio.Event()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        if self.pressed.is_set():
            raise KeyboardInterrupt
        return await self.stream.receive_some(max_bytes)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self.stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self.stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self.stream.aclose()


@pytest.mark.parametrize("twice", [False, True])
async def test_ctrl_c_in_a_task_of_the_client_comes_out_as_itself(
    nursery: trio.Nursery, autojump_clock: MockClock, twice: bool
) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    nursery.start_soon(FakeBroker().serve, theirs)
    stream = Interrupted(ours)

    async def body(client: Client) -> None:
        await wait_all_tasks_blocked()
        stream.pressed.set()
        try:
            await client.ping()  # its answer takes the reader to where it is interrupted
            await trio.sleep_forever()
        finally:
            if twice:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        async with connect_stream(stream, api_key=KEY) as client:
            await body(client)


async def test_an_error_of_a_call_comes_out_of_the_block_as_itself(nursery: trio.Nursery) -> None:
    broker = FakeBroker()
    broker.refuse[b"demo"] = (500, "durable publish failed: disk full")
    with pytest.raises(blipmq.PublishFailed):
        async with connected(broker, nursery) as client:
            await client.publish("demo", b"")


async def test_cancelling_the_block_from_outside_ends_it_quietly(nursery: trio.Nursery) -> None:
    broker = FakeBroker()
    with trio.CancelScope() as scope:
        async with connected(broker, nursery) as client, client.subscribe("demo") as messages:
            broker.put(b"demo", b"hello")
            message = await messages.receive()
            await message.accept()
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert broker.accepted() == [1]


async def test_leaving_waits_until_the_broker_has_everything(nursery: trio.Nursery) -> None:
    broker = FakeBroker()
    left = trio.Event()

    async def use() -> None:
        async with connected(broker, nursery) as client:
            broker.commits = trio.Event()
            with trio.move_on_after(0):
                await client.publish("demo", b"cancelled before it was sent")
            with trio.CancelScope() as scope:
                nursery.start_soon(cancel_when_blocked, scope)
                await client.publish("demo", b"cancelled when it was sent")
            await client.publish("demo", b"qos 0", qos=0)
        left.set()

    nursery.start_soon(use)
    for _ in range(3):
        await wait_all_tasks_blocked()
    assert not left.is_set()
    broker.commits.set()
    await left.wait()
    assert sorted(broker.bodies()) == [b"cancelled when it was sent", b"qos 0"]


async def cancel_when_blocked(scope: trio.CancelScope) -> None:
    await wait_all_tasks_blocked()
    scope.cancel()


async def test_leaving_a_broker_that_does_not_answer_is_bounded_and_raises(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    broker = FakeBroker()
    begin = trio.current_time()

    async def use() -> None:
        async with connected(broker, nursery) as client:
            broker.commits = trio.Event()
            await client.publish("demo", b"hello", qos=0)

    with pytest.raises(ConnectionLost, match="may not have reached fake"):
        await use()
    assert trio.current_time() - begin == pytest.approx(2)


async def test_leaving_with_nothing_in_doubt_raises_nothing(nursery: trio.Nursery) -> None:
    broker = FakeBroker()
    async with connected(broker, nursery) as client:
        await client.publish("demo", b"hello", qos=0)
        await client.ping()
        await broker.hang_up()
        await wait_all_tasks_blocked()


async def test_the_exception_of_the_block_wins_over_doubt(nursery: trio.Nursery) -> None:
    broker = FakeBroker()

    async def use() -> None:
        async with connected(broker, nursery) as client:
            await client.publish("demo", b"hello", qos=0)
            await broker.hang_up()
            raise Mine

    with pytest.raises(Mine):
        await use()


async def test_after_the_block_every_call_raises_client_closed(nursery: trio.Nursery) -> None:
    broker = FakeBroker()
    async with connected(broker, nursery) as client, client.subscribe("demo", qos=1) as messages:
        broker.put(b"demo", b"hello")
        message = await messages.receive()
    with pytest.raises(ClientClosed):
        await message.accept()
    with pytest.raises(ClientClosed):
        await messages.receive()
    with pytest.raises(ClientClosed):
        await client.publish("demo", b"", qos=0)
    with pytest.raises(ClientClosed):
        await client.publish("demo", b"", qos=1)
    with pytest.raises(ClientClosed):
        await client.ping()
    with pytest.raises(ClientClosed):
        async with client.subscribe("demo"):
            pytest.fail("entered")
    assert broker.accepted() == []


async def test_after_the_block_a_lost_connection_is_closed_too(nursery: trio.Nursery) -> None:
    broker = FakeBroker()
    async with connected(broker, nursery) as client:
        await broker.hang_up()
        await wait_all_tasks_blocked()
        with pytest.raises(ConnectionLost):
            await client.ping()
    with pytest.raises(ClientClosed):
        await client.ping()


async def test_calls_of_other_tasks_end_with_the_block(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    broker = FakeBroker()
    ended = []

    async def publish(client: Client) -> None:
        with pytest.raises(ClientClosed):
            await client.publish("demo", b"")
        ended.append("publish")

    async def receive(client: Client) -> None:
        with pytest.raises(ClientClosed):
            async with client.subscribe("demo") as messages:
                await messages.receive()
        ended.append("receive")

    async with connected(broker, nursery) as client:
        nursery.start_soon(receive, client)
        await wait_all_tasks_blocked()
        broker.commits = trio.Event()
        nursery.start_soon(publish, client)
        await wait_all_tasks_blocked()
    await wait_all_tasks_blocked()
    assert sorted(ended) == ["publish", "receive"]


async def test_losing_the_connection_does_not_cancel_the_block(nursery: trio.Nursery) -> None:
    broker = FakeBroker()
    async with connected(broker, nursery) as client:
        await broker.hang_up()
        await wait_all_tasks_blocked()
        await trio.lowlevel.checkpoint()
        with pytest.raises(ConnectionLost, match="the broker at fake closed the connection"):
            await client.ping()
