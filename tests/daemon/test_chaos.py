"""The drills pass on a daemon that is as it should be, and would tell if it were not."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tools.chaos import (
    clock_jump,
    corrupt_middle,
    corrupt_tail,
    crash,
    disconnects,
    disk_full,
    flood,
    fsync_error,
    io_error,
    permission,
    second_daemon,
    slow_consumer,
    slow_disk,
    upgrade,
)
from tools.chaos import missing_segment as segments
from tools.chaos.disk_fault import FaultyDisk
from tools.chaos.ledger import Ledger, Source

PUBLISHER = Source("demo", "p")
OTHER = Source("demo", "q")
CHANCE = random.Random(1)  # noqa: S311, no secret


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


async def test_four_crashes_under_load_break_no_promise(tmp_path: Path) -> None:
    result = await crash.drill(tmp_path / "log", rounds=4, seed=1, grace_ms=1_000)
    assert result.ledger.violations == []
    assert result.ledger.confirmations
    assert result.ledger.acceptances


async def test_a_torn_tail_is_cut_off(tmp_path: Path) -> None:
    assert await corrupt_tail.drill(tmp_path, rounds=2, chance=CHANCE, step=29) == []


async def test_an_older_log_is_taken_over(tmp_path: Path) -> None:
    assert await upgrade.drill(tmp_path, older=None) == []


async def test_messages_that_an_older_log_lacks_are_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upgrade, "BODIES", (*upgrade.BODIES, b"one more"))
    violations = await upgrade.drill(tmp_path, older=None)
    assert [("what was not accepted is there" in text) for text in violations] == [True, True]


async def test_a_flipped_bit_is_refused(tmp_path: Path) -> None:
    assert await corrupt_middle.drill(tmp_path, rounds=2, chance=CHANCE, step=31) == []


async def test_a_damaged_segment_is_refused(tmp_path: Path) -> None:
    cases = (
        segments.Case(segments.missing, "first"),
        segments.Case(segments.truncated, "middle"),
        segments.Case(segments.of_another_number, "last"),
        segments.Case(segments.half_zero_filled, "last"),
    )
    assert await segments.drill(tmp_path, cases) == []


@pytest.mark.parametrize(
    "case",
    [
        segments.Case(segments.missing, "last"),
        segments.Case(segments.empty, "last"),
        segments.Case(segments.zero_filled, "last"),
        segments.Case(segments.of_another_log, "middle"),
        segments.Case(segments.of_another_log, "last"),
    ],
    ids=lambda case: f"{case.damage.__name__}-{case.place}",
)
async def test_a_lost_last_segment_or_a_foreign_one_is_refused(
    tmp_path: Path, case: segments.Case
) -> None:
    assert await segments.drill(tmp_path, [case]) == []


async def test_a_directory_without_permission_is_named(tmp_path: Path) -> None:
    assert await permission.drill(tmp_path) == []


async def test_a_full_disk_stops_publishes_alone(tmp_path: Path) -> None:
    assert await disk_full.drill(tmp_path) == []


async def test_a_write_that_fails_ends_the_daemon(tmp_path: Path) -> None:
    assert await io_error.drill(tmp_path) == []


async def test_an_fsync_that_fails_ends_the_daemon(tmp_path: Path) -> None:
    tampered = FaultyDisk(tmp_path, by_strace=False)
    assert await fsync_error.drill(tmp_path, tampered) == []


async def test_a_slow_disk_holds_up_only_who_waits_for_it(tmp_path: Path) -> None:
    assert await slow_disk.drill(tmp_path) == []


async def test_a_second_daemon_on_a_log_is_refused(tmp_path: Path) -> None:
    assert await second_daemon.drill(tmp_path, rivals=3) == []


async def test_a_clock_that_jumps_changes_nothing(tmp_path: Path) -> None:
    assert await clock_jump.drill(tmp_path) == []


async def test_lost_connections_take_no_promise_with_them(tmp_path: Path) -> None:
    assert await disconnects.drill(tmp_path, lives=8, chance=CHANCE) == []


async def test_a_slow_consumer_is_nobody_elses_problem(tmp_path: Path) -> None:
    assert await slow_consumer.drill(tmp_path, bursts=20) == []


async def test_a_flood_of_strangers_keeps_nobody_out(tmp_path: Path) -> None:
    assert await flood.drill(tmp_path, strangers=200, chance=CHANCE) == []


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


def test_a_second_delivery_without_a_reason_is_found(ledger: Ledger) -> None:
    ledger.delivered("demo", 11, b"p/1")
    ledger.delivered("demo", 11, b"p/1")
    assert "p/1 was delivered twice, for no reason" in found(ledger)


def test_what_a_lost_connection_held_may_come_again(ledger: Ledger) -> None:
    ledger.delivered("demo", 11, b"p/1")
    ledger.released([11])
    ledger.delivered("demo", 11, b"p/1")
    assert ledger.violations == []


def test_a_second_delivery_at_qos_0_is_found(ledger: Ledger) -> None:
    ledger.sent(OTHER, b"q/1", qos=0)
    ledger.delivered("demo", 1, b"q/1")
    ledger.killed(1.0)
    ledger.delivered("demo", 2, b"q/1")
    assert "q/1 was delivered twice at QoS 0" in found(ledger)


def test_a_message_at_qos_0_after_a_later_one_of_its_publisher_is_found(ledger: Ledger) -> None:
    ledger.sent(PUBLISHER, b"p/4", qos=0)
    ledger.sent(PUBLISHER, b"p/5")
    ledger.delivered("demo", 15, b"p/5")
    ledger.delivered("demo", 1, b"p/4")
    assert "p/4 was first delivered after a later one of its publisher" in found(ledger)


def test_a_message_at_qos_0_may_be_lost(ledger: Ledger) -> None:
    ledger.sent(OTHER, b"q/1", qos=0)
    ledger.sent(OTHER, b"q/2")
    ledger.confirmed([b"q/1", b"q/2"])
    for tag, body in enumerate((b"p/1", b"p/2", b"q/2"), start=11):
        ledger.delivered("demo", tag, body)
    ledger.drained(["demo"])
    assert ledger.violations == []


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
