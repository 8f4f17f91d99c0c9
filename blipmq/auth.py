"""The API keys that are allowed. A key is known here by its digests only.

Whoever logs, counts or stores the owner of something uses the key id.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from typing import Final

_KEY_ID_PREFIX: Final = b"BlipMQ key id\0"
_KEY_ID_BYTES: Final = 16


def key_id(key: bytes) -> str:
    """What stands for `key` in logs and in the write-ahead log: 32 hexadecimal digits.

    The same key has the same id in every run and version. Finding the key takes guessing it.
    """
    return hashlib.sha256(_KEY_ID_PREFIX + key).digest()[:_KEY_ID_BYTES].hex()


class KeyRing:
    """The allowed keys, fixed for the life of the ring; a key given twice counts once."""

    __slots__ = ("_ids_by_digest",)

    def __init__(self, keys: Iterable[str]) -> None:
        self._ids_by_digest = {
            hashlib.sha256(key).digest(): key_id(key) for key in map(str.encode, keys)
        }

    def authenticate(self, key: bytes) -> str | None:
        """The key id if `key` is allowed, else None.

        Digests of equal length are compared, each in constant time and always all of them,
        so the time taken tells nothing of the keys but how many there are.
        """
        presented = hashlib.sha256(key).digest()
        found: str | None = None
        for digest, its_id in self._ids_by_digest.items():
            if hmac.compare_digest(digest, presented):
                found = its_id
        return found

    def has_id(self, id_: str) -> bool:
        """Whether the key with this key id is allowed."""
        return id_ in self._ids_by_digest.values()

    def __len__(self) -> int:
        return len(self._ids_by_digest)

    def __repr__(self) -> str:
        return f"KeyRing(<{len(self)} keys>)"
