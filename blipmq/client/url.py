"""The address of a broker, as a URL."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

import attrs

DEFAULT_PORT: Final = 5555
SCHEMES: Final = ("blipmq",)
EXPECTED: Final = "blipmq://HOST[:PORT]"


@attrs.frozen
class Address:
    """Where a broker listens. `str()` of it is what errors and logs show."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def parse(url: str) -> Address:
    """The address that a URL names; the port is 5555 unless given.

    Raises `ValueError`, saying what is expected, for anything but `blipmq://HOST[:PORT]`.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ValueError(f"{url!r} is no broker URL ({error}); expected {EXPECTED}") from None
    if parts.scheme not in SCHEMES:
        supported = ", ".join(f"{scheme}://" for scheme in SCHEMES)
        raise ValueError(
            f"{url!r} has an unsupported scheme; supported: {supported}; expected {EXPECTED}"
        )
    if "@" in parts.netloc:
        raise ValueError(f"a broker URL holds no key; give api_key=; expected {EXPECTED}")
    if not parts.hostname or parts.path not in ("", "/") or parts.query or parts.fragment:
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
    return Address(parts.hostname, DEFAULT_PORT if port is None else port)
