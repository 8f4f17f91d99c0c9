"""The certificate by which clients of TLS know the daemon: read, and read again."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Final

import attrs

from blipmq.config import TlsSettings
from blipmq.errors import ConfigError

_MISMATCH: Final = "KEY_VALUES_MISMATCH"


@attrs.define(eq=False)
class Certificate:
    """From `open_certificate`. `context` is for the handshakes that begin from now on."""

    settings: TlsSettings
    context: ssl.SSLContext

    def reload(self) -> None:
        """Read the files again, for certificates that were renewed.

        Connections that are open go on with the older one. Raises ConfigError, and leaves
        everything as it was, when the files cannot be used. It reads two small files, and blocks
        as long as that takes.
        """
        self.context = _context(self.settings)


def open_certificate(settings: TlsSettings) -> Certificate | None:
    """The certificate that is configured; None without one. Raises ConfigError."""
    return Certificate(settings, _context(settings)) if settings.certificate else None


class _Encrypted(Exception):
    """The key asks for a password."""


def _no_password() -> str:
    raise _Encrypted


def _context(settings: TlsSettings) -> ssl.SSLContext:
    key_setting = "tls.key" if settings.key else "tls.certificate"
    key = settings.key or settings.certificate
    _expect(settings.certificate, "tls.certificate", "CERTIFICATE-----", "a certificate")
    _expect(key, key_setting, "PRIVATE KEY-----", "a private key")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(settings.certificate, key, _no_password)
    except _Encrypted:
        raise ConfigError(
            f"{key_setting}: {key}: expected a private key without a password, found one with it"
        ) from None
    except (ssl.SSLError, OSError) as error:
        reason = getattr(error, "reason", None)
        if reason == _MISMATCH:
            problem = "expected the private key of tls.certificate, found another one"
            raise ConfigError(f"{key_setting}: {key}: {problem}") from None
        names = (
            "tls.certificate" if key_setting == "tls.certificate" else "tls.certificate, tls.key"
        )
        raise ConfigError(f"{names}: cannot be used ({reason or error})") from None
    return context


def _expect(file: str, setting: str, mark: str, what: str) -> None:
    try:
        text = Path(file).read_bytes()
    except OSError as error:
        raise ConfigError(f"{setting}: cannot read {file}: {error.strerror}") from None
    if mark.encode() not in text:
        raise ConfigError(f"{setting}: {file}: expected {what} in PEM, found none")
