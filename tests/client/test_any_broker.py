"""What a program may rely on, whichever broker it has: the same tests for each kind."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path

import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

import blipmq
from blipmq import (
    Client,
    ClientClosed,
    Subscription,
    TooLarge,
    UnsupportedByBroker,
    WindowFull,
)
from blipmq.config import Config, TlsSettings, WebSocketSettings
from blipmq.nursery import root
from blipmq.testing import open_broker
from tests.peer import KEY, PATIENCE_SECONDS

OpenClient = Callable[[], AbstractAsyncContextManager[Client]]


@asynccontextmanager
async def in_process(tmp_path: Path) -> AsyncIterator[OpenClient]:
    async with open_broker() as broker:
        yield broker.client


@asynccontextmanager
async def daemon(tmp_path: Path, scheme: str) -> AsyncIterator[OpenClient]:
    """The whole daemon, with its log on disk, on sockets of the kernel."""
    encrypted = scheme in ("blipmqs", "wss")
    tls = Path(__file__).parent / "tls"
    config = attrs.evolve(
        Config(),
        allowed_api_keys=(KEY,),
        wal_path=str(tmp_path / "wal"),
        port=0,
        metrics_port=0,
        tls=TlsSettings(str(tls / "certificate.pem"), str(tls / "key.pem"), port=0),
        websocket=WebSocketSettings(enabled=True, port=0, tls=encrypted),
    )
    context = ssl.create_default_context(cafile=str(tls / "certificate.pem"))
    context.check_hostname = False  # it is for another one than the loopback address
    async with trio.open_nursery() as nursery:

        async def serve(*, task_status: trio.TaskStatus[root.Ready]) -> None:
            await root.serve(config, task_status=task_status)

        ready: root.Ready = await nursery.start(serve)
        addresses = {"blipmq": ready.addresses, "blipmqs": ready.tls}
        host, port = addresses.get(scheme, ready.websocket)[0]
        yield lambda: blipmq.open_client(
            f"{scheme}://{host}:{port}", api_key=KEY, ssl_context=context if encrypted else None
        )
        nursery.cancel_scope.cancel()


KINDS: dict[str, Callable[[Path], AbstractAsyncContextManager[OpenClient]]] = {
    "in process": in_process,
    "over TCP": partial(daemon, scheme="blipmq"),
    "over TLS": partial(daemon, scheme="blipmqs"),
    "over WebSocket": partial(daemon, scheme="ws"),
    "over WebSocket and TLS": partial(daemon, scheme="wss"),
    "version 1": in_process,
}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    name = str(request.param)
    if name == "version 1":
        monkeypatch.setattr("blipmq.broker.session.VERSIONS", (1,))
    if not name.startswith("over "):
        request.getfixturevalue("autojump_clock")
    return name


@pytest.fixture
async def open_client(kind: str, tmp_path: Path) -> AsyncIterator[OpenClient]:
    """Opens a client of a broker that is there for this test."""
    async with KINDS[kind](tmp_path) as opening:
        yield opening


async def receive(messages: Subscription, count: int) -> list[bytes]:
    """The bodies of so many messages, each accepted."""
    bodies = []
    with trio.fail_after(PATIENCE_SECONDS):
        for _ in range(count):
            async with await messages.receive() as message:
                bodies.append(message.body)
    return bodies


async def test_the_version_and_what_it_leaves_out_are_known(
    open_client: OpenClient, kind: str
) -> None:
    async with open_client() as client:
        old = kind == "version 1"
        assert client.broker_version == (1 if old else 2)
        assert ("patterns" in client.missing_features) == old
        assert ("named subscriptions" in client.missing_features) == old


@pytest.mark.parametrize("qos", [0, 1])
async def test_messages_come_in_order(open_client: OpenClient, qos: int) -> None:
    sent = [b"%d" % number for number in range(500)]
    async with (
        open_client() as publisher,
        open_client() as consumer,
        consumer.subscribe("demo", qos=qos) as messages,
    ):
        async with publisher.open_publisher("demo", qos=qos, window=50) as pipeline:
            for body in sent:
                await pipeline.send(body)
        assert await receive(messages, len(sent)) == sent


async def test_a_message_has_its_topic_qos_and_tag(open_client: OpenClient) -> None:
    async with open_client() as client, client.subscribe("dé") as messages:
        await client.publish("dé", b"durable")
        await client.publish("dé", b"fleeting", qos=0)
        first = await messages.receive()
        second = await messages.receive()
        assert (first.body, first.topic, first.qos) == (b"durable", "dé", 1)
        assert first.tag is not None
        assert (second.body, second.topic, second.qos) == (b"fleeting", "dé", 0)
        assert second.tag is None
        assert (first.attempt, first.headers) == (1, {})
        await first.accept()


async def test_what_was_published_before_anybody_subscribed_is_received(
    open_client: OpenClient,
) -> None:
    async with open_client() as client:
        await client.publish("demo", b"early")
        async with client.subscribe("demo") as messages:
            assert await receive(messages, 1) == [b"early"]


async def test_what_failed_comes_again(open_client: OpenClient) -> None:
    async with open_client() as client, client.subscribe("demo") as messages:
        await client.publish("demo", b"hello")
        tags = []
        for attempt in range(2):
            with trio.fail_after(PATIENCE_SECONDS):
                try:
                    async with await messages.receive() as message:
                        tags.append(message.tag)
                        if not attempt:
                            raise KeyError
                except KeyError:
                    continue
        assert len(tags) == 2
        assert tags[0] == tags[1]


async def test_a_large_body_arrives_whole(open_client: OpenClient) -> None:
    large = bytes(range(256)) * 20_000
    async with open_client() as client, client.subscribe("demo") as messages:
        await client.publish("demo", large)
        assert await receive(messages, 1) == [large]


async def test_each_message_goes_to_one_of_several_tasks(open_client: OpenClient) -> None:
    received: list[bytes] = []

    async def consume(messages: Subscription, scope: trio.CancelScope) -> None:
        async for message in messages:
            async with message:
                received.append(message.body)
            if len(received) == 100:
                scope.cancel()

    async with open_client() as client, client.subscribe("demo") as messages:
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(consume, messages, nursery.cancel_scope)
            async with client.open_publisher("demo") as publisher:
                for number in range(100):
                    await publisher.send(b"%03d" % number)
        assert sorted(received) == [b"%03d" % number for number in range(100)]


async def test_batches_come_in_order(open_client: OpenClient) -> None:
    async with open_client() as client, client.subscribe("demo") as messages:
        async with client.open_publisher("demo") as publisher:
            for number in range(100):
                await publisher.send(b"%d" % number)
        bodies: list[bytes] = []
        while len(bodies) < 100:
            async with await messages.batch(30, within=0.01) as batch:
                assert len(batch) <= 30
                bodies.extend(message.body for message in batch)
        assert bodies == [b"%d" % number for number in range(100)]


async def test_a_refused_publish_raises_at_its_call(open_client: OpenClient) -> None:
    async with open_client() as client:
        with pytest.raises(blipmq.NotPermitted):
            await client.publish("$dead.demo", b"")
        await client.publish("demo", b"")
        await client.publish("$dead.demo", b"", qos=0)
        await client.ping()
        assert client.refusals.publishes == 1


async def test_an_unknown_key_is_refused(open_client: OpenClient, kind: str) -> None:
    async with open_client() as client:
        assert client.state is blipmq.State.CONNECTED
    if not kind.startswith("over "):
        async with open_broker() as broker:
            broker.api_key = "wrong"
            with pytest.raises(blipmq.AuthenticationFailed):
                async with broker.client():
                    pytest.fail("connected")


async def test_after_the_block_everything_raises_client_closed(open_client: OpenClient) -> None:
    async with open_client() as client, client.subscribe("demo") as messages:
        publisher = client.open_publisher("demo")
        await client.publish("demo", b"hello")
        message = await messages.receive()
    assert client.state is blipmq.State.CLOSED
    for call in (message.accept, messages.receive, client.ping):
        with pytest.raises(ClientClosed):
            await call()
    for qos in (0, 1):
        with pytest.raises(ClientClosed):
            await client.publish("demo", b"", qos=qos)
    with pytest.raises(ClientClosed):
        await publisher.send(b"")
    with pytest.raises(ClientClosed):
        async with client.subscribe("demo"):
            pytest.fail("entered")


class Mine(Exception):
    """Raised by a test's block."""


@pytest.mark.parametrize(
    "error", [Mine(), StopAsyncIteration(), StopIteration(), KeyboardInterrupt()], ids=repr
)
async def test_an_exception_of_the_block_comes_out_as_itself(
    open_client: OpenClient, error: BaseException
) -> None:
    with pytest.raises(type(error)) as caught:
        async with open_client() as client, client.subscribe("demo"):
            raise error
    assert caught.value is error


async def test_an_exception_group_of_the_block_comes_out_as_itself(
    open_client: OpenClient,
) -> None:
    group = ExceptionGroup("mine", [Mine(), ExceptionGroup("inner", [Mine()])])
    with pytest.raises(ExceptionGroup) as caught:
        async with open_client():
            raise group
    assert repr(caught.value) == repr(group)


async def test_cancelling_the_block_ends_it_quietly(open_client: OpenClient) -> None:
    with trio.CancelScope() as scope:
        async with open_client() as client, client.subscribe("demo") as messages:
            await client.publish("demo", b"hello")
            async with await messages.receive():
                pass
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught


USES: dict[str, Callable[[Client], object]] = {
    "named subscriptions": lambda client: client.subscribe("demo", name="work"),
    "patterns": lambda client: client.subscribe("demo.*"),
    "start of a subscription": lambda client: client.subscribe("demo", start="earliest"),
    "ack wait": lambda client: client.subscribe("demo", ack_wait=1),
    "max attempts": lambda client: client.subscribe("demo", max_attempts=0),
    "ttl": lambda client: client.publish("demo", b"", ttl=0),
    "delay": lambda client: client.publish("demo", b"", delay=1),
    "message id": lambda client: client.publish("demo", b"", message_id=b"1"),
    "key": lambda client: client.publish("demo", b"", key=b"1"),
    "reply to": lambda client: client.publish("demo", b"", reply_to="x"),
    "content type": lambda client: client.publish("demo", b"", content_type="x"),
    "trace context": lambda client: client.publish("demo", b"", trace_context="x"),
    "headers": lambda client: client.publish("demo", b"", headers={"a": b""}),
    "timestamp": lambda client: client.publish("demo", b"", timestamp=1),
    "request and reply": lambda client: client.request("demo", b"", timeout=0.01),
}


@pytest.mark.parametrize("feature", USES)
async def test_what_the_broker_lacks_raises_and_the_rest_works(
    open_client: OpenClient, feature: str
) -> None:
    async def use(client: Client) -> None:
        used = USES[feature](client)
        if isinstance(used, Subscription):
            async with used:
                return
        try:
            await used  # type: ignore[misc]
        except blipmq.RequestTimeout:
            return

    async with open_client() as client:
        if feature in client.missing_features:
            with pytest.raises(UnsupportedByBroker, match=feature):
                await use(client)
        else:
            await use(client)


@pytest.mark.parametrize("call", ["reject", "release", "extend"])
async def test_so_do_settlements(open_client: OpenClient, call: str) -> None:
    async with open_client() as client, client.subscribe("demo") as messages:
        await client.publish("demo", b"hello")
        message = await messages.receive()
        if call in client.missing_features:
            with pytest.raises(UnsupportedByBroker):
                await getattr(message, call)()
            with pytest.raises(UnsupportedByBroker):
                await message.retry(delay=1)
        else:
            await getattr(message, call)()
        await message.accept()


async def test_a_client_of_version_1_is_lost_with_its_connection(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("blipmq.broker.session.VERSIONS", (1,))
    async with open_broker() as broker, broker.client() as client:
        assert "reconnecting" in client.missing_features
        await broker.hang_up()
        with pytest.raises(blipmq.ConnectionLost):
            await client.publish("demo", b"")
        await wait_all_tasks_blocked()
        assert client.state is blipmq.State.LOST


async def test_send_many_sends_in_order(open_client: OpenClient) -> None:
    bodies = [b"%d" % number for number in range(20)]
    async with open_client() as client, client.subscribe("demo") as messages:
        async with client.open_publisher("demo", window=3) as publisher:
            await publisher.send_many(bytearray(body) for body in bodies)
            await publisher.send_many(bodies)
            assert publisher.sent == 40
        assert await receive(messages, 40) == [*bodies, *bodies]


@pytest.mark.parametrize("qos", [0, 1])
async def test_send_nowait_sends_what_fits(open_client: OpenClient, qos: int) -> None:
    async with open_client() as client, client.subscribe("demo", qos=qos) as messages:
        async with client.open_publisher("demo", qos=qos, window=3) as publisher:
            for number in range(3):
                publisher.send_nowait(b"%d" % number)
            if qos:
                with pytest.raises(WindowFull):
                    publisher.send_nowait(b"more")
            await publisher.flush()
            publisher.send_nowait(b"3")
        assert await receive(messages, 4) == [b"0", b"1", b"2", b"3"]


async def test_after_the_block_of_a_publisher_nothing_is_sent(open_client: OpenClient) -> None:
    async with open_client() as client:
        async with client.open_publisher("demo") as publisher:
            pass
        with pytest.raises(ClientClosed):
            publisher.send_nowait(b"late")
        with pytest.raises(ClientClosed):
            await publisher.send_many([b"late"])
        assert publisher.sent == 0


async def test_what_is_no_body_is_not_sent(open_client: OpenClient) -> None:
    async with open_client() as client, client.open_publisher("demo") as publisher:
        with pytest.raises(TypeError):
            publisher.send_nowait("text")  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            await publisher.send_many([b"bytes", "text"])  # type: ignore[list-item]
        with pytest.raises(TooLarge):
            publisher.send_nowait(bytes(1 << 24))
        with pytest.raises(ValueError, match="one message id"):
            await publisher.send_many([b"a", b"b"], message_id=b"id")
        assert publisher.sent == 1
