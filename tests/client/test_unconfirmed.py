from __future__ import annotations

import attrs
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from blipmq.client.push.unconfirmed import Unconfirmed
from blipmq.errors import ClientError, ConnectionLost, PublishFailed, Refused, Unavailable


@attrs.define(eq=False)
class Noting:
    """An owner that notes what it hears."""

    sent: int = 0
    committed: int = 0
    committed_bytes: int = 0
    refusals: list[int] = attrs.Factory(list)
    losses: list[tuple[int, int]] = attrs.Factory(list)
    woken: int = 0

    def confirmed(self, count: int, size: int) -> None:
        self.committed += count
        self.committed_bytes += size

    def refused(self, number: int, size: int, error: Refused) -> None:
        self.refusals.append(number)

    def lost(self, number: int, count: int, size: int, error: ClientError) -> None:
        self.losses.append((number, count))

    def wake(self) -> None:
        self.woken += 1


def send(unconfirmed: Unconfirmed, owner: Noting, count: int = 1) -> None:
    for _ in range(count):
        unconfirmed.add(owner, b"<%d>" % unconfirmed.next_id)
        owner.sent += 1


NO = PublishFailed(500, "no")
DRAINING = Unavailable(503, "draining")


def test_a_confirm_covers_all_up_to_it() -> None:
    unconfirmed, one, other = Unconfirmed(), Noting(), Noting()
    send(unconfirmed, one, 3)
    send(unconfirmed, other, 3)
    unconfirmed.confirm(5)
    assert (one.committed, one.committed_bytes, other.committed) == (3, 9, 2)
    assert unconfirmed
    unconfirmed.confirm(6)
    assert other.committed == 3
    assert not unconfirmed


def test_but_for_those_that_were_refused() -> None:
    unconfirmed, one, other = Unconfirmed(), Noting(), Noting()
    send(unconfirmed, one, 2)
    send(unconfirmed, other, 1)
    send(unconfirmed, one, 3)
    assert unconfirmed.refuse(5, NO)
    assert not unconfirmed.refuse(5, NO)
    unconfirmed.confirm(6)
    assert (one.committed, one.refusals, other.committed) == (4, [3], 1)
    assert not unconfirmed.refuse(6, NO)


def test_when_all_are_refused_nothing_is_left() -> None:
    unconfirmed, one = Unconfirmed(), Noting()
    send(unconfirmed, one, 3)
    for id_ in (1, 2, 3):
        unconfirmed.refuse(id_, NO)
    assert not unconfirmed
    assert (one.committed, one.refusals) == (0, [0, 1, 2])


def test_what_was_sent_and_not_settled_is_sent_again_in_order() -> None:
    unconfirmed, one, other = Unconfirmed(), Noting(), Noting()
    send(unconfirmed, one, 2)
    send(unconfirmed, other, 2)
    unconfirmed.confirm(1)
    unconfirmed.refuse(3, NO)
    send(unconfirmed, one, 1)
    assert unconfirmed.again(before=5) == b"<2><4>"
    assert unconfirmed.again(before=6) == b"<2><4><5>"


def test_what_a_broker_postpones_is_not_confirmed_but_sent_again() -> None:
    unconfirmed, one = Unconfirmed(), Noting()
    send(unconfirmed, one, 4)
    for id_ in (2, 3):
        unconfirmed.refuse(id_, DRAINING, postpone=True)
    unconfirmed.confirm(4)
    assert (one.committed, one.refusals) == (2, [])
    assert unconfirmed
    assert unconfirmed.again(before=5) == b"<2><3>"
    unconfirmed.refuse(3, NO)
    unconfirmed.confirm(3)
    assert (one.committed, one.refusals) == (3, [2])
    assert not unconfirmed


def test_numbers_stay_right_when_the_last_ones_were_refused() -> None:
    unconfirmed, one = Unconfirmed(), Noting()
    send(unconfirmed, one, 2)
    unconfirmed.refuse(1, DRAINING, postpone=True)
    unconfirmed.refuse(2, NO)
    assert unconfirmed.again(before=3) == b"<1>"
    send(unconfirmed, one, 1)
    assert unconfirmed.refuse(3, NO)
    unconfirmed.confirm(1)
    assert (one.committed, one.refusals) == (1, [1, 2])
    assert not unconfirmed


def test_what_is_lost_is_told_once() -> None:
    unconfirmed, one, other = Unconfirmed(), Noting(), Noting()
    send(unconfirmed, one, 3)
    send(unconfirmed, other, 1)
    unconfirmed.confirm(1)
    unconfirmed.refuse(4, DRAINING, postpone=True)
    unconfirmed.lose(ConnectionLost("gone"))
    unconfirmed.lose(ConnectionLost("gone"))
    assert (one.losses, other.losses) == ([(1, 2)], [(0, 1)])
    assert not unconfirmed


async def test_who_waits_for_all_up_to_now_waits_for_nothing_later() -> None:
    unconfirmed, one = Unconfirmed(), Noting()
    send(unconfirmed, one, 3)
    done = trio.Event()

    async def wait() -> None:
        await unconfirmed.settled(3)
        done.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        unconfirmed.confirm(1)
        await wait_all_tasks_blocked()
        assert not done.is_set()
        unconfirmed.refuse(2, DRAINING, postpone=True)
        unconfirmed.confirm(2)
        await done.wait()


Step = tuple[str, int]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "confirm", "refuse", "postpone", "again"]), st.integers(1, 30)
    ),
    max_size=60,
)


@given(STEPS)
def test_every_publish_is_told_of_exactly_once(steps: list[Step]) -> None:
    unconfirmed = Unconfirmed()
    owners = {"a": Noting(), "b": Noting()}
    waiting: dict[int, bool] = {}
    """By its number, whether a publish is on its way; else it is postponed."""
    for what, number in steps:
        if what in owners:
            for _ in range(number % 4 + 1):
                waiting[unconfirmed.next_id] = True
                send(unconfirmed, owners[what])
        elif what == "confirm":
            unconfirmed.confirm(min(number, unconfirmed.next_id - 1))
            for id_ in [id_ for id_ in waiting if waiting[id_] and id_ <= number]:
                del waiting[id_]
        elif what == "again":
            frames = unconfirmed.again(unconfirmed.next_id)
            assert frames == b"".join(b"<%d>" % id_ for id_ in waiting)
            waiting = dict.fromkeys(waiting, True)
        else:
            known = unconfirmed.refuse(number, NO, postpone=what == "postpone")
            assert known == waiting.get(number, False)
            if known and what == "postpone":
                waiting[number] = False
            elif known:
                del waiting[number]
    assert bool(unconfirmed) == bool(waiting)
    unconfirmed.lose(ConnectionLost("gone"))
    for owner in owners.values():
        lost = [n for number, count in owner.losses for n in range(number, number + count)]
        assert owner.committed + len(owner.refusals) + len(lost) == owner.sent
        assert len(set(lost) | set(owner.refusals)) == len(lost) + len(owner.refusals)
