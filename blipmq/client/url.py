"""The address of a broker, as a URL."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

import attrs

DEFAULT_PORTS: Final = {"blipmq": 5555, "blipmqs": 5556, "ws": 80, "wss": 443}
EXPECTED: Final = "blipmq://HOST[:PORT]"
_WITH_PATH: Final = ("ws", "wss")


@attrs.frozen
class Address:
    """Where a broker listens. `str()` of it is what errors and logs show."""

    host: str
    port: int
    scheme: str = "blipmq"
    resource: str = "/"
    """Path and query, of a WebSocket."""

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def encrypted(self) -> bool:
        return self.scheme in ("blipmqs", "wss")

    @property
    def websocket(self) -> bool:
        return self.scheme in _WITH_PATH


def parse(url: str) -> Address:
    """The address that a URL names: `blipmq://`, `blipmqs://` (TLS), `ws://` or `wss://`.

    The port is 5555 unless given, 5556 with TLS; that of WebSockets is 80, or 443 with TLS. Raises
    `ValueError`, saying what is expected, for anything else.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ValueError(f"{url!r} is no broker URL ({error}); expected {EXPECTED}") from None
    if parts.scheme not in DEFAULT_PORTS:
        supported = ", ".join(f"{scheme}://" for scheme in DEFAULT_PORTS)
        raise ValueError(
            f"{url!r} has an unsupported scheme; supported: {supported}; expected {EXPECTED}"
        )
    if "@" in parts.netloc:
        raise ValueError(f"a broker URL holds no key; give api_key=; expected {EXPECTED}")
    with_path = parts.scheme in _WITH_PATH
    surplus = not with_path and (parts.path not in ("", "/") or parts.query)
    if not parts.hostname or surplus or parts.fragment:
        raise ValueError(f"{url!r} is no broker URL; expected {EXPECTED}")
    if " " in url or not url.isprintable():  # checked on the whole: urlsplit drops some of them
        raise ValueError(f"{url!r} holds a blank or a control character; expected {EXPECTED}")
    try:
        parts.hostname.encode("idna")  # as the socket module will
    except UnicodeError as error:
        reason = error.__cause__ or error
        raise ValueError(f"{url!r} has no usable host ({reason}); expected {EXPECTED}") from None
    if port == 0:
        raise ValueError(f"{url!r} has no usable port; expected {EXPECTED}, PORT from 1 to 65535")
    resource = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Address(
        parts.hostname,
        DEFAULT_PORTS[parts.scheme] if port is None else port,
        parts.scheme,
        resource if with_path else "/",
    )
