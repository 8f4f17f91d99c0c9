"""What a stranger, or a client that misbehaves, can ask of a daemon; all of it is counted."""

from __future__ import annotations

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from blipmq.broker.limits import Limits
from blipmq.broker.stats import CloseReason
from blipmq.protocol import encoder
from blipmq.protocol.frames import ACK, LENGTH_MAX, NACK, PONG, U32
from tests.nursery.daemon import serving
from tests.peer import KEY, NO_SUBSCRIPTION, nack

HELLO = encoder.hello(1, 1)
WRONG_AUTH = encoder.auth(2, b"wrong")


async def test_a_handshake_that_takes_too_long_is_ended(autojump_clock: MockClock) -> None:
    async with serving(limits=Limits(handshake_timeout_ms=3_000)) as daemon:
        silent, greeted = daemon.connect(), daemon.connect()
        await greeted.send(HELLO)
        assert await silent.rest() == []
        assert [frame.type for frame in await greeted.rest()] == [ACK]
        assert trio.current_time() == 3
        assert daemon.stats.connections_refused[CloseReason.HANDSHAKE_TIMEOUT] == 2
        assert daemon.events().count("handshake timeout") == 2


async def test_bytes_that_trickle_in_do_not_prolong_the_handshake(
    autojump_clock: MockClock,
) -> None:
    async with serving(limits=Limits(handshake_timeout_ms=3_000)) as daemon:
        peer = daemon.connect()
        for byte in HELLO[:5]:
            await peer.send(bytes((byte,)))
            await trio.sleep(0.5)
        assert await peer.rest() == []
        assert trio.current_time() == 3


async def test_an_authenticated_client_may_be_silent(autojump_clock: MockClock) -> None:
    async with serving(limits=Limits(handshake_timeout_ms=3_000)) as daemon:
        peer = await daemon.client()
        await trio.sleep(86_400)
        assert await peer.ask() == []
        assert daemon.stats.connections_refused[CloseReason.HANDSHAKE_TIMEOUT] == 0


async def test_a_client_that_is_authenticated_may_wait_for_the_log_for_longer_than_a_handshake(
    autojump_clock: MockClock,
) -> None:
    async with serving(limits=Limits(handshake_timeout_ms=1_000)) as daemon:
        peer = daemon.connect()
        daemon.runner.seconds = 5
        publish = encoder.publish(3, 1, b"demo", b"")
        poll = encoder.poll(4, NO_SUBSCRIPTION)
        await peer.send(HELLO + encoder.auth(2, KEY.encode()) + publish + poll)
        assert [frame.type for frame in await peer.ask()] == [ACK, ACK]
        assert trio.current_time() >= 5
        assert daemon.stats.connections_refused[CloseReason.HANDSHAKE_TIMEOUT] == 0


async def test_connections_beyond_the_limit_are_closed_at_once(autojump_clock: MockClock) -> None:
    async with serving(limits=Limits(max_connections=2)) as daemon:
        first, second = await daemon.client(), await daemon.client()
        assert await daemon.connect().rest() == []
        assert trio.current_time() == 0
        assert daemon.stats.connections_refused[CloseReason.LIMIT] == 1
        assert daemon.stats.connections == 2
        assert await first.ask() == await second.ask() == []


async def test_a_connection_that_ends_makes_room_for_another(autojump_clock: MockClock) -> None:
    async with serving(limits=Limits(max_connections=1)) as daemon:
        first = await daemon.client()
        await first.aclose()
        await wait_all_tasks_blocked()
        assert await (await daemon.client()).ask() == []


async def test_failed_auths_up_to_the_limit_are_forgiven(autojump_clock: MockClock) -> None:
    async with serving(limits=Limits(max_auth_failures=2)) as daemon:
        peer = daemon.connect()
        await peer.send(WRONG_AUTH, HELLO, WRONG_AUTH, WRONG_AUTH)
        answers = [await peer.receive() for _ in range(4)]
        assert [answer and answer.type for answer in answers] == [NACK, ACK, NACK, NACK]
        await peer.send(encoder.auth(3, b"dev-key-1"))
        answer = await peer.receive()
        assert answer is not None
        assert answer.type == ACK


async def test_one_failed_auth_more_is_answered_and_ends_the_connection(
    autojump_clock: MockClock,
) -> None:
    async with serving(limits=Limits(max_auth_failures=2)) as daemon:
        peer = daemon.connect()
        await peer.send(HELLO, *[WRONG_AUTH] * 5)
        answers = (await peer.rest())[1:]
        assert [nack(answer) for answer in answers] == [(401, "invalid API key")] * 3
        assert daemon.stats.connections_refused[CloseReason.AUTH_FAILURES] == 1
        assert daemon.stats.auth_failures == 3
        assert trio.current_time() == 0


async def test_a_client_that_never_reads_is_not_read_from_either(
    autojump_clock: MockClock,
) -> None:
    limits = Limits(output_buffer_bytes=10_000)
    async with serving(limits=limits) as daemon:
        silent = await daemon.client(bounded=True)
        pings = [encoder.ping(number) for number in range(50_000)]
        await silent.send(*pings)
        await wait_all_tasks_blocked()
        # Replies that are being sent, as many that wait, and at most a buffer of requests.
        assert silent.server.received < 2 * limits.output_buffer_bytes + 300_000
        other = await daemon.client()
        assert await other.ask() == []
        answers = [await silent.receive() for _ in pings]
        assert [answer and answer.correlation_id for answer in answers] == list(range(50_000))


async def test_a_client_that_polls_and_never_reads_is_sent_no_more_than_fits(
    autojump_clock: MockClock,
) -> None:
    limits = Limits(output_buffer_bytes=10_000)
    async with serving(limits=limits) as daemon:
        silent = await daemon.client(bounded=True)
        subscription = await silent.subscribe("demo", qos=0)
        other = await daemon.client()
        await other.publish("demo", *[bytes(1_000)] * 1_000, qos=0)
        await silent.send(*[encoder.poll(4, subscription)] * 1_000)
        await wait_all_tasks_blocked()
        assert daemon.stats.delivered[0] <= 2 * limits.output_buffer_bytes // 1_000 + 2
        assert len(await silent.ask()) == 1_000


async def test_a_huge_frame_that_is_announced_and_never_sent_costs_no_memory(
    autojump_clock: MockClock,
) -> None:
    async with serving() as daemon:
        peers = [await daemon.client() for _ in range(50)]
        for peer in peers:
            await peer.send(U32.pack(LENGTH_MAX))
        await wait_all_tasks_blocked()
        assert daemon.stats.memory_bytes < 50 * 10_000
        assert await (await daemon.client()).ask() == []


async def test_bytes_that_are_no_frame_end_their_connection_and_no_other(
    autojump_clock: MockClock,
) -> None:
    async with serving() as daemon:
        bad, good = await daemon.client(), await daemon.client()
        await bad.send(encoder.ping(5), encoder.frame(0x7F, 6), encoder.ping(7))
        assert [(frame.type, frame.correlation_id) for frame in await bad.rest()] == [(PONG, 5)]
        assert await good.ask() == []
        assert daemon.stats.framing_errors == 1
        (line,) = (line for line in daemon.lines if line["event"] == "framing error")
        assert line["peer"] == "192.0.2.1:40000"


async def test_what_strangers_provoke_is_logged_at_a_bounded_rate(
    autojump_clock: MockClock,
) -> None:
    async with serving() as daemon:
        for _ in range(100):
            peer = daemon.connect()
            await peer.send(bytes(4))
            assert await peer.rest() == []
        assert daemon.stats.framing_errors == 100
        logged = daemon.events().count("framing error")
        assert 1 <= logged <= 5
        assert daemon.stats.log_lines_suppressed == 100 - logged
