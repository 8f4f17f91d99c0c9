from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blipmq.wal.policy import FsyncPolicy


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("always", FsyncPolicy("always")),
        ("none", FsyncPolicy("none")),
        ("every_n:1", FsyncPolicy("every_n", 1)),
        ("every_n:64", FsyncPolicy("every_n", 64)),
        ("interval_ms:50", FsyncPolicy("interval_ms", 50)),
    ],
)
def test_each_policy_is_parsed_from_the_text_it_prints(text: str, policy: FsyncPolicy) -> None:
    assert FsyncPolicy.parse(text) == policy
    assert str(policy) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Always",
        " always",
        "always:1",
        "always:",
        "none:0",
        "every_n",
        "every_n:",
        "every_n:0",
        "every_n:-1",
        "every_n:1.5",
        "every_n: 1",
        "every_n:1_0",
        "every_n:\u0661",
        "interval_ms:1:2",
        "every_ms:5",
        "every_n:" + "9" * 5_000,
    ],
)
def test_anything_else_is_refused_with_what_was_expected_and_found(text: str) -> None:
    with pytest.raises(ValueError, match="expected always, every_n:<n>") as refusal:
        FsyncPolicy.parse(text)
    assert repr(text) in str(refusal.value)


@pytest.mark.parametrize(
    ("kind", "value"), [("always", 1), ("none", 1), ("every_n", 0), ("interval_ms", -5)]
)
def test_a_value_that_does_not_fit_its_kind_makes_no_policy(kind: str, value: int) -> None:
    with pytest.raises(ValueError, match="no fsync policy"):
        FsyncPolicy(kind, value)  # type: ignore[arg-type]


def test_an_unknown_kind_makes_no_policy() -> None:
    with pytest.raises(ValueError, match="no fsync policy: sometimes"):
        FsyncPolicy("sometimes")  # type: ignore[arg-type]


@given(st.text())
def test_parsing_any_text_gives_a_policy_or_a_value_error(text: str) -> None:
    try:
        policy = FsyncPolicy.parse(text)
    except ValueError:
        return
    assert FsyncPolicy.parse(str(policy)) == policy


def test_the_default_is_the_safest_policy() -> None:
    assert FsyncPolicy() == FsyncPolicy.parse("always")
