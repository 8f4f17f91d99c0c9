from __future__ import annotations

from typing import cast

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from blipmq import Message
from blipmq.client.outbox import Outbox
from blipmq.client.push import lease as lease_module
from blipmq.client.push.attachment import Attachment
from blipmq.client.push.connection import PushConnection
from blipmq.client.push.lease import Lease
from blipmq.client.push.link import Link
from blipmq.client.source import wanted
from blipmq.protocol import encoder
from blipmq.protocol.frames import HEADER_BYTES, SETTLE_ROW, Outcome


@attrs.define
class Settled:
    """A connection that counts how often it is told that there is something to settle."""

    draining: bool = False
    told: int = 0
    outbox: Outbox = attrs.field(factory=Outbox)

    def settling(self, lease: Lease) -> None:
        self.told += 1

    def drained(self) -> None:
        pass


def holding(tags: list[int], flush_at: int = 4) -> tuple[Lease, Settled, list[Message]]:
    asked = wanted(
        "demo",
        qos=1,
        name="work",
        pattern=None,
        prefetch=None,
        start=None,
        ack_wait=None,
        max_attempts=None,
    )
    connection = Settled()
    attachment = Attachment(Link("a broker", bytes(8), None, 60), asked, 512)
    lease = Lease(attachment, cast(PushConnection, connection), 1, flush_at)
    attachment.lease = lease
    attachment.deliver(b"".join(encoder.publish(tag, 1, b"demo", b"hello") for tag in tags))
    return lease, connection, list(iter(attachment.take, None))


def rows(frame: bytes) -> list[tuple[int, ...]]:
    return list(SETTLE_ROW.iter_unpack(frame[HEADER_BYTES:])) if frame else []


async def test_neighbours_that_are_accepted_one_by_one_are_one_row() -> None:
    lease, _, messages = holding(list(range(1, 11)))
    for message in messages:
        await message.accept()
    assert rows(lease.take_rows()) == [(Outcome.ACCEPT, 1, 10, 0)]


async def test_neighbours_are_one_row_in_whatever_order_they_are_accepted() -> None:
    lease, _, messages = holding(list(range(1, 11)))
    for message in reversed(messages):
        await message.accept()
    assert rows(lease.take_rows()) == [(Outcome.ACCEPT, 1, 10, 0)]


async def test_a_row_has_nothing_that_was_not_accepted() -> None:
    lease, _, messages = holding([1, 2, 4, 2**40])
    for message in messages:
        await message.accept()
    accepted = [(Outcome.ACCEPT, 1, 2, 0), (Outcome.ACCEPT, 4, 4, 0)]
    assert rows(lease.take_rows()) == [*accepted, (Outcome.ACCEPT, 2**40, 2**40, 0)]


async def test_a_redelivery_that_is_accepted_too_stands_for_no_neighbour() -> None:
    lease, _, messages = holding([1, 1, 3])
    for message in messages:
        await message.accept()
    assert {row[1:3] for row in rows(lease.take_rows())} == {(1, 1), (3, 3)}


async def test_the_connection_is_told_once_until_the_rows_are_taken() -> None:
    lease, connection, messages = holding([1, 2, 3])
    await messages[0].accept()
    await messages[1].accept()
    assert connection.told == 1
    lease.take_rows()
    await messages[2].accept()
    assert connection.told == 2


async def test_many_settlements_are_sent_at_once(autojump_clock: MockClock) -> None:
    _, connection, messages = holding([1, 2, 3, 4], flush_at=4)
    for message in messages[:3]:
        await message.accept()
    assert not connection.outbox.nudged
    await messages[3].accept()
    assert connection.outbox.nudged


async def test_what_waits_to_be_settled_is_kept_as_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_module, "ACCEPTED_MAX", 16)
    lease, _, messages = holding(list(range(1, 101)))
    longest = 0
    for message in messages:
        await message.accept()
        longest = max(longest, len(lease.accepted))
    assert longest == 16
    assert rows(lease.take_rows()) == [(Outcome.ACCEPT, 1, 100, 0)]


@given(
    st.integers(1, 8),
    st.lists(
        st.tuples(st.sampled_from(["accept", "reject", "extend", "take"]), st.integers(0, 29))
    ),
)
async def test_every_settlement_is_sent_once_and_counted(
    flush_at: int, steps: list[tuple[str, int]]
) -> None:
    lease, _, messages = holding(list(range(1, 31)), flush_at)
    expected: dict[int, Outcome] = {}
    sent: list[tuple[int, ...]] = []
    for what, at in steps:
        message = messages[at]
        assert message.tag is not None
        if what == "take":
            sent += rows(lease.take_rows())
        elif what == "extend":
            await message.extend()
        elif what == "accept":
            await message.accept()
            expected.setdefault(message.tag, Outcome.ACCEPT)
        else:
            await message.reject()
            expected.setdefault(message.tag, Outcome.REJECT)
        assert lease.unsettled == 30 - len(expected)
    sent += rows(lease.take_rows())
    settled = [
        (tag, Outcome(outcome))
        for outcome, first, last, _ in sent
        for tag in range(first, last + 1)
        if outcome != Outcome.EXTEND
    ]
    assert sorted(settled) == sorted(expected.items())
