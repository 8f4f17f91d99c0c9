"""`blipmq dead`, `purge` and `delete`, against a daemon in memory."""

from __future__ import annotations

import pytest
from trio.testing import MockClock

from blipmq.cli import dead, statuses
from blipmq.config import AdminSettings
from tests.cli.shell import Shell, opened

CHANGES = [
    "dead list t",
    "dead retry t --all",
    "dead drop t --all --yes",
    "purge t --yes",
    "purge --subscription 1 --yes",
    "delete 1 --yes",
]


async def numbers(shell: Shell) -> list[int]:
    assert await shell("dead", "list", "t", "--json") == 0
    return [row["number"] for row in shell.lines]


async def test_dead_letters_are_shown_and_stay(shell: Shell, autojump_clock: MockClock) -> None:
    await shell.reject("t", b"a", b"\xff")
    assert await shell("dead", "list") == 0
    assert "2" in shell.out
    assert await shell("dead", "list", "t") == 0
    assert "rejected" in shell.out
    assert "worker" in shell.out
    assert await shell("dead", "list", "t", "--json", "--limit", 1) == 0
    assert [row["body"] for row in shell.lines] == ["a"]
    assert await shell("dead", "list", "--json") == 0
    assert [(row["topic"], row["backlog"]["messages"]) for row in shell.lines] == [("t", 2)]


async def test_chosen_ones_are_published_again(shell: Shell, autojump_clock: MockClock) -> None:
    await shell.reject("t", b"a", b"b", b"c")
    first, second, third = await numbers(shell)
    assert await shell("dead", "retry", "t", third, second, second) == 0
    assert shell.out == "resent 2 dead letters of t\n"
    assert await numbers(shell) == [first]
    assert await shell("sub", "t", "--name", "worker", "--count", 2) == 0
    assert shell.out == "b\nc\n"
    assert await shell("dead", "retry", "t", first, second) == statuses.NOT_FOUND
    assert shell.out == "resent 1 dead letter of t\n"
    assert "1 dead letter not there, or held by a consumer" in shell.err


async def test_all_are_published_again_page_by_page(
    shell: Shell, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead, "PAGE", 2)
    await shell.reject("t", b"a", b"b", b"c", b"d", b"e")
    assert await shell("dead", "retry", "t", "--all", "--json") == 0
    assert shell.lines == [{"topic": "t", "resent": 5}]
    assert await shell("sub", "t", "--name", "worker", "--count", 5) == 0
    assert await shell("dead", "retry", "t", "--all") == statuses.NOT_FOUND
    assert "there are no dead letters of 't'" in shell.err


async def test_dead_letters_are_dropped(shell: Shell, autojump_clock: MockClock) -> None:
    await shell.reject("t", b"a", b"b", b"c")
    _, second, _ = await numbers(shell)
    assert await shell("dead", "drop", "t", second, "--yes") == 0
    assert shell.out == "dropped 1 dead letter of t\n"
    assert await shell("dead", "drop", "t", "--all", "--yes", "--json") == 0
    assert shell.lines == [{"topic": "t", "dropped": 2}]
    assert await shell("dead", "list", "t") == statuses.NOT_FOUND


async def test_whose_dead_letters_is_to_be_said(shell: Shell, autojump_clock: MockClock) -> None:
    for name in ("x", "y"):
        assert await shell("sub", "$dead.t", "--name", name, "--no-follow") == 6
    await shell.reject("t", b"a")
    assert await shell("dead", "list", "t") == statuses.FAILED
    assert "say which" in shell.err
    await shell("subs", "--topic", "$dead.t", "--json")
    id_ = shell.lines[0]["id"]
    assert await shell("dead", "retry", "t", "--all", "--subscription", id_) == 0
    assert shell.out == "resent 1 dead letter of t\n"


async def test_a_topic_and_a_subscription_are_purged(
    shell: Shell, autojump_clock: MockClock
) -> None:
    await shell("sub", "t", "--name", "n", "--no-follow")
    await shell("pub", "t", "a")
    assert await shell("purge", "t", "--yes") == 0
    assert shell.out == "dropped 1 message\n"
    await shell("pub", "t", "b")
    await shell("subs", "--json")
    id_ = shell.lines[0]["id"]
    assert await shell("purge", "--subscription", id_, "--yes", "--json") == 0
    assert shell.lines == [{"purged": 1}]
    await shell("pub", "t", "c")
    assert await shell("delete", id_, "--yes") == 0
    assert shell.out == f"deleted subscription {id_}, with 1 message\n"
    assert await shell("delete", id_, "--yes") == statuses.NOT_FOUND


@pytest.mark.parametrize("command", CHANGES)
async def test_what_is_not_there_is_not_found(
    shell: Shell, autojump_clock: MockClock, command: str
) -> None:
    assert await shell(*command.split()) == statuses.NOT_FOUND
    assert shell.err.startswith("blipmq: there ")


@pytest.mark.parametrize("command", CHANGES[:1] + CHANGES[3:])
@pytest.mark.parametrize("key", ["", "wrong"])
async def test_without_the_admin_key_it_is_not_permitted(
    shell: Shell, autojump_clock: MockClock, command: str, key: str
) -> None:
    shell.set(BLIPMQ_CLIENT_ADMIN_KEY=key)
    assert await shell(*command.split()) == statuses.NOT_PERMITTED
    assert "BLIPMQ_CLIENT_ADMIN_KEY or --admin-key-file" in shell.err


async def test_dead_letters_are_not_resent_without_the_admin_key(
    shell: Shell, autojump_clock: MockClock
) -> None:
    await shell.reject("t", b"a")
    shell.set(BLIPMQ_CLIENT_ADMIN_KEY="")
    for command in CHANGES[1:3]:
        assert await shell(*command.split()) == statuses.NOT_PERMITTED


async def test_a_daemon_without_admin_keys_says_how_to_get_one(
    autojump_clock: MockClock, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(capsys, monkeypatch, admin=AdminSettings()) as shell:
        assert await shell("purge", "t", "--yes") == statuses.NOT_PERMITTED
    assert "no admin key is configured" in shell.err
    assert "`blipmq keys new`" in shell.err


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("dead retry t", "give either the numbers of dead letters or --all"),
        ("dead retry t 5 --all", "give either the numbers of dead letters or --all"),
        ("dead retry t x", "'x' is not a valid integer"),
        ("dead retry t 0", "0 is not in the range"),
        ("dead drop t --all", "Nobody is there to be asked; say --yes"),
        ("dead list t --limit 0", "0 is not in the range"),
        ("purge", "give either TOPIC or --subscription"),
        ("purge t --subscription 5", "give either TOPIC or --subscription"),
        ("purge t", "Nobody is there to be asked; say --yes"),
        ("delete", "Missing argument 'ID'"),
        ("delete 5", "Nobody is there to be asked; say --yes"),
        ("purge t --yes --admin-key-file /nowhere", "cannot read the key"),
    ],
)
async def test_what_cannot_be_is_told(
    shell: Shell, autojump_clock: MockClock, command: str, message: str
) -> None:
    assert await shell(*command.split()) == statuses.UNUSABLE
    assert message in shell.err
