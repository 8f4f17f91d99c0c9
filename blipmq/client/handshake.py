"""From a fresh connection to one that the broker has authenticated."""

from __future__ import annotations

from typing import Final

from blipmq.client.connection import Connection
from blipmq.protocol import encoder

VERSION: Final = 1
"""The protocol version that this library speaks."""
KEY_BYTES_MAX: Final = 65_535


def encoded(api_key: str) -> bytes:
    """Raises `TypeError` when it is no text, `ValueError` when it is no UTF-8 of 65 535 bytes."""
    if not isinstance(api_key, str):
        raise TypeError(f"an API key is str, not {type(api_key).__name__}")
    try:
        key = api_key.encode()
    except UnicodeEncodeError:  # whose text would show the key
        raise ValueError("there is half of a surrogate pair in the API key") from None
    if len(key) > KEY_BYTES_MAX:
        raise ValueError(f"an API key of {len(key)} bytes; at most {KEY_BYTES_MAX} fit")
    return key


async def shake_hands(connection: Connection, api_key: bytes) -> int:
    """Returns the protocol version that the broker has accepted.

    Raises `UnsupportedVersion` when it accepts none of ours, `AuthenticationFailed` when it does
    not know the key, and `ConnectionLost`.
    """
    await connection.request(lambda id_: encoder.hello(id_, VERSION))
    await connection.request(lambda id_: encoder.auth(id_, api_key))
    return VERSION
