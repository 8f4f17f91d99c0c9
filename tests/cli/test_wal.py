from __future__ import annotations

import json
import os
import struct
import sys
import zlib
from pathlib import Path
from typing import Any

import attrs
import pytest

from blipmq.broker.broker import NUMBERS_RESERVED
from blipmq.cli import blipmq
from blipmq.protocol.properties import MessageProperties
from blipmq.wal.facts import Checkpoint, Moved, RunRecord, Seen, SubscriptionState
from blipmq.wal.salvage import LiveDisk
from blipmq.wal.transfer import StoredMessage
from tests.wal.directories import (
    QuickDisk,
    change,
    contents,
    found,
    records,
    starts,
    state,
    two_segments,
)
from tests.wal.logs import FIRST, LAST, append, begin, run


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return two_segments(tmp_path / "log")


@attrs.define
class Command:
    """`blipmq wal`, and what it wrote when it was run last."""

    capsys: pytest.CaptureFixture[str]
    out: str = ""
    err: str = ""

    def __call__(self, *arguments: str | Path) -> int:
        """Its exit status."""
        status = blipmq.run(["wal", *map(str, arguments)])
        self.out, self.err = self.capsys.readouterr()
        return status

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The output as JSON Lines."""
        return [json.loads(line) for line in self.out.splitlines()]


@pytest.fixture
def wal(capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(capsys)


def damage_run(path: Path) -> None:
    """Flip a bit in the body of message 23."""
    change(path, LAST, records(path, LAST)[1][1] - 2)


# inspect


def test_inspect_shows_segments_topics_subscriptions_and_what_is_kept(
    path: Path, wal: Command
) -> None:
    assert wal("inspect", path) == 0
    for text in (FIRST, LAST, "demo", "news", "key-1", "reserved below 1000"):
        assert text in wal.out


def test_inspect_gives_programs_the_same_as_json(path: Path, wal: Command) -> None:
    assert wal("inspect", "--json", path) == 0
    found = json.loads(wal.out)
    assert [segment["file"] for segment in found["segments"]] == [FIRST, LAST]
    assert [(topic["topic"], topic["messages"]) for topic in found["topics"]] == [
        ("demo", 3),
        ("news", 1),
    ]
    (subscription,) = found["subscriptions"]
    assert (subscription["id"], subscription["owner"]) == (7, "key-1")
    assert subscription["unsettled"]["messages"] == 1
    assert subscription["unsettled"]["oldest_time"] == "2023-11-14T22:13:20.000Z"
    assert found["kept"][0]["topic"] == "news"
    assert found["checkpoint"]["older_segments"] == [1]
    assert (found["torn_bytes"], found["damages"]) == (0, [])


@pytest.fixture
def newer(tmp_path: Path) -> Path:
    """A log with what version 2 has."""
    shared = SubscriptionState(7, "key-1", b"demo", 1, shared=True, name=b"workers", parent=5)
    pattern = SubscriptionState(5, "key-1", b"de.*", 0, shared=True, name=b"all", pattern=True)
    seen = (Seen(b"demo", ((1, b"a"), (2, b"b"))),)
    states = (SubscriptionState(0, "", b"", 1), pattern, shared)
    log = begin(QuickDisk(tmp_path / "newer"), Checkpoint(99, (), states, seen=seen))
    delayed = StoredMessage(b"later", b"x", properties=MessageProperties(delay_ms=5_000))
    dead = Moved(7, 1, 1, run(2, topic=b"$dead.demo"))
    append(log, run(1), dead, RunRecord(b"", 3, 1, delayed.frame(3)), run(4))
    log.close()
    return tmp_path / "newer"


def test_inspect_shows_what_version_2_has(newer: Path, wal: Command) -> None:
    assert wal("inspect", newer) == 0
    for text in ("workers", "of pattern 5", "pattern", "de.*", "$dead.demo", "later", "(delayed)"):
        assert text in wal.out


def test_inspect_gives_programs_what_version_2_has(newer: Path, wal: Command) -> None:
    assert wal("inspect", "--json", newer) == 0
    found = json.loads(wal.out)
    pattern, shared = found["subscriptions"]
    assert (pattern["topic"], pattern["name"], pattern["pattern"]) == ("de.*", "all", True)
    assert (shared["name"], shared["shared"], shared["parent"]) == ("workers", True, 5)
    assert shared["unsettled"]["messages"] == 1
    assert [(topic["topic"], topic["messages"]) for topic in found["delayed"]] == [("later", 1)]
    assert found["checkpoint"]["message_ids"] == 2


def test_what_version_2_has_goes_out_of_a_log_and_into_one(newer: Path, wal: Command) -> None:
    lines = newer.parent / "messages"
    assert wal("export", newer, "--output", lines) == 0
    assert wal("import", newer.parent / "other", lines) == 0
    assert wal("export", newer.parent / "other") == 0
    assert [(line["topic"], line.get("delayed")) for line in wal.lines] == [
        ("$dead.demo", None),
        ("later", True),
        ("demo", None),
    ]
    assert wal.lines[1]["properties"] == {"delay_ms": 5_000}


def test_inspect_gives_ages(path: Path, wal: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time_ns", lambda: (1_700_000_000 + 7_200) * 10**9)
    wal("inspect", "--json", path)
    assert json.loads(wal.out)["topics"][0]["oldest_age_ms"] == 7_200_000
    wal("inspect", path)
    assert "2 h" in wal.out


def test_inspect_shows_damage_and_says_so_by_its_status(path: Path, wal: Command) -> None:
    damage_run(path)
    assert wal("inspect", path) == 1
    assert f"damaged: {LAST}: offset " in wal.out


def test_inspect_shows_a_torn_tail(path: Path, wal: Command) -> None:
    (path / LAST).write_bytes((path / LAST).read_bytes()[:-3])
    assert wal("inspect", path) == 0
    assert "torn tail: " in wal.out


def test_inspect_shows_topics_as_they_are(tmp_path: Path, wal: Command) -> None:
    log = begin(QuickDisk(tmp_path))
    append(log, run(1, 1, "[bold]é\n".encode()))
    log.close()
    wal("inspect", tmp_path)
    assert r"'[bold]\xe9\n'" in wal.out


def test_inspect_changes_nothing_and_needs_no_lock(tmp_path: Path, wal: Command) -> None:
    log = begin(QuickDisk(tmp_path))
    append(log, run(1))
    before = contents(tmp_path)
    assert wal("inspect", tmp_path) == 0
    assert contents(tmp_path) == before
    log.close()


# verify


def test_verify_of_a_good_log(path: Path, wal: Command) -> None:
    assert wal("verify", path) == 0
    assert wal.out == "clean: 2 segments, 9 records, 4 messages\n"


def test_verify_names_every_damage(path: Path, wal: Command) -> None:
    damage_run(path)
    change(path, FIRST, 0)
    assert wal("verify", path) == 1
    start = records(path, LAST)[1][0]
    assert f"{path}/{FIRST}: offset 0: this is not a segment" in wal.out
    assert f"{path}/{LAST}: offset {start}: a record's checksum does not match" in wal.out
    assert "wal repair --dry-run" in wal.out


def test_verify_finds_that_a_segment_is_missing(path: Path, wal: Command) -> None:
    (path / FIRST).unlink()
    assert wal("verify", path) == 1
    assert f"{path}/{FIRST}: offset 0: the segment is missing" in wal.out


def test_a_torn_tail_is_shown_and_no_damage(path: Path, wal: Command) -> None:
    start, end = records(path, LAST)[-1]
    (path / LAST).write_bytes((path / LAST).read_bytes()[:-3])
    assert wal("verify", path) == 0
    assert f"{LAST}: offset {start}: torn tail of {end - 3 - start} bytes" in wal.out


def test_a_segment_that_was_only_begun_is_a_torn_tail(path: Path, wal: Command) -> None:
    (path / "0000000000000003.wal").write_bytes(b"BLIP")
    assert wal("verify", path) == 0
    assert "0000000000000003.wal: offset 0: torn tail of 4 bytes" in wal.out


@pytest.mark.parametrize("command", ["inspect", "verify", "repair", "export"])
def test_a_path_that_is_not_there_cannot_be_used(
    tmp_path: Path, wal: Command, command: str
) -> None:
    assert wal(command, tmp_path / "away") == 2
    assert "there is no such directory; the daemon's setting wal_path names it" in wal.err
    assert not (tmp_path / "away").exists()


@pytest.mark.parametrize("command", ["inspect", "verify", "repair", "export"])
def test_a_directory_without_a_log_cannot_be_used(
    tmp_path: Path, wal: Command, command: str
) -> None:
    assert wal(command, tmp_path) == 2
    assert f"{tmp_path}: there is no log in this directory" in wal.err
    assert list(tmp_path.iterdir()) == []


def test_a_file_cannot_be_used(path: Path, wal: Command) -> None:
    assert wal("verify", path / FIRST) == 2
    assert "a log is a directory" in wal.err


def test_a_directory_without_permission_cannot_be_used(
    path: Path, wal: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(disk: LiveDisk) -> list[str]:
        raise PermissionError(13, "Permission denied", str(disk.directory))

    monkeypatch.setattr(LiveDisk, "names", refuse)
    assert wal("verify", path) == 2
    assert f"{path}: Permission denied" in wal.err


# repair


def copies(path: Path) -> list[Path]:
    return sorted(path.parent.glob(f"{path.name}.before-repair-*"))


def test_repair_saves_a_copy_and_says_what_is_lost(path: Path, wal: Command) -> None:
    damage_run(path)
    before = contents(path)
    assert wal("repair", path) == 0
    assert "lost: topic demo, numbers 23 to 23, wanted by subscription 7" in wal.out
    assert "no settlement is lost" in wal.out
    (copy,) = copies(path)
    assert f"the log as it was: {copy}" in wal.out
    assert contents(copy) == before
    assert found(path).numbers == [21, 24]


def test_the_copy_is_named_after_the_time_in_utc(
    path: Path, wal: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    damage_run(path)
    monkeypatch.setenv("TZ", "America/New_York")
    monkeypatch.setattr("time.time_ns", lambda: 1_700_000_000 * 10**9)
    wal("repair", path)
    assert [copy.name for copy in copies(path)] == ["log.before-repair-20231114T221320Z"]


def test_a_dry_run_says_the_same_and_changes_nothing(path: Path, wal: Command) -> None:
    damage_run(path)
    before = contents(path)
    assert wal("repair", "--dry-run", path) == 0
    assert "lost: topic demo, numbers 23 to 23" in wal.out
    assert "dry run: nothing was changed" in wal.out
    assert contents(path) == before
    assert copies(path) == []


def test_a_good_log_is_not_repaired(path: Path, wal: Command) -> None:
    before = contents(path)
    assert wal("repair", path) == 0
    assert wal.out == "nothing to repair: the daemon can start\n"
    assert contents(path) == before
    assert copies(path) == []


def test_repair_says_where_the_state_comes_from(path: Path, wal: Command) -> None:
    change(path, LAST, 60)
    assert wal("repair", path) == 0
    assert f"checkpoint: rebuilt from that of {FIRST}" in wal.out
    assert "no message is lost" in wal.out
    assert starts(path)


def test_repair_says_when_there_is_no_state(path: Path, wal: Command) -> None:
    change(path, FIRST, 60)
    change(path, LAST, 60)
    assert wal("repair", path) == 0
    assert "checkpoint: none is left" in wal.out
    assert "settlements may be lost" in wal.out


def test_repair_says_what_it_removes_and_between_which_numbers_that_was(
    path: Path, wal: Command
) -> None:
    (path / FIRST).write_bytes(bytes(340))
    assert wal("repair", path) == 0
    assert f"removed: {FIRST}: nothing in it can be used" in wal.out
    assert "lost: at most 22 messages with numbers 1 to 22, topics unknown" in wal.out


@pytest.mark.parametrize("arguments", [["repair"], ["import"]])
def test_while_a_daemon_has_the_log_it_is_not_written_to(
    path: Path, wal: Command, arguments: list[str]
) -> None:
    lines = path.parent / "lines"
    lines.write_text('{"topic": "t", "body": "b"}')
    disk = QuickDisk(path)
    disk.lock()
    files = [lines] if arguments == ["import"] else []
    assert wal(*arguments, path, *files) == 1
    disk.unlock()
    assert f"in use by another process, pid {os.getpid()}; stop the daemon first" in wal.err


# export


def test_export_writes_a_line_for_each_message_that_somebody_wants(
    path: Path, wal: Command
) -> None:
    assert wal("export", path) == 0
    assert [(line["number"], line["subscriptions"]) for line in wal.lines] == [(23, [7]), (24, [])]
    assert wal.err == "exported 2 messages\n"


def test_export_writes_all_on_request(path: Path, wal: Command) -> None:
    wal("export", "--all", path)
    assert [line["number"] for line in wal.lines] == [21, 22, 23, 24]


def test_export_writes_one_topic_on_request(path: Path, wal: Command) -> None:
    wal("export", "--topic", "news", path)
    assert [line["topic"] for line in wal.lines] == ["news"]


def test_export_writes_to_a_file_on_request(path: Path, wal: Command, tmp_path: Path) -> None:
    wal("export", "--output", tmp_path / "out", path)
    assert wal.out == ""
    assert len((tmp_path / "out").read_text().splitlines()) == 2


def test_export_says_when_it_cannot_write(path: Path, wal: Command, tmp_path: Path) -> None:
    assert wal("export", "--output", tmp_path / "away" / "out", path) == 1
    assert "No such file or directory; choose another file" in wal.err


def test_export_of_a_damaged_log_writes_what_there_is_and_says_what_there_is_not(
    path: Path, wal: Command
) -> None:
    damage_run(path)
    assert wal("export", path) == 1
    assert [line["number"] for line in wal.lines] == [24]
    assert f"{path}/{LAST}: offset" in wal.err


# import


def test_what_was_exported_is_imported(path: Path, wal: Command, tmp_path: Path) -> None:
    wal("export", "--all", "--output", tmp_path / "lines", path)
    new = tmp_path / "new"
    assert wal("import", new, tmp_path / "lines") == 0
    assert "demo: 3 messages, kept\nnews: 1 message, kept\nimported 4 messages" in wal.out
    wal("export", new)
    assert [line["body"] for line in wal.lines] == ["body"] * 4
    assert starts(new)


def test_import_says_for_whom_the_messages_are(path: Path, wal: Command, tmp_path: Path) -> None:
    (tmp_path / "lines").write_text('{"topic": "demo", "body": "new"}\n\n')
    assert wal("import", path, tmp_path / "lines") == 0
    assert "demo: 1 message, for 1 subscription" in wal.out


def test_import_reserves_numbers_as_the_daemon_does(
    path: Path, wal: Command, tmp_path: Path
) -> None:
    (tmp_path / "lines").write_text('{"topic": "demo", "body": "new"}')
    wal("import", path, tmp_path / "lines")
    assert state(path).reserved == 1_000 + NUMBERS_RESERVED


def test_more_messages_than_the_daemon_keeps_are_warned_of(wal: Command, tmp_path: Path) -> None:
    (tmp_path / "lines").write_text('{"topic": "demo", "body": "new"}\n' * 1_025)
    assert wal("import", tmp_path / "new", tmp_path / "lines") == 0
    assert "retention.kept_messages" in wal.out


def test_a_bad_line_is_named_and_nothing_is_imported(
    path: Path, wal: Command, tmp_path: Path
) -> None:
    lines = tmp_path / "lines"
    lines.write_text('{"topic": "demo", "body": "new"}\n\n{"topic": "demo"}\n')
    before = contents(path)
    assert wal("import", path, lines) == 1
    assert f"{lines}: line 3: expected either" in wal.err
    assert "nothing was imported" in wal.err
    assert contents(path) == before


def legacy(topic: bytes, body: bytes) -> bytes:
    """A log of the older format with one message."""
    payload = b"\1" + struct.pack(">H", len(topic)) + topic + body
    head = b"BLIPWAL\0" + (1).to_bytes(4, "little") + bytes(20)
    return head + struct.pack("<QII", 1, len(payload), zlib.crc32(payload)) + payload


def test_a_log_of_the_older_format_is_imported(wal: Command, tmp_path: Path) -> None:
    older = tmp_path / "older.wal"
    older.write_bytes(legacy(b"demo", b"old"))
    assert wal("import", tmp_path / "new", older) == 0
    wal("export", tmp_path / "new")
    assert [(line["topic"], line["body"]) for line in wal.lines] == [("demo", "old")]


def test_an_incomplete_last_record_of_an_older_log_is_told(wal: Command, tmp_path: Path) -> None:
    older = tmp_path / "older.wal"
    older.write_bytes(legacy(b"demo", b"old") + b"torn")
    assert wal("import", tmp_path / "new", older) == 0
    assert f"{older}: torn tail of 4 bytes" in wal.out


def test_a_damaged_older_log_is_not_imported(wal: Command, tmp_path: Path) -> None:
    older = tmp_path / "older.wal"
    older.write_bytes(legacy(b"demo", b"old")[:-1] + b"D")
    assert wal("import", tmp_path / "new", older) == 1
    assert f"{older}: offset 32: the record's checksum does not match" in wal.err
    assert not (tmp_path / "new").exists()


def test_an_older_message_that_no_broker_takes_is_named(wal: Command, tmp_path: Path) -> None:
    older = tmp_path / "older.wal"
    older.write_bytes(legacy(b"\xff", b"old"))
    assert wal("import", tmp_path / "new", older) == 1
    assert f"{older}: offset 32: the topic is not UTF-8; nothing was imported" in wal.err


def test_into_a_damaged_log_nothing_is_imported(path: Path, wal: Command, tmp_path: Path) -> None:
    (tmp_path / "lines").write_text('{"topic": "demo", "body": "new"}')
    damage_run(path)
    assert wal("import", path, tmp_path / "lines") == 1
    assert "wal repair --dry-run" in wal.err


def test_a_file_that_is_not_there_cannot_be_imported(path: Path, wal: Command) -> None:
    assert wal("import", path, path / "away") == 2
    assert "does not exist" in wal.err


# backup


def test_backup_makes_a_log_that_a_daemon_starts_on(
    path: Path, wal: Command, tmp_path: Path
) -> None:
    assert wal("backup", path, tmp_path / "copy") == 0
    assert "copied 2 segments" in wal.out
    assert found(tmp_path / "copy").numbers == [21, 23, 24]


def test_backup_of_a_damaged_log_says_what_to_do(path: Path, wal: Command, tmp_path: Path) -> None:
    damage_run(path)
    assert wal("backup", path, tmp_path / "copy") == 1
    assert "wal repair" in wal.err


def test_backup_replaces_nothing(path: Path, wal: Command) -> None:
    assert wal("backup", path, path) == 1
    assert "is not empty; choose another one" in wal.err


# the command


def test_help_names_every_command(wal: Command) -> None:
    assert wal("--help") == 0
    for name in ("inspect", "verify", "repair", "export", "import", "backup"):
        assert f"  {name} " in wal.out


def test_a_wrong_command_line_cannot_be_used(wal: Command) -> None:
    assert wal("inspect") == 2
    assert "Missing argument 'PATH'" in wal.err


def test_interrupted_it_ends_as_a_shell_expects(
    path: Path, wal: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("blipmq.cli.wal.survey", interrupt)
    assert wal("inspect", path) == 130


def test_main_exits_with_the_status(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    damage_run(path)
    monkeypatch.setattr(sys, "argv", ["blipmq", "wal", "verify", str(path)])
    with pytest.raises(SystemExit) as ended:
        blipmq.main()
    assert ended.value.code == 1
    assert capsys.readouterr().out
