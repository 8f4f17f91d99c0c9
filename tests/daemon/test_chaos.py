"""The drills pass on a daemon that is as it should be, and would tell if it were not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.chaos.crash import drill
from tools.chaos.ledger import Ledger, Source

PUBLISHER = Source("demo", "p")
OTHER = Source("demo", "q")


@pytest.fixture
def ledger() -> Ledger:
    """Three messages were sent, the first two were confirmed."""
    ledger = Ledger(grace_seconds=0.1)
    for body in (b"p/1", b"p/2", b"p/3"):
        ledger.sent(PUBLISHER, body)
    ledger.confirmed([b"p/1", b"p/2"])
    return ledger


def accept(ledger: Ledger, body: bytes, at: float) -> None:
    ledger.accepting([body])
    ledger.accepted([body], at)


def found(ledger: Ledger) -> str:
    """The one violation."""
    (violation,) = ledger.violations
    return violation


async def test_three_crashes_under_load_break_no_promise(tmp_path: Path) -> None:
    result = await drill(tmp_path / "log", rounds=3, seed=1, grace_ms=1_000)
    assert result.ledger.violations == []
    assert result.ledger.confirmations
    assert result.ledger.acceptances


def test_what_was_promised_and_kept_is_no_violation(ledger: Ledger) -> None:
    ledger.delivered("demo", 11, b"p/1")
    accept(ledger, b"p/1", at=5.0)
    ledger.killed(6.0)
    ledger.delivered("demo", 12, b"p/2")
    ledger.drained(["demo"])
    assert ledger.violations == []


def test_unconfirmed_messages_may_be_lost_from_any_one_on() -> None:
    ledger = Ledger(grace_seconds=0.1)
    for publisher, body in ((PUBLISHER, b"p/1"), (PUBLISHER, b"p/2"), (OTHER, b"q/1")):
        ledger.sent(publisher, body)
    ledger.killed(1.0)
    ledger.delivered("demo", 11, b"p/1")
    ledger.drained(["demo"])
    assert ledger.violations == []


def test_a_confirmed_message_that_is_gone_is_found(ledger: Ledger) -> None:
    ledger.killed(1.0)
    ledger.delivered("demo", 11, b"p/1")
    ledger.drained(["demo"])
    assert "p/2 is lost, although it was confirmed" in found(ledger)


def test_an_unconfirmed_message_that_was_seen_and_is_gone_is_found(ledger: Ledger) -> None:
    for tag, body in enumerate((b"p/1", b"p/2", b"p/3"), start=11):
        ledger.delivered("demo", tag, body)
    ledger.killed(1.0)
    ledger.delivered("demo", 11, b"p/1")
    ledger.delivered("demo", 12, b"p/2")
    ledger.drained(["demo"])
    assert "p/3 is lost, although it was delivered before" in found(ledger)


def test_a_lost_message_before_one_that_is_there_is_found() -> None:
    ledger = Ledger(0.1)
    ledger.sent(PUBLISHER, b"p/1")
    ledger.sent(PUBLISHER, b"p/2")
    ledger.killed(1.0)
    ledger.delivered("demo", 12, b"p/2")
    ledger.drained(["demo"])
    assert "p: [0] are lost, and later ones are not" in found(ledger)


def test_an_accepted_message_that_comes_back_is_found(ledger: Ledger) -> None:
    ledger.delivered("demo", 11, b"p/1")
    accept(ledger, b"p/1", at=5.0)
    ledger.killed(5.2)
    ledger.delivered("demo", 11, b"p/1")
    assert "p/1 was accepted 200 ms before the end and came back" in found(ledger)


def test_an_acceptance_shortly_before_the_kill_may_be_forgotten(ledger: Ledger) -> None:
    ledger.delivered("demo", 11, b"p/1")
    accept(ledger, b"p/1", at=5.15)
    ledger.killed(5.2)
    ledger.delivered("demo", 11, b"p/1")
    assert ledger.violations == []
    assert ledger.forgotten_acceptances == 1


def test_an_acceptance_while_the_log_was_stalled_may_be_forgotten(ledger: Ledger) -> None:
    ledger.delivered("demo", 11, b"p/1")
    accept(ledger, b"p/1", at=5.0)
    ledger.killed(5.5, stalled_at=5.05)
    ledger.delivered("demo", 11, b"p/1")
    assert ledger.violations == []


def test_an_acceptance_before_a_shutdown_may_not_be_forgotten(ledger: Ledger) -> None:
    ledger.delivered("demo", 11, b"p/1")
    accept(ledger, b"p/1", at=5.15)
    ledger.stopped()
    ledger.delivered("demo", 11, b"p/1")
    assert "p/1 was accepted" in found(ledger)


def test_an_accepted_message_that_comes_back_in_the_same_life_is_found(ledger: Ledger) -> None:
    ledger.delivered("demo", 11, b"p/1")
    accept(ledger, b"p/1", at=5.0)
    ledger.delivered("demo", 11, b"p/1")
    assert "without a kill in between" in found(ledger)


def test_a_tag_that_was_given_to_another_message_is_found(ledger: Ledger) -> None:
    ledger.delivered("demo", 11, b"p/1")
    ledger.delivered("demo", 11, b"p/2")
    assert "tag 11 of p/2 was that of p/1" in found(ledger)


def test_a_message_whose_tag_changes_is_found(ledger: Ledger) -> None:
    ledger.delivered("demo", 11, b"p/1")
    ledger.delivered("demo", 13, b"p/1")
    assert "p/1 came with tag 11 and then with 13" in found(ledger)


def test_first_deliveries_out_of_order_are_found(ledger: Ledger) -> None:
    ledger.delivered("demo", 11, b"p/2")
    ledger.delivered("demo", 12, b"p/1")
    assert "p/1 was first delivered after a later one of its publisher" in found(ledger)


def test_first_deliveries_that_do_not_follow_the_tags_are_found(ledger: Ledger) -> None:
    ledger.delivered("demo", 12, b"p/1")
    ledger.delivered("demo", 11, b"p/2")
    assert "p/2 was first delivered after a later one of its topic" in found(ledger)


def test_a_message_that_nobody_published_is_found(ledger: Ledger) -> None:
    ledger.delivered("demo", 11, b"other")
    assert "other was delivered and never published" in found(ledger)


def test_a_message_on_another_topic_is_found(ledger: Ledger) -> None:
    ledger.delivered("news", 11, b"p/1")
    assert "p/1 was delivered on topic news" in found(ledger)
