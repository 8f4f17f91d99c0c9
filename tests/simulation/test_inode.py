"""What a power cut leaves of a file, and of a directory."""

from __future__ import annotations

from tests.simulation.inode import SECTOR, Entry, Inode, surviving
from tests.simulation.repeatable import chance


def test_what_was_synced_outlives_a_power_cut() -> None:
    inode = Inode()
    inode.write(0, b"x" * 2000)
    inode.sync()
    assert inode.after_power_cut(chance(1)).content == b"x" * 2000


def test_of_what_was_not_any_sector_may_be_missing() -> None:
    found = set()
    for seed in range(300):
        inode = Inode()
        inode.write(0, b"x" * 2 * SECTOR)
        kept = bytes(inode.after_power_cut(chance(seed)).content)
        if len(kept) == 2 * SECTOR:
            found.add((any(kept[:SECTOR]), any(kept[SECTOR:])))
    assert found == {(False, False), (False, True), (True, False), (True, True)}


def test_a_file_may_end_anywhere_between_two_of_its_lengths() -> None:
    found = set()
    for seed in range(300):
        inode = Inode()
        inode.write(0, b"x" * 10)
        inode.sync()
        inode.write(10, b"y" * 10)
        found.add(len(inode.after_power_cut(chance(seed)).content))
    assert found == set(range(10, 21))


def test_any_change_of_a_directory_may_be_lost() -> None:
    old, new = Inode(), Inode()
    changes = [Entry("new", new), Entry("old")]
    found = {frozenset(surviving({"old": old}, changes, chance(seed))) for seed in range(100)}
    assert found == {
        frozenset(),
        frozenset({"old"}),
        frozenset({"new"}),
        frozenset({"old", "new"}),
    }


def test_damage_is_mended_unless_it_was_written_over() -> None:
    inode = Inode()
    inode.write(0, b"abc")
    inode.sync()
    inode.damage(1)
    assert inode.after_power_cut(chance(1)).content == b"a\x22c"
    inode.mend()
    assert bytes(inode.content) == inode.durable == b"abc"
    inode.damage(1)
    inode.write(1, b"d")
    inode.mend()
    assert inode.content == b"adc"
