"""All of the corpus, and as many inputs like it as there is time for in each run of the tests."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import TARGETS, check_of, corpus, inputs


@pytest.mark.parametrize("target", TARGETS)
def test_all_of_the_corpus_is_dealt_with(target: str) -> None:
    check, inputs_ = check_of(target), corpus(target)
    assert inputs_
    for line, data in enumerate(inputs_, start=1):
        try:
            check(data)
        except Exception as error:
            error.add_note(f"the input is on line {line} of the corpus of {target}")
            raise


@pytest.mark.parametrize("target", TARGETS)
@settings(deadline=None, max_examples=150, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_inputs_like_those_of_the_corpus_are_dealt_with(target: str, data: st.DataObject) -> None:
    check_of(target)(data.draw(inputs(target)))


@pytest.mark.parametrize(
    ("target", "broken"),
    [
        ("decoding", "blipmq.protocol.loops.stamp_range"),
        ("properties", "tests.fuzz.properties.routing"),
        ("session", "blipmq.broker.output.Output.drop"),
        ("recovery", "blipmq.wal.recovery.Recovery._cut"),
        ("repair", "blipmq.wal.scan.LogScan._look_for_lost"),
    ],
)
def test_what_is_left_out_is_found(
    target: str, broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = check_of(target)
    monkeypatch.setattr(broken, lambda *_: None)
    with pytest.raises(AssertionError):
        list(map(check, corpus(target)))
