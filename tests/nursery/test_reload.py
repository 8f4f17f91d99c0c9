"""SIGHUP: what changes while the daemon runs, what cannot, and that it is all or nothing."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import attrs
import pytest
import structlog
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from blipmq.broker.limits import Limits
from blipmq.broker.stats import CloseReason
from blipmq.config import AdminSettings, Config, LoggingSettings, TlsSettings, load_config
from blipmq.errors import ConfigError
from blipmq.protocol import encoder
from blipmq.protocol.frames import ACK, CONFIRM, HEADER_BYTES, INFO, NACK, Frame
from tests.nursery.asking import ADMIN_KEY, ask
from tests.nursery.daemon import InlineRunner, serving, settings
from tests.nursery.test_silence import greeted
from tests.nursery.test_tls import RENEWED, RENEWED_KEY, TLS, secured, trusting
from tests.peer import KEY, nack

OTHER = "another key"
REFUSED = encoder.nack(2, 401, "invalid API key")[HEADER_BYTES:]


@pytest.fixture
def log_level() -> Iterator[None]:
    """The level is of the process; it is put back."""
    before = structlog.get_config()["wrapper_class"], logging.getLogger().level
    yield
    structlog.configure(wrapper_class=before[0])
    logging.getLogger().setLevel(before[1])


async def test_a_key_that_is_added_is_accepted_on_connections_that_are_open(
    autojump_clock: MockClock,
) -> None:
    async with serving() as daemon:
        peer = daemon.connect()
        await peer.send(encoder.hello(1, 1), encoder.auth(2, OTHER.encode()))
        assert await peer.receive() == Frame(ACK, 1, bytes(8))
        assert await peer.receive() == Frame(NACK, 2, REFUSED)
        line = await daemon.reload(lambda: settings(allowed_api_keys=(KEY, OTHER)))
        assert line["changed"] == "allowed_api_keys"
        (accepted,) = await peer.ask(encoder.auth(3, OTHER.encode()))
        assert accepted.type == ACK


async def test_a_key_that_is_removed_loses_its_connections_and_others_keep_theirs(
    autojump_clock: MockClock,
) -> None:
    async with serving(allowed_api_keys=(KEY, OTHER)) as daemon:
        removed, kept = daemon.connect(), daemon.connect()
        await removed.greet(OTHER)
        await kept.greet(KEY)
        line = await daemon.reload(settings)
        assert line["connections_closed"] == 1
        assert await removed.rest() == []
        assert await kept.ask(encoder.ping(1))
        assert daemon.stats.connections_refused[CloseReason.KEY_REMOVED] == 1
        (told,) = [line for line in daemon.lines if line["event"] == "connection closed"]
        assert (told["reason"], told["connection"]) == ("key_removed", 1)
        assert len(told["key_id"]) == 32


async def test_what_a_removed_key_had_published_is_committed_before_it_is_closed(
    autojump_clock: MockClock,
) -> None:
    async with serving(allowed_api_keys=(KEY, OTHER)) as daemon:
        peer = await greeted(daemon)
        daemon.runner.hold()
        await peer.send(encoder.publish(7, 1, b"t", b"x"))
        await wait_all_tasks_blocked()
        daemon.state.outside = attrs.evolve(daemon.state.outside, run_blocking=InlineRunner())
        await daemon.reload(lambda: settings(allowed_api_keys=(OTHER,)))
        daemon.runner.release()
        assert (await peer.rest())[-1] == Frame(CONFIRM, 7, b"")


async def test_a_removed_key_cannot_authenticate_any_more(autojump_clock: MockClock) -> None:
    async with serving() as daemon:
        peer = daemon.connect()
        await peer.send(encoder.hello(1, 1))
        assert await peer.receive() == Frame(ACK, 1, bytes(8))
        await daemon.reload(lambda: settings(allowed_api_keys=(OTHER,)))
        await peer.send(encoder.auth(2, KEY.encode()))
        assert await peer.receive() == Frame(NACK, 2, REFUSED)


async def test_admin_keys_are_replaced(autojump_clock: MockClock) -> None:
    async with serving(admin=AdminSettings((ADMIN_KEY,))) as daemon:
        renewed = ADMIN_KEY[::-1]
        await daemon.reload(lambda: settings(admin=AdminSettings((renewed,))))
        assert (await ask(daemon.app, "/api/v1/overview", key=ADMIN_KEY)).status == 401
        assert (await ask(daemon.app, "/api/v1/overview", key=renewed)).status == 200


async def test_limits_hold_from_then_on(autojump_clock: MockClock) -> None:
    async with serving() as daemon:
        peer = await daemon.client()
        await peer.subscribe("a")
        line = await daemon.reload(lambda: settings(limits=Limits(max_subscriptions=1)))
        assert line["changed"] == "limits.max_subscriptions"
        (refused,) = await peer.ask(encoder.subscribe(9, b"b", 1))
        assert nack(refused) == (429, "too many subscriptions")


async def test_a_longer_heartbeat_is_told_and_holds_at_once(autojump_clock: MockClock) -> None:
    async with serving(limits=Limits(heartbeat_ms=1_000)) as daemon:
        peer = await greeted(daemon)
        await trio.sleep(1.9)
        await daemon.reload(lambda: settings(limits=Limits(heartbeat_ms=10_000)))
        await trio.sleep(15)
        assert daemon.stats.connections == 1
        frames = await peer.rest()
        assert [b'"heartbeat_ms":10000' in frame.payload for frame in frames[2:]] == [False, True]
        assert frames[-1].type == INFO
        assert daemon.stats.connections_refused[CloseReason.HEARTBEAT] == 1


async def test_a_shorter_heartbeat_holds_from_the_next_ping(autojump_clock: MockClock) -> None:
    async with serving() as daemon:
        peer = await greeted(daemon)
        await daemon.reload(lambda: settings(limits=Limits(heartbeat_ms=1_000)))
        await peer.send(encoder.ping(1))
        start = trio.current_time()
        await peer.rest()
        assert 2 <= trio.current_time() - start <= 2.25


async def test_the_level_of_the_log_changes(autojump_clock: MockClock, log_level: None) -> None:
    async with serving() as daemon:
        daemon.hang_up(lambda: settings(logging=LoggingSettings(level="error")))
        await wait_all_tasks_blocked()
        daemon.state.log.warning("not worth it")
        daemon.state.log.error("worth it")
        assert "worth it" in daemon.events()
        assert "not worth it" not in daemon.events()
        assert logging.getLogger().level == logging.ERROR


async def test_a_renewed_certificate_is_shown(autojump_clock: MockClock, tmp_path: Path) -> None:
    renewed = TlsSettings(certificate=str(RENEWED), key=str(RENEWED_KEY))
    async with serving(tls=TLS) as daemon:
        await daemon.reload(lambda: settings(tls=renewed))
        await secured(daemon, trusting(RENEWED)).do_handshake()


async def test_files_of_the_same_name_are_read_again(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    shutil.copy(TLS.certificate, certificate)
    shutil.copy(TLS.key, key)
    tls = TlsSettings(certificate=str(certificate), key=str(key))
    async with serving(tls=tls) as daemon:
        certificate.write_bytes(RENEWED.read_bytes())
        key.write_bytes(RENEWED_KEY.read_bytes())
        line = await daemon.reload(lambda: settings(tls=tls))
        assert line["changed"] == "nothing"
        await secured(daemon, trusting(RENEWED)).do_handshake()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"port": 1}, "port"),
        ({"max_retries": 9, "wal_path": "elsewhere"}, "wal_path, max_retries"),
        ({"tls": TLS}, "tls.certificate"),
        ({"logging": LoggingSettings(format="json")}, "logging.format"),
    ],
)
async def test_what_cannot_change_is_named_and_then_nothing_changes(
    autojump_clock: MockClock, changes: dict[str, object], named: str
) -> None:
    async with serving() as daemon:
        peer = await daemon.client()
        state = daemon.state
        before = state.config, state.keys, state.admin_keys, state.broker.limits
        everything = {"allowed_api_keys": (OTHER,), "limits": Limits(max_topics=1), **changes}
        line = await daemon.reload(partial(settings, **everything))
        assert line["event"] == "reload refused"
        assert line["log_level"] == "error"
        assert str(line["error"]).startswith(f"{named}: cannot change while the daemon runs")
        assert (state.config, state.keys, state.admin_keys, state.broker.limits) == before
        assert await peer.ask(encoder.ping(1))


async def test_a_certificate_that_cannot_be_used_changes_nothing(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    bad = attrs.evolve(TLS, key=str(RENEWED_KEY))
    async with serving(tls=TLS) as daemon:
        line = await daemon.reload(lambda: settings(tls=bad, allowed_api_keys=(OTHER,)))
        assert "expected the private key of tls.certificate" in line["error"]
        assert (await daemon.client()) is not None
        await secured(daemon, trusting()).do_handshake()


async def test_every_problem_of_a_broken_file_has_its_line(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    file = tmp_path / "blipmq.toml"
    file.write_text("prot = 1\n[limits]\nmax_topics = 'many'\n")
    async with serving() as daemon:
        await daemon.reload(lambda: load_config(file, {}))
        errors = [line["error"] for line in daemon.lines if line["event"] == "reload refused"]
        assert len(errors) == 2
        assert any("prot: unknown key" in error for error in errors)
        assert any("limits.max_topics" in error for error in errors)


async def test_after_a_refusal_the_next_one_can_succeed(autojump_clock: MockClock) -> None:
    def broken() -> Config:
        raise ConfigError("blipmq.toml: cannot be read")

    async with serving() as daemon:
        assert (await daemon.reload(broken))["event"] == "reload refused"
        assert (await daemon.reload(settings))["event"] == "reloaded"
