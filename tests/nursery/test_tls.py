"""The TLS listener, and the certificate that it shows."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Final

import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from blipmq import open_client
from blipmq.broker.limits import Limits
from blipmq.broker.stats import CloseReason, Listener
from blipmq.client.url import Address
from blipmq.config import TlsSettings
from blipmq.errors import ConfigError
from blipmq.nursery import root
from blipmq.nursery.certificate import Certificate, open_certificate
from blipmq.protocol import encoder
from blipmq.protocol.frames import PONG, Frame
from tests.nursery.daemon import Daemon, serving, settings
from tests.nursery.web import WEB
from tests.peer import PATIENCE_SECONDS, Peer

CERTIFICATE: Final = Path(__file__).parent.parent / "client" / "tls" / "certificate.pem"
KEY: Final = CERTIFICATE.with_name("key.pem")
RENEWED: Final = Path(__file__).parent / "tls" / "renewed-certificate.pem"
RENEWED_KEY: Final = RENEWED.with_name("renewed-key.pem")
ENCRYPTED_KEY: Final = RENEWED.with_name("encrypted-key.pem")
"""Of a broker at `broker.example`, each signed by itself and valid for a hundred years. The
password of the encrypted key is `secret`."""
NAME: Final = "broker.example"
TLS: Final = TlsSettings(certificate=str(CERTIFICATE), key=str(KEY))


def trusting(certificate: Path = CERTIFICATE) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(certificate))


def secured(daemon: Daemon, context: ssl.SSLContext) -> trio.SSLStream[trio.abc.Stream]:
    """A connection to the TLS port."""
    return trio.SSLStream(
        daemon.connect(port=TLS.port).stream, context, server_hostname=NAME, https_compatible=True
    )


def replace(file: str, by: Path) -> None:
    """Give the file the contents of the other one."""
    Path(file).write_bytes(by.read_bytes())


async def greeted(daemon: Daemon) -> Peer:
    peer = Peer(secured(daemon, trusting()))
    await peer.greet()
    return peer


@pytest.mark.parametrize("scheme", ["blipmqs", "wss"])
async def test_the_client_library_over(autojump_clock: MockClock, scheme: str) -> None:
    async with serving(tls=TLS, websocket=attrs.evolve(WEB, tls=True)) as daemon:
        port = TLS.port if scheme == "blipmqs" else WEB.port

        async def connect(address: Address) -> trio.abc.Stream:
            assert address.port == port
            return daemon.connect(port=port).stream

        large = bytes(3_000_000)
        async with (
            open_client(
                f"{scheme}://{NAME}:{port}",
                api_key="dev-key-1",
                ssl_context=trusting(),
                connect=connect,
            ) as client,
            client.subscribe("demo") as messages,
        ):
            await client.publish("demo", large)
            async with await messages.receive() as message:
                assert message.body == large
            kind = Listener.TLS if scheme == "blipmqs" else Listener.WEBSOCKET
            assert daemon.stats.connections_by_listener[kind] == 1
        assert trio.current_time() == 0
        await wait_all_tasks_blocked()
        assert daemon.stats.connections == 0


async def test_the_replies_before_a_bad_frame_come_even_to_who_goes_on_sending(
    autojump_clock: MockClock,
) -> None:
    async with serving(tls=TLS) as daemon:
        peer = await greeted(daemon)
        await peer.send(encoder.ping(1), bytes(4), encoder.ping(2) * 1_000)
        await wait_all_tasks_blocked()
        await peer.send(encoder.ping(3))
        assert await peer.rest() == [Frame(PONG, 1, b"")]
        await peer.aclose()
        await wait_all_tasks_blocked()
        assert daemon.stats.connections == 0
        assert trio.current_time() == 0


async def test_who_waits_without_closing_is_told_that_no_more_comes(
    autojump_clock: MockClock,
) -> None:
    async with serving(tls=TLS) as daemon:
        peer = await greeted(daemon)
        daemon.signal()
        assert await peer.rest() == []
        assert trio.current_time() == 0
        await peer.aclose()
        await daemon.end()
        assert trio.current_time() == 0


async def test_a_client_that_speaks_no_tls_is_counted_and_closed(
    autojump_clock: MockClock,
) -> None:
    async with serving(tls=TLS) as daemon:
        peer = daemon.connect(port=TLS.port)
        await peer.send(encoder.hello(1, 1) * 10)
        with trio.fail_after(PATIENCE_SECONDS):
            async for _ in peer.stream:
                pass
        await wait_all_tasks_blocked()
        assert daemon.stats.connections_refused[CloseReason.TLS_HANDSHAKE] == 1
        assert "no TLS" in daemon.events()


async def test_who_only_looks_whether_the_port_is_open_is_not_logged(
    autojump_clock: MockClock,
) -> None:
    async with serving(tls=TLS) as daemon:
        await daemon.connect(port=TLS.port).aclose()
        await wait_all_tasks_blocked()
        assert daemon.stats.connections_refused[CloseReason.TLS_HANDSHAKE] == 1
        assert "no TLS" not in daemon.events()


async def test_a_handshake_that_does_not_come_is_waited_for_as_long_as_an_auth(
    autojump_clock: MockClock,
) -> None:
    async with serving(tls=TLS, limits=Limits(handshake_timeout_ms=3_000)) as daemon:
        assert await daemon.connect(port=TLS.port).rest() == []
        assert trio.current_time() == 3
        assert daemon.stats.connections_refused[CloseReason.HANDSHAKE_TIMEOUT] == 1


async def test_a_shutdown_does_not_wait_for_handshakes(autojump_clock: MockClock) -> None:
    async with serving(tls=TLS) as daemon:
        daemon.connect(port=TLS.port)
        await wait_all_tasks_blocked()
        daemon.signal()
        await daemon.end()
        assert trio.current_time() == 0


class TestCertificate:
    @pytest.fixture
    def opened(self, monkeypatch: pytest.MonkeyPatch) -> list[Certificate]:
        """The certificates that daemons open."""
        found: list[Certificate] = []

        def opening(settings: TlsSettings) -> Certificate | None:
            certificate = open_certificate(settings)
            found.extend(filter(None, [certificate]))
            return certificate

        monkeypatch.setattr(root, "open_certificate", opening)
        return found

    @pytest.fixture
    def files(self, tmp_path: Path) -> TlsSettings:
        """A pair of files that a test may replace."""
        found = TlsSettings(str(tmp_path / "certificate.pem"), str(tmp_path / "key.pem"))
        replace(found.certificate, CERTIFICATE)
        replace(found.key, KEY)
        return found

    async def test_one_that_was_renewed_is_shown_from_then_on(
        self, autojump_clock: MockClock, files: TlsSettings, opened: list[Certificate]
    ) -> None:
        async with serving(tls=files) as daemon:
            older = await greeted(daemon)
            replace(files.certificate, RENEWED)
            replace(files.key, RENEWED_KEY)
            opened[0].reload()
            newer = secured(daemon, trusting(RENEWED))
            await newer.do_handshake()
            assert await older.ask() == []

    async def test_one_that_cannot_be_read_again_leaves_the_older_one(
        self, autojump_clock: MockClock, files: TlsSettings, opened: list[Certificate]
    ) -> None:
        async with serving(tls=files) as daemon:
            replace(files.certificate, RENEWED)
            with pytest.raises(ConfigError):
                opened[0].reload()
            assert await (await greeted(daemon)).ask() == []

    def test_both_may_be_in_one_file(self, tmp_path: Path) -> None:
        both = tmp_path / "both.pem"
        both.write_bytes(KEY.read_bytes() + CERTIFICATE.read_bytes())
        assert isinstance(open_certificate(TlsSettings(str(both))), Certificate)

    def test_none_is_configured(self) -> None:
        assert open_certificate(TlsSettings()) is None

    @pytest.mark.parametrize(
        ("settings", "expected"),
        [
            (TlsSettings("nowhere.pem"), "tls.certificate: cannot read nowhere.pem: No such file"),
            (TlsSettings(str(CERTIFICATE), "no.pem"), "tls.key: cannot read no.pem: No such file"),
            (TlsSettings(str(KEY)), f"tls.certificate: {KEY}: expected a certificate in PEM"),
            (TlsSettings(str(CERTIFICATE)), f"tls.certificate: {CERTIFICATE}: expected a private"),
            (TlsSettings(str(CERTIFICATE), str(RENEWED_KEY)), f"tls.key: {RENEWED_KEY}: expected"),
            (TlsSettings(str(RENEWED), str(ENCRYPTED_KEY)), f"tls.key: {ENCRYPTED_KEY}: expected"),
            (TlsSettings("/"), "tls.certificate: cannot read /: Is a directory"),
        ],
    )
    def test_one_that_cannot_be_used_says_which_file_and_why(
        self, settings: TlsSettings, expected: str
    ) -> None:
        with pytest.raises(ConfigError) as caught:
            open_certificate(settings)
        assert str(caught.value).startswith(expected)

    def test_a_file_that_looks_right_and_is_not_is_refused(self, tmp_path: Path) -> None:
        bad = tmp_path / "bad.pem"
        bad.write_bytes(CERTIFICATE.read_bytes().replace(b"A", b"B") + KEY.read_bytes())
        with pytest.raises(ConfigError, match=r"^tls\.certificate: "):
            open_certificate(TlsSettings(str(bad)))

    async def test_a_daemon_with_a_bad_one_does_not_start(self) -> None:
        with pytest.raises(ConfigError, match=r"cannot read nowhere\.pem"):
            await root.serve(settings(tls=TlsSettings("nowhere.pem")))
