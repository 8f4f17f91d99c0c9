"""The WebSocket listener: who gets in, what a message may be, and how a connection ends."""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Sequence

import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from blipmq import open_client
from blipmq.broker.limits import Limits
from blipmq.broker.stats import CloseReason, Listener
from blipmq.client.url import Address
from blipmq.config import ShutdownSettings
from blipmq.nursery.websocket import PART_BYTES
from blipmq.protocol import encoder
from blipmq.protocol.frames import ACK, PONG, Frame
from tests.nursery.daemon import Daemon, serving
from tests.nursery.network import MemoryPeer
from tests.nursery.web import ORIGIN, WEB, WebPeer, open_web
from tests.peer import KEY, PATIENCE_SECONDS, bodies

OPCODE_CONTINUATION, OPCODE_TEXT, OPCODE_BINARY, OPCODE_PING = 0, 1, 2, 9
LAST = 0x80
REQUEST = (
    b"GET / HTTP/1.1\r\nHost: daemon.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


def frame(opcode: int, payload: bytes, *, last: bool = True, masked: bool = True) -> bytes:
    """A frame of a client. The mask is of zeros, so the payload is as it is."""
    size = len(payload)
    short, long = (size, b"") if size < 126 else (126, struct.pack("!H", size))
    head = bytes((opcode | (LAST if last else 0), (0x80 if masked else 0) | short))
    return head + long + (bytes(4) if masked else b"") + payload


async def raw(daemon: Daemon, request: bytes = REQUEST + b"\r\n") -> tuple[MemoryPeer, bytes]:
    """A connection on which this was sent, and the head of the answer."""
    peer = daemon.connect(port=WEB.port)
    await peer.send(request)
    answer = b""
    with trio.fail_after(PATIENCE_SECONDS):
        while b"\r\n\r\n" not in answer:
            data = await peer.stream.receive_some()
            if not data:
                break
            answer += data
    return peer, answer


async def everything(peer: MemoryPeer) -> bytes:
    """All that comes until the daemon closes."""
    with trio.fail_after(PATIENCE_SECONDS):
        return b"".join([data async for data in peer.stream])


async def greeted(daemon: Daemon, nursery: trio.Nursery) -> WebPeer:
    """A peer that has authenticated."""
    peer = await open_web(daemon, nursery)
    await peer.greet()
    return peer


async def test_a_frame_may_span_messages_and_a_message_hold_many_frames(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    async with serving(websocket=WEB) as daemon:
        peer = await open_web(daemon, nursery)
        data = encoder.hello(1, 1) + encoder.auth(2, KEY.encode()) + encoder.ping(3)
        for part in (data[:3], data[3:20], b"", data[20:]):
            await peer.connection.send_message(part)
        assert [await peer.receive() for _ in range(3)] == [
            Frame(ACK, 1, bytes(8)),
            Frame(ACK, 2, bytes(8)),
            Frame(PONG, 3, b""),
        ]


async def test_fragments_are_handed_on_before_their_message_is_complete(
    autojump_clock: MockClock,
) -> None:
    async with serving(websocket=WEB) as daemon:
        peer, answer = await raw(daemon)
        assert answer.startswith(b"HTTP/1.1 101 ")
        hello = encoder.hello(1, 1)
        await peer.send(frame(OPCODE_BINARY, hello[:5], last=False))
        await peer.send(frame(OPCODE_CONTINUATION, hello[5:], last=False))
        reply = await peer.stream.receive_some()
        assert reply[2:] == encoder.ack(1, 0)


async def test_a_large_delivery_comes_in_messages_of_bounded_size(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    body = bytes(3 * PART_BYTES)
    async with serving(websocket=WEB) as daemon:
        peer = await greeted(daemon, nursery)
        subscription = await peer.subscribe("demo")
        await peer.publish("demo", body)
        await peer.send(encoder.poll(1, subscription))
        sizes: list[int] = []
        while sum(sizes) <= len(body):
            message = await peer.connection.get_message()
            sizes.append(len(message))
        assert max(sizes) == PART_BYTES
        assert len(sizes) == 4


async def test_a_client_over_websocket_and_one_over_tcp_share_topics(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    async with serving(websocket=WEB) as daemon:
        web, tcp = await greeted(daemon, nursery), await daemon.client()
        subscription = await tcp.subscribe("demo")
        assert await web.publish("demo", b"a") == []
        assert bodies(await tcp.poll(subscription)) == [b"a"]


async def test_connections_are_counted_by_listener(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    async with serving(websocket=WEB) as daemon:
        await daemon.client()
        peer = await greeted(daemon, nursery)
        stats = daemon.stats
        assert stats.connections == 2
        assert stats.connections_by_listener == {
            Listener.TCP: 1,
            Listener.TLS: 0,
            Listener.WEBSOCKET: 1,
        }
        await peer.aclose()
        await wait_all_tasks_blocked()
        assert stats.connections_by_listener[Listener.WEBSOCKET] == 0
        assert stats.connections_accepted[Listener.WEBSOCKET] == 1


async def test_without_the_setting_nobody_listens(autojump_clock: MockClock) -> None:
    async with serving() as daemon:
        with pytest.raises(ConnectionRefusedError):
            daemon.connect(port=WEB.port)


class TestWhoGetsIn:
    @pytest.mark.parametrize(
        ("allowed", "origins"),
        [
            ((ORIGIN,), ()),
            ((ORIGIN,), (ORIGIN,)),
            ((ORIGIN,), (ORIGIN.upper(),)),
            (("https://other.example", ORIGIN), (ORIGIN,)),
            (("*",), ("https://any.example",)),
            (("null",), ("null",)),
            ((), ()),
        ],
    )
    async def test_an_origin_that_is_allowed(
        self,
        autojump_clock: MockClock,
        nursery: trio.Nursery,
        allowed: tuple[str, ...],
        origins: Sequence[str],
    ) -> None:
        settings = attrs.evolve(WEB, allowed_origins=allowed)
        async with serving(websocket=settings) as daemon:
            peer = await open_web(daemon, nursery, origins=origins)
            await peer.greet()

    @pytest.mark.parametrize(
        ("allowed", "origins"),
        [
            ((), (ORIGIN,)),
            ((ORIGIN,), ("https://app.example.evil",)),
            ((ORIGIN,), ("http://app.example",)),
            ((ORIGIN,), (f"{ORIGIN}:8443",)),
            ((ORIGIN,), ("null",)),
            ((ORIGIN,), ("",)),
            ((ORIGIN,), (ORIGIN, "https://evil.example")),
        ],
    )
    async def test_any_other_origin_is_answered_403(
        self,
        autojump_clock: MockClock,
        allowed: tuple[str, ...],
        origins: Sequence[str],
    ) -> None:
        settings = attrs.evolve(WEB, allowed_origins=allowed)
        async with serving(websocket=settings) as daemon:
            lines = b"".join(b"Origin: %s\r\n" % origin.encode() for origin in origins)
            peer, answer = await raw(daemon, REQUEST + lines + b"\r\n")
            assert answer.startswith(b"HTTP/1.1 403 ")
            await everything(peer)
            assert daemon.stats.connections_refused[CloseReason.ORIGIN] == 1
            await wait_all_tasks_blocked()
            assert daemon.stats.connections == 0

    @pytest.mark.parametrize(
        ("path", "proposed", "chosen"),
        [("/mq", (), None), ("/mq?x=1", (), None), ("/mq", ("mqtt", "blipmq"), "blipmq")],
    )
    async def test_the_path_and_the_subprotocol(
        self,
        autojump_clock: MockClock,
        nursery: trio.Nursery,
        path: str,
        proposed: Sequence[str],
        chosen: str | None,
    ) -> None:
        async with serving(websocket=attrs.evolve(WEB, path="/mq")) as daemon:
            peer = await open_web(daemon, nursery, path=path, subprotocols=proposed)
            assert peer.connection.subprotocol == chosen
            await peer.greet()

    @pytest.mark.parametrize(
        ("request_", "status"),
        [
            (REQUEST.replace(b"GET / ", b"GET /other ") + b"\r\n", 404),
            (REQUEST + b"Sec-WebSocket-Protocol: mqtt\r\n\r\n", 400),
            (REQUEST.replace(b"Version: 13", b"Version: 8") + b"\r\n", 426),
            (REQUEST.replace(b"GET", b"POST") + b"\r\n", 400),
            (b"GET / HTTP/1.1\r\nHost: daemon.example\r\n\r\n", 400),
            (REQUEST + b"X: " + bytes([0x61]) * 100_000, 400),
            (b"\x16\x03\x01 is how TLS begins\r\n\r\n", 400),
        ],
    )
    async def test_another_request_is_answered_and_counted(
        self, autojump_clock: MockClock, request_: bytes, status: int
    ) -> None:
        async with serving(websocket=WEB) as daemon:
            peer, answer = await raw(daemon, request_)
            assert answer.split()[1] == b"%d" % status
            await everything(peer)
            await wait_all_tasks_blocked()
            assert daemon.stats.connections_refused[CloseReason.UPGRADE] == 1

    @pytest.mark.parametrize("line", [b"Host: \xff\xfe", b"Host: xn--a\xe4"])
    async def test_a_head_that_its_parser_did_not_foresee_ends_one_connection(
        self, autojump_clock: MockClock, line: bytes
    ) -> None:
        request = REQUEST.replace(b"Host: daemon.example", line) + b"\r\n"
        async with serving(websocket=WEB) as daemon:
            other = await daemon.client()
            peer, answer = await raw(daemon, request)
            assert b" 101 " not in answer
            assert await everything(peer) == b""
            assert await other.ask() == []
            assert sum(daemon.stats.connections_refused.values()) > 0

    async def test_a_request_that_does_not_come_is_waited_for_as_long_as_an_auth(
        self, autojump_clock: MockClock
    ) -> None:
        async with serving(websocket=WEB, limits=Limits(handshake_timeout_ms=3_000)) as daemon:
            peer = daemon.connect(port=WEB.port)
            await peer.send(REQUEST)
            assert await everything(peer) == b""
            assert trio.current_time() == 3
            assert daemon.stats.connections_refused[CloseReason.HANDSHAKE_TIMEOUT] == 1

    async def test_the_time_for_the_handshake_counts_from_the_accepted_connection(
        self, autojump_clock: MockClock, nursery: trio.Nursery
    ) -> None:
        async with serving(websocket=WEB, limits=Limits(handshake_timeout_ms=3_000)) as daemon:
            peer = daemon.connect(port=WEB.port)
            await trio.sleep(2)
            await peer.send(REQUEST + b"\r\n")
            await everything(peer)
            assert daemon.stats.connections_refused[CloseReason.HANDSHAKE_TIMEOUT] == 1
            assert trio.current_time() < 3 + 3

    async def test_those_that_are_not_connected_yet_count_toward_the_limit(
        self, autojump_clock: MockClock
    ) -> None:
        async with serving(websocket=WEB, limits=Limits(max_connections=2)) as daemon:
            for _ in range(2):
                await daemon.connect(port=WEB.port).send(REQUEST)
            await wait_all_tasks_blocked()
            assert await daemon.connect().rest() == []
            assert daemon.stats.connections_refused[CloseReason.LIMIT] == 1


class TestWhatIsSent:
    @pytest.mark.parametrize("size", [0, 5])
    async def test_a_text_message_closes_with_1003_and_what_came_before_is_answered(
        self, autojump_clock: MockClock, nursery: trio.Nursery, size: int
    ) -> None:
        async with serving(websocket=WEB) as daemon:
            peer = await greeted(daemon, nursery)
            await peer.send(encoder.ping(7))
            await peer.connection.send_message("a" * size)
            await peer.send(encoder.publish(1, 1, b"demo", b"too late"))
            assert await peer.receive() == Frame(PONG, 7, b"")
            assert (await peer.closed()).code == 1003
            assert trio.current_time() == 0
            assert daemon.stats.connections_refused[CloseReason.TEXT] == 1
            assert daemon.stats.published[1] == 0

    async def test_a_message_may_have_the_largest_size(
        self, autojump_clock: MockClock, nursery: trio.Nursery
    ) -> None:
        async with serving(websocket=attrs.evolve(WEB, max_message_bytes=1_000)) as daemon:
            peer = await greeted(daemon, nursery)
            publish = encoder.publish(1, 0, b"demo", b"")
            for _ in range(2):
                await peer.send(encoder.publish(1, 0, b"demo", bytes(1_000 - len(publish))))
            assert await peer.ask() == []

    @pytest.mark.parametrize("size", [None, 600])
    async def test_a_larger_one_closes_with_1009(
        self, autojump_clock: MockClock, nursery: trio.Nursery, size: int | None
    ) -> None:
        async with serving(websocket=attrs.evolve(WEB, max_message_bytes=1_000)) as daemon:
            if size is None:
                peer = await greeted(daemon, nursery)
                await peer.connection.send_message(bytes(1_001))
                assert (await peer.closed()).code == 1009
            else:
                below, _ = await raw(daemon)
                data = encoder.hello(1, 1) + bytes(0)
                await below.send(frame(OPCODE_BINARY, data, last=False))
                await below.send(frame(OPCODE_CONTINUATION, bytes(1_000), last=False))
                assert struct.pack("!H", 1009) in await everything(below)
            assert daemon.stats.connections_refused[CloseReason.MESSAGE_SIZE] == 1

    async def test_fragments_without_end_or_content_take_no_memory(
        self, autojump_clock: MockClock
    ) -> None:
        async with serving(websocket=WEB) as daemon:
            peer, _ = await raw(daemon)
            await peer.send(frame(OPCODE_BINARY, b"", last=False))
            tracemalloc.start()
            try:
                for _ in range(4):
                    await peer.send(frame(OPCODE_CONTINUATION, b"", last=False) * 10_000)
                    await wait_all_tasks_blocked()
                held, _ = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            assert held < 200_000, "gathered, they would be a list of 40 000"
            await peer.send(frame(OPCODE_CONTINUATION, encoder.hello(1, 1)))
            assert (await peer.stream.receive_some())[2:] == encoder.ack(1, 0)

    @pytest.mark.parametrize(
        ("data", "code"),
        [
            (frame(OPCODE_BINARY, b"a", masked=False), 1002),
            (frame(OPCODE_CONTINUATION, b"a"), 1002),
            (frame(3, b"a"), 1002),
            (frame(OPCODE_BINARY | 0x40, b"a"), 1002),
            (frame(OPCODE_PING, bytes(126)), 1002),
            (frame(OPCODE_TEXT, b"\xff"), 1007),
        ],
    )
    async def test_what_breaks_a_rule_of_websocket_closes_with_its_code(
        self, autojump_clock: MockClock, data: bytes, code: int
    ) -> None:
        async with serving(websocket=WEB) as daemon:
            peer, _ = await raw(daemon)
            hello = encoder.hello(1, 1)
            await peer.send(frame(OPCODE_BINARY, hello) + data + bytes(100_000))
            answer = await everything(peer)
            assert answer[2 : 2 + len(encoder.ack(1, 0))] == encoder.ack(1, 0)
            closing = answer[2 + len(encoder.ack(1, 0)) :]
            assert closing[0] == LAST | 8
            assert struct.unpack_from("!H", closing, 2) == (code,)
            assert daemon.stats.connections_refused[CloseReason.WEBSOCKET_FRAMING] == 1

    async def test_a_frame_that_is_none_of_the_protocol_closes_with_1002(
        self, autojump_clock: MockClock, nursery: trio.Nursery
    ) -> None:
        async with serving(websocket=WEB) as daemon:
            peer = await greeted(daemon, nursery)
            await peer.send(bytes(4))
            closed = await peer.closed()
            assert closed.code == 1002
            assert daemon.stats.framing_errors == 1

    async def test_one_failed_auth_too_many_closes_with_1008(
        self, autojump_clock: MockClock, nursery: trio.Nursery
    ) -> None:
        async with serving(websocket=WEB, limits=Limits(max_auth_failures=1)) as daemon:
            peer = await open_web(daemon, nursery)
            await peer.send(encoder.hello(1, 1), *[encoder.auth(2, b"wrong")] * 2)
            closed = await peer.closed()
            assert (closed.code, closed.reason) == (1008, "auth_failures")

    async def test_a_ping_is_answered(
        self, autojump_clock: MockClock, nursery: trio.Nursery
    ) -> None:
        async with serving(websocket=WEB) as daemon:
            peer = await open_web(daemon, nursery)
            with trio.fail_after(PATIENCE_SECONDS):
                await peer.connection.ping(b"are you there")
            assert trio.current_time() == 0


class TestHowItEnds:
    async def test_a_client_that_closes_is_answered_and_what_it_published_is_committed(
        self, autojump_clock: MockClock, nursery: trio.Nursery
    ) -> None:
        async with serving(websocket=WEB) as daemon:
            other = await daemon.client()
            subscription = await other.subscribe("demo")
            peer = await greeted(daemon, nursery)
            await peer.send(encoder.publish(1, 1, b"demo", b"a"))
            await peer.connection.aclose(4001, "enough")
            assert trio.current_time() == 0
            await wait_all_tasks_blocked()
            assert daemon.stats.connections == 1
            assert bodies(await other.poll(subscription)) == [b"a"]
            assert sum(daemon.stats.connections_refused.values()) == 0

    async def test_what_a_client_held_that_is_cut_off_comes_back_at_once(
        self, autojump_clock: MockClock, nursery: trio.Nursery
    ) -> None:
        async with serving(websocket=WEB, retry_backoff_ms=60_000) as daemon:
            lost, other = await greeted(daemon, nursery), await daemon.client()
            subscription = await lost.subscribe("demo")
            await lost.publish("demo", b"a")
            assert bodies(await lost.poll(subscription)) == [b"a"]
            await lost.below.reset()
            await wait_all_tasks_blocked()
            assert bodies(await other.poll(subscription)) == [b"a"]
            assert trio.current_time() == 0

    async def test_a_shutdown_closes_with_1001(
        self, autojump_clock: MockClock, nursery: trio.Nursery
    ) -> None:
        async with serving(websocket=WEB) as daemon:
            peer = await greeted(daemon, nursery)
            daemon.signal()
            assert (await peer.closed()).code == 1001
            await daemon.end()
            assert trio.current_time() == 0

    async def test_a_shutdown_does_not_wait_for_a_client_that_is_told_and_leaves(
        self, autojump_clock: MockClock
    ) -> None:
        async with serving(websocket=WEB) as daemon:

            async def connect(address: Address) -> trio.abc.Stream:
                return daemon.connect(port=address.port).stream

            url = f"ws://daemon.example:{WEB.port}/"
            async with open_client(url, api_key=KEY, connect=connect, reconnect=False) as client:
                await client.publish("demo", b"")
                daemon.signal()
                await daemon.end()
                assert trio.current_time() == 0

    async def test_a_shutdown_does_not_wait_for_who_has_not_asked_for_a_websocket(
        self, autojump_clock: MockClock
    ) -> None:
        async with serving(websocket=WEB) as daemon:
            peer = daemon.connect(port=WEB.port)
            await peer.send(REQUEST)
            await wait_all_tasks_blocked()
            daemon.signal()
            await daemon.end()
            assert trio.current_time() == 0
            assert daemon.stats.connections_refused[CloseReason.UPGRADE] == 0

    async def test_a_client_that_does_not_answer_the_close_is_waited_for_a_while(
        self, autojump_clock: MockClock
    ) -> None:
        shutdown = ShutdownSettings(linger_timeout_ms=1_000)
        async with serving(websocket=WEB, shutdown=shutdown) as daemon:
            await raw(daemon)
            daemon.signal()
            await daemon.end()
            assert trio.current_time() == 1

    async def test_a_client_that_is_silent_is_pinged_and_stays_when_it_answers(
        self, autojump_clock: MockClock, nursery: trio.Nursery
    ) -> None:
        async with serving(websocket=attrs.evolve(WEB, ping_ms=5_000)) as daemon:
            peer = await greeted(daemon, nursery)
            received = peer.below.server.received
            await trio.sleep(3_600)
            assert peer.below.server.received > received
            assert await peer.ask() == []

    async def test_one_that_has_vanished_is_closed_after_twice_that_time(
        self, autojump_clock: MockClock
    ) -> None:
        settings = attrs.evolve(WEB, ping_ms=5_000)
        async with serving(
            websocket=settings, limits=Limits(handshake_timeout_ms=60_000)
        ) as daemon:
            peer, _ = await raw(daemon)
            await trio.sleep(3)
            await peer.send(frame(OPCODE_BINARY, encoder.hello(1, 1)))
            await everything(peer)
            assert trio.current_time() == 3 + 10
            assert daemon.stats.connections == 0
            assert daemon.stats.connections_refused[CloseReason.PING] == 1

    async def test_without_pings_silence_is_no_reason(
        self, autojump_clock: MockClock, nursery: trio.Nursery
    ) -> None:
        async with serving(websocket=attrs.evolve(WEB, ping_ms=0)) as daemon:
            peer = await greeted(daemon, nursery)
            received = peer.below.server.received
            await trio.sleep(86_400)
            assert peer.below.server.received == received
            assert await peer.ask() == []


class TestBackPressure:
    async def test_a_client_that_does_not_read_is_not_read_from_either(
        self, autojump_clock: MockClock, nursery: trio.Nursery
    ) -> None:
        limits = Limits(output_buffer_bytes=10_000)
        settings = attrs.evolve(WEB, ping_ms=0)
        async with serving(websocket=settings, limits=limits) as daemon:
            below = daemon.connect(port=WEB.port, bounded=True)
            pings = b"".join(encoder.ping(number) for number in range(4_000))
            hello = encoder.hello(1, 1) + encoder.auth(2, KEY.encode())
            await below.send(REQUEST + b"\r\n")
            assert b" 101 " in await below.stream.receive_some()
            await below.send(frame(OPCODE_BINARY, hello), *[frame(OPCODE_BINARY, pings)] * 20)
            await wait_all_tasks_blocked()
            assert below.server.received < 2 * limits.output_buffer_bytes + 300_000
            other = await daemon.client()
            assert await other.ask() == []

    async def test_a_client_whose_requests_wait_is_not_taken_for_silent(
        self, autojump_clock: MockClock, nursery: trio.Nursery
    ) -> None:
        async with serving(websocket=attrs.evolve(WEB, ping_ms=1_000)) as daemon:
            peer = await greeted(daemon, nursery)
            daemon.runner.seconds = 20
            await peer.send(encoder.publish(1, 1, b"demo", b""), encoder.poll(1, 2**64 - 1))
            await peer.send(encoder.ping(2))
            assert await peer.receive() == Frame(PONG, 2, b"")
            assert trio.current_time() == 20
            assert await peer.ask() == []
