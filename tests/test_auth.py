from __future__ import annotations

import hmac

import pytest

from blipmq import auth
from blipmq.auth import KeyRing, key_id


def test_an_allowed_key_gives_its_key_id() -> None:
    ring = KeyRing(["first", "second"])
    assert ring.authenticate(b"first") == key_id(b"first")
    assert ring.authenticate(b"second") == key_id(b"second")
    assert key_id(b"first") != key_id(b"second")


@pytest.mark.parametrize("key", [b"", b"firs", b"first ", b"FIRST", b"first\0", b"\xff"])
def test_any_other_key_gives_none(key: bytes) -> None:
    assert KeyRing(["first", "second"]).authenticate(key) is None


def test_an_empty_ring_lets_nobody_in() -> None:
    ring = KeyRing([])
    assert len(ring) == 0
    assert ring.authenticate(b"") is None


def test_a_key_is_compared_as_utf_8() -> None:
    assert KeyRing(["schlüssel"]).authenticate("schlüssel".encode()) is not None


def test_a_key_given_twice_counts_once() -> None:
    assert len(KeyRing(["first", "second", "first"])) == 2


def test_the_key_id_is_the_same_in_every_version() -> None:
    """It is stored in logs: changing it takes every parked subscription from its owner."""
    assert key_id(b"dev-key-1") == "bdbccae21f3c1ace9f4f561edd5bfef3"


def test_every_key_is_compared_wherever_the_right_one_is(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[bytes] = []

    def counting(left: bytes, right: bytes) -> bool:
        compared.append(left)
        return hmac.compare_digest(left, right)

    class Counting:
        compare_digest = staticmethod(counting)

    monkeypatch.setattr(auth, "hmac", Counting)
    ring = KeyRing(["first", "second", "third"])
    for key in (b"first", b"third", b"unknown"):
        compared.clear()
        ring.authenticate(key)
        assert len(set(compared)) == 3


def test_a_ring_shows_how_many_keys_it_has_and_none_of_them() -> None:
    assert repr(KeyRing(["secret-1", "secret-2"])) == "KeyRing(<2 keys>)"
