"""How long a version 2 client may be silent, and how long its publishers wait for slow others."""

from __future__ import annotations

import trio
from trio.testing import MockClock

from blipmq.broker.limits import Limits
from blipmq.broker.stats import CloseReason, DropReason
from blipmq.protocol import encoder
from blipmq.protocol.attach_properties import AttachProperties, encode_attach_properties
from tests.nursery.daemon import Daemon, serving
from tests.nursery.network import MemoryPeer
from tests.peer import KEY

KIB = 1024
HELLO_AND_AUTH = encoder.hello(1, 2) + encoder.auth(2, KEY.encode())


async def greeted(daemon: Daemon, *, bounded: bool = False) -> MemoryPeer:
    """A peer of version 2."""
    peer = daemon.connect(bounded=bounded)
    await peer.send(HELLO_AND_AUTH)
    await trio.testing.wait_all_tasks_blocked()
    return peer


async def test_a_version_2_client_that_misses_its_heartbeats_is_closed(
    autojump_clock: MockClock,
) -> None:
    async with serving(limits=Limits(heartbeat_ms=1_000)) as daemon:
        peer = await greeted(daemon)
        await trio.sleep(1.9)
        assert daemon.stats.connections == 1
        await peer.rest()
        assert 2 <= trio.current_time() <= 2.25
        assert daemon.stats.connections_refused[CloseReason.HEARTBEAT] == 1
        assert daemon.events().count("heartbeat missed") == 1


async def test_pings_keep_it_open(autojump_clock: MockClock) -> None:
    async with serving(limits=Limits(heartbeat_ms=1_000)) as daemon:
        peer = await greeted(daemon)
        for place in range(100):
            await peer.send(encoder.ping(place))
            await trio.sleep(1)
        assert daemon.stats.connections == 1


async def test_who_waits_for_the_log_is_not_silent(autojump_clock: MockClock) -> None:
    async with serving(limits=Limits(heartbeat_ms=1_000)) as daemon:
        peer = await greeted(daemon)
        daemon.runner.seconds = 30
        publish = encoder.publish(3, 1, b"demo", b"")
        await peer.send(publish + encoder.poll(4, 2**64 - 1) + encoder.ping(5))
        await trio.sleep(20)
        assert daemon.stats.connections == 1


async def test_without_a_heartbeat_a_client_may_be_silent_for_ever(
    autojump_clock: MockClock,
) -> None:
    async with serving(limits=Limits(heartbeat_ms=0)) as daemon:
        await greeted(daemon)
        await trio.sleep(86_400)
        assert daemon.stats.connections == 1


async def test_publishers_wait_a_bounded_time_for_a_slow_qos_0_attachment(
    autojump_clock: MockClock,
) -> None:
    limits = Limits(qos0_window_bytes=1024 * KIB, slow_consumer_wait_ms=3_000)
    async with serving(limits=limits) as daemon:
        slow, publisher = await greeted(daemon, bounded=True), await greeted(daemon)
        attach = encode_attach_properties(AttachProperties(prefetch=1))
        await slow.send(encoder.attach(3, b"demo", 0, attach))
        await trio.testing.wait_all_tasks_blocked()
        frame = encoder.publish(1, 0, b"demo", bytes(KIB))
        for _ in range(40):
            await publisher.send(frame * 50)
            await trio.testing.wait_all_tasks_blocked()
        assert daemon.stats.dropped[DropReason.QOS0_WINDOW] == 0
        await trio.sleep(2.9)
        assert daemon.stats.published[0] < 2000
        await trio.sleep(0.2)
        assert daemon.stats.published[0] == 2000
        assert daemon.stats.dropped[DropReason.QOS0_WINDOW] > 0
