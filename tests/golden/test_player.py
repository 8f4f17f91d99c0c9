"""The player itself: a broker that answers otherwise must not pass."""

from __future__ import annotations

import pytest

from tests.golden.player import capture, fill_in, scenarios

ONE = "0000000000000001"
TWO = "0000000000000002"


def test_the_recording_is_whole() -> None:
    recorded = scenarios()
    assert len(recorded) == len({scenario.name for scenario in recorded}) == 74
    assert sum(scenario.timed for scenario in recorded) == 2


@pytest.mark.parametrize(
    ("recorded", "got", "names"),
    [
        ("aabb", "aabb", {}),
        ("aa<x>bb", f"aa{ONE}bb", {"x": ONE}),
        ("<x><x>", ONE + ONE, {"x": ONE}),
        ("<x><y>", ONE + TWO, {"x": ONE, "y": TWO}),
    ],
)
def test_what_was_recorded_matches_and_names_what_the_broker_chose(
    recorded: str, got: str, names: dict[str, str]
) -> None:
    assert capture(recorded, got, {}) == names
    assert fill_in(recorded, names) == got


@pytest.mark.parametrize(
    ("recorded", "got"),
    [
        ("aabb", "aabc"),
        ("aabb", "aa"),
        ("aa", "aabb"),
        ("", "aa"),
        ("<x><x>", ONE + TWO),
        ("<x>", ONE[:-2]),
        ("<known>", TWO),
    ],
)
def test_anything_else_does_not_match(recorded: str, got: str) -> None:
    assert capture(recorded, got, {"known": ONE}) is None
